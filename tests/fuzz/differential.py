"""The differential fuzz of the From field: what other readers show as the author's domain, against
what we decide.

The attacker owns attack.example, whose mail passes aligned and whose policy is none. For every
organization that a reader shows, that organization alone publishes p=reject: then the message must
be refused, whatever else its From field holds.
"""

from __future__ import annotations

import codecs
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

import idna

from dmarc_milter.core.authenticate import Options, Request, authenticate, plan_look_ups
from dmarc_milter.core.mail import author as address
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.facts import message_facts
from dmarc_milter.core.mail.message import Envelope, HeaderField, Headers, Message
from dmarc_milter.core.mail.path import reverse_path
from dmarc_milter.core.policy.decide import Disposition, Verdict
from dmarc_milter.core.spf.check import check as check_spf
from fakes.dns_zone import Zone
from fuzz.clients import Clients, Shown
from fuzz.grammar import BRAND, OWN, TOPS, Grammar

NOW = datetime(2026, 10, 1, tzinfo=UTC)
INTERNATIONAL = ("xn--bcher-kva.example", "xn--qei.example")
BATCH = 250
THOROUGH = 25
"""One value in so many is judged by the whole core also where a candidate is the victim."""
NAME_OCTETS = frozenset(map(chr, range(33, 127))) - {"@", ","}
"""What a label in the DNS may be thought to hold, taken generously; over a comma some reader has
put together what is no name."""
ENVELOPE = Envelope(
    ip_address("192.0.2.66"), "mx.attack.example", reverse_path(b"<any@attack.example>")
)
OWN_RECORDS = {
    OWN: {"TXT": ["v=spf1 ip4:192.0.2.66 -all"]},
    f"_dmarc.{OWN}": {"TXT": ["v=DMARC1; p=none"]},
}


class Finding(NamedTuple):
    """A forgery that a reader would show and that we let in."""

    value: bytes
    reader: str
    shown: str
    """The address in the reader's hands."""
    victim: Domain
    """The organization that the reader names."""
    author: Author
    verdict: Verdict

    def __str__(self) -> str:
        says = (
            f"{self.author.domain or self.author.malformed}"
            f" {[str(each) for each in self.author.candidates]}"
        )
        return (
            f"{self.value!r}\n  {self.reader} shows {self.shown!r} ({self.victim}); we: {says},"
            f" {self.verdict.disposition}"
        )


def in_dns(name: str) -> str:
    """The name that a program would look up for this text, or "" where it could be none: IDNA,
    case, a final dot."""
    name = name.strip().removesuffix(".")
    if not name.isascii():
        name = _ascii(name)
    labels = name.lower().split(".")
    fits = len(name) <= domain.MAX_NAME and all(
        0 < len(label) <= domain.MAX_LABEL for label in labels
    )
    return ".".join(labels) if fits and NAME_OCTETS.issuperset(name) else ""


def _ascii(name: str) -> str:
    """By UTS 46 and IDNA2008, or by IDNA2003, which knows more characters; "" by neither."""
    for encode in (
        lambda: idna.encode(name, uts46=True).decode(),
        lambda: codecs.encode(name, "idna").decode(),
    ):
        try:
            return encode()
        except (UnicodeError, IndexError):
            continue
    return (
        unicodedata.normalize("NFKC", name) if unicodedata.normalize("NFKC", name).isascii() else ""
    )


@lru_cache(maxsize=100_000)
def organization(shown: str) -> Domain | None:
    """The organization that an address shown to somebody names; None for the attacker's own, and
    for a name that cannot be.

    All organizations of the stage are of the form x.example, except for the brand that is a
    top-level domain itself. An internationalized one counts only if it is a victim: else text in
    the wrong charset would give names without end.
    """
    _, at, host = shown.rpartition("@")
    labels = in_dns(host).split(".") if at else [""]
    if labels[-1] not in TOPS:
        return None
    found = domain.parse(BRAND if labels[-1] == BRAND else ".".join(labels[-2:]))
    if not isinstance(found, Domain) or found.name == OWN:
        return None
    return found if "xn--" not in found.name or found.name in INTERNATIONAL else None


@lru_cache(maxsize=20_000)
def verdict(author: Author, victim: Domain) -> Verdict:
    """What the whole pure core decides of the attacker's message by this author, where the victim
    alone asks for p=reject."""
    zone = Zone({**OWN_RECORDS, f"_dmarc.{victim}": {"TXT": ["v=DMARC1; p=reject"]}})
    options, headers = (
        Options(),
        Headers(
            [HeaderField(b"From", b" x"), HeaderField(b"Date", b" Thu, 1 Oct 2026 10:00:00 +0000")]
        ),
    )
    message, facts = Message(headers, author), message_facts(headers, ENVELOPE)
    request = Request(
        "1",
        ENVELOPE,
        message,
        facts,
        plan_look_ups(headers, author, options),
        lambda: check_spf(ENVELOPE, zone, options.spf),
    )
    return authenticate(request, zone, options, now=NOW, pct_draw=50.0).verdict


def known(author: Author, victim: Domain) -> bool:
    """Whether the victim is who we take for the author, or may be: then its policy decides."""
    seen = (author.domain,) if author.domain else author.candidates
    return author.more or any(each.is_at_or_below(victim) for each in seen)


def let_in(author: Author, victim: Domain) -> bool:
    found = verdict(author, victim)
    return found.disposition is not Disposition.REJECT and not found.tempfail


def judged(value: bytes, shown: Shown, *, thorough: bool = True) -> Finding | None:
    """The first forgery among what readers show of this value. `thorough`: the core is asked also
    where the answer is known."""
    seen = {
        (organization(each), each, reader)
        for reader, addresses in shown.items()
        for each in addresses
    }
    author: Author | None = None
    for victim, text, reader in sorted(seen, key=lambda each: each[1:]):
        if victim is None:
            continue
        author = author or address.author([value])
        if (thorough or not known(author, victim)) and let_in(author, victim):
            return Finding(value, reader, text, victim, author, verdict(author, victim))
    return None


@dataclass
class Differential:
    """One run. `distinct` counts values that were not seen before."""

    clients: Clients
    seed: int
    seen: set[int] = field(default_factory=set)
    elsewhere: int = 0
    """Values of which some reader shows somebody else than the attacker."""

    @property
    def distinct(self) -> int:
        return len(self.seen)

    def findings(self, more: Callable[[], bool]) -> Iterator[Finding]:
        """While `more` says so, a batch at a time; the readers work on the next while this one is
        judged."""
        grammar = Grammar(self.seed)
        asked = self._batch(grammar)
        self.clients.ask(asked)
        try:
            while asked:
                batch, answers = asked, self.clients.answer(asked)
                asked = self._batch(grammar) if more() else []
                if asked:
                    self.clients.ask(asked)
                yield from self._judged(batch, answers)
        finally:
            if asked:
                self.clients.answer(
                    asked
                )  # nobody waits for it, but it must not answer the next question

    def _judged(self, batch: Sequence[bytes], answers: Sequence[Shown]) -> Iterator[Finding]:
        for number, (value, shown) in enumerate(zip(batch, answers, strict=True)):
            self.elsewhere += any(
                organization(each) for addresses in shown.values() for each in addresses
            )
            if found := judged(value, shown, thorough=number % THOROUGH == 0):
                yield found

    def _batch(self, grammar: Grammar) -> list[bytes]:
        return [value for value in (grammar.value() for _ in range(BATCH)) if self._fresh(value)]

    def _fresh(self, value: bytes) -> bool:
        before = len(self.seen)
        self.seen.add(hash(value))
        return len(self.seen) > before


def for_seconds(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end
