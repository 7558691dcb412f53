"""Mail that would take everything: messages that each open some fifty look-ups which nobody
answers, and honest mail meanwhile.

world = World()                        # its zone is for fakes.dns_server
world.saturating(7, forged=True)       # a Letter: mail_from, message (CRLF), author
world.honest(7)                        # known to the cache when even, after world.known() has been
sent
Load(...).run(seconds)                 # attackers and honest senders in threads; what was answered
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from fakes.signer import Signer

VICTIM = "legit.example"
DOMAINS = 20
ENOUGH = 20
"""Honest messages without which nothing can be said."""
PATIENCE = 30.0
"""Seconds more in which a busy machine may send so many."""
"""Honest author domains at a time: half of them are known to the cache, the others are new each
time."""
SEVERAL = 2000
"""Saturating messages and unknown honest domains that the zone knows."""
JUNK = (
    "v=1; a=rsa-sha256; c=relaxed/relaxed; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;"
    " b=Zm9v"
)


@dataclass(frozen=True)
class Letter:
    mail_from: str
    message: bytes
    author: str


class World:
    """Who sends, and what the DNS says of them. Below slow.attack.example nobody ever answers."""

    def __init__(self) -> None:
        self._signer = Signer("honest.example")

    def zone(self) -> dict[str, dict[str, Any]]:
        names: dict[str, dict[str, Any]] = {
            VICTIM: {"TXT": ["v=spf1 ip4:203.0.113.200 -all"]},
            f"_dmarc.{VICTIM}": {"TXT": ["v=DMARC1; p=reject"]},
            "*.slow.attack.example": {"behaviour": "silent"},
            "*._domainkey.attack.example": {"behaviour": "silent"},
            "_dmarc.attack.example": {"TXT": ["v=DMARC1; p=none"]},
        }
        for number in range(SEVERAL):
            terms = [f"include:{term}.{number}.slow.attack.example" for term in range(6)]
            terms += [
                f"mx:m{number}.slow.attack.example",
                f"exists:e{number}.slow.attack.example",
                f"a:a{number}.slow.attack.example",
            ]
            names[f"m{number}.attack.example"] = {"TXT": [f"v=spf1 {' '.join(terms)} -all"]}
        for name in [f"known{number}.example" for number in range(DOMAINS)] + [
            f"new{number}.example" for number in range(SEVERAL)
        ]:
            names |= self._honest_names(name)
        return names

    def _honest_names(self, name: str) -> dict[str, dict[str, Any]]:
        """A provider one include away, and a key: either gives the pass."""
        return {
            name: {"TXT": [f"v=spf1 include:spf.{name} -all"]},
            f"spf.{name}": {"TXT": ["v=spf1 ip4:198.18.0.0/15 -all"]},
            f"_dmarc.{name}": {"TXT": ["v=DMARC1; p=reject"]},
            f"sel._domainkey.{name}": {"TXT": [self._signer.record()]},
        }

    def saturating(self, number: int, *, forged: bool) -> Letter:
        """Slow SPF, ten slow keys, twenty slow seals, and an author whose policy walk is slow too,
        or the victim."""
        author = VICTIM if forged else f"a.b.c.d.e{number}.slow.attack.example"
        fields = [
            f"DKIM-Signature: {JUNK}; d=attack.example; s=k{key}n{number}" for key in range(10)
        ]
        for instance in range(10, 0, -1):
            cv = "none" if instance == 1 else "pass"
            key = f"d=attack.example; s=arc{instance}n{number}"
            fields.append(
                f"ARC-Seal: i={instance}; a=rsa-sha256; t=1700000000; cv={cv}; {key}; b=Zm9v"
            )
            fields.append(
                f"ARC-Message-Signature: i={instance}; {JUNK.removeprefix('v=1; ')}; {key}x"
            )
            fields.append(f"ARC-Authentication-Results: i={instance}; mx.attack.example; none")
        return self._letter(number, author, fields, f"Boss <boss@{author}>")

    def walking(self, number: int, *, forged: bool) -> Letter:
        """Four authors, of whom three or four have slow policy walks: it is the places kept for
        policies that it wants."""
        slow = [f"x@a.b.c.d.e.f.w{each}n{number}.slow.attack.example" for each in range(3)]
        last = f"boss@{VICTIM}" if forged else f"x@w9n{number}.slow.attack.example"
        return self._letter(
            number, VICTIM if forged else "slow.attack.example", [], ", ".join([*slow, last])
        )

    def in_the_way(self, number: int, *, forged: bool) -> Letter:
        """The same keys and policies that honest mail will ask for next, each behind many that
        nobody answers."""
        ahead = self.saturating(number, forged=forged)
        fields = [
            f"DKIM-Signature: {JUNK}; d=new{each % SEVERAL}.example; s=sel"
            for each in range(number + 1, number + 8)
        ]
        return Letter(
            ahead.mail_from, "\r\n".join([*fields, ""]).encode() + ahead.message, ahead.author
        )

    @staticmethod
    def _letter(number: int, author: str, fields: list[str], shown: str) -> Letter:
        text = "\r\n".join([*fields, f"From: {shown}", "Subject: Saturation", "", "Hello.", ""])
        return Letter(f"x@m{number}.attack.example", text.encode(), author)

    @staticmethod
    def spoof(number: int) -> Letter:
        """Nothing but a forged author."""
        text = f"From: Boss <boss@{VICTIM}>\r\nSubject: Spoof {number}\r\n\r\nHello.\r\n"
        return Letter(f"x{number}@attack.example", text.encode(), VICTIM)

    def honest(self, number: int) -> Letter:
        """Of a domain known to the cache when the number is even, else of one that has never been
        heard of; every fifth is signed."""
        name = (
            f"known{number // 2 % DOMAINS}.example"
            if number % 2 == 0
            else f"new{number % SEVERAL}.example"
        )
        text = (
            f"From: Alice <alice@{name}>\r\nTo: bob@test.example\r\nSubject:"
            f" {number}\r\nMessage-ID: <{number}@{name}>\r\n\r\nHello.\r\n"
        )
        message = text.encode()
        if number % 5 == 0:
            self._signer.domain = name
            message = self._signer.sign(message)
        return Letter(f"alice@{name}", message, name)


Send = Callable[[str, Letter], tuple[int, bool]]
"""Gives a message from this client's address; the code of the reply, and whether it was delivered
with dmarc=pass."""


@dataclass
class Outcome:
    """What became of honest mail, and what attackers were answered."""

    seconds: list[float] = field(default_factory=list)
    honest: Counter[tuple[int, bool]] = field(default_factory=Counter)
    attackers: Counter[tuple[str, int]] = field(default_factory=Counter)
    loops: int = 0
    errors: list[BaseException] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return sum(self.honest.values())

    @property
    def passed(self) -> float:
        """The part of honest mail that was accepted with dmarc=pass."""
        return self.honest[250, True] / max(1, self.sent)

    @property
    def deferred(self) -> float:
        return sum(number for (code, _), number in self.honest.items() if 400 <= code < 500) / max(
            1, self.sent
        )

    def quantile(self, part: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(part * len(self.seconds)))]

    def __str__(self) -> str:
        median = statistics.median(self.seconds)
        honest = (
            f"{self.sent} honest: {self.passed:.1%} passed, {self.deferred:.1%} deferred;"
            f" {dict(self.honest)}"
        )
        times = (
            f"median {median:.2f} s, p99 {self.quantile(0.99):.2f} s, longest"
            f" {max(self.seconds):.2f} s"
        )
        attackers = ", ".join(
            f"{kind} {code}: {number}" for (kind, code), number in sorted(self.attackers.items())
        )
        return f"{honest}; {times}; attackers {attackers}; {self.loops} loops"


Run = Callable[[Outcome, int, threading.Event], None]


@dataclass
class Load:
    """`attackers` connections that saturate (every tenth only spoofs), `loops` that give MAIL and
    EHLO in turns, honest senders between."""

    world: World
    send: Send
    loop: Callable[[str, Callable[[], str]], None]
    """(client, next envelope sender): MAIL and EHLO in turns until the next sender raises
    StopIteration."""
    attackers: int = 46
    loops: int = 4
    senders: int = 4
    networks: int = 50
    """From how many client networks the attackers come."""
    pause: float = 0.1
    """Seconds between two honest messages of one sender."""
    client: str = "203.{network}.113.{host}"
    """An attacker's address; `network` is below `networks`."""
    message: Callable[..., Letter] | None = None
    """Makes the messages (number, forged=); World.saturating where it is not given."""
    numbers: Any = field(default_factory=count)

    def run(self, seconds: float, *, warm_up: float = 1.5, to_the_end: bool = False) -> Outcome:
        """The attackers begin, then the honest senders, for so many seconds. `to_the_end`: every
        attacker's last answer is waited for."""
        outcome, over, quiet = Outcome(), threading.Event(), threading.Event()
        attackers = [
            self._thread(outcome, self._attack, number, over) for number in range(self.attackers)
        ]
        attackers += [
            self._thread(outcome, self._loop, number, over) for number in range(self.loops)
        ]
        time.sleep(warm_up)
        honest = [
            self._thread(outcome, self._honest, number, quiet) for number in range(self.senders)
        ]
        time.sleep(seconds)
        latest = time.monotonic() + PATIENCE
        while len(outcome.seconds) < ENOUGH and time.monotonic() < latest:
            time.sleep(0.1)
        quiet.set()
        for thread in honest:
            thread.join(60)
        over.set()
        for thread in attackers if to_the_end else ():
            thread.join(120)
        if outcome.errors:
            raise outcome.errors[0]
        return outcome

    @staticmethod
    def _thread(
        outcome: Outcome,
        run: Callable[[Outcome, int, threading.Event], None],
        number: int,
        over: threading.Event,
    ) -> threading.Thread:
        def guarded() -> None:
            try:
                run(outcome, number, over)
            except BaseException as error:
                if not over.is_set():
                    outcome.errors.append(error)

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    def _client(self, number: int) -> str:
        return self.client.format(network=number % self.networks, host=1 + number)

    def _attack(self, outcome: Outcome, number: int, over: threading.Event) -> None:
        make = self.message or self.world.saturating
        while not over.is_set():
            letter_number = next(self.numbers)
            spoofs = number % 10 == 9
            which = letter_number % SEVERAL
            letter = self.world.spoof(which) if spoofs else make(which, forged=which % 2 == 0)
            code, _ = self.send(self._client(number), letter)
            outcome.attackers[
                "spoof" if spoofs else "forged" if letter.author == VICTIM else "own", code
            ] += 1

    def _loop(self, outcome: Outcome, number: int, over: threading.Event) -> None:
        def sender() -> str:
            if over.is_set():
                raise StopIteration
            outcome.loops += 1
            return f"x@{next(self.numbers)}.slow.attack.example"

        with contextlib.suppress(StopIteration):
            self.loop(self._client(self.attackers + number), sender)

    def _honest(self, outcome: Outcome, number: int, over: threading.Event) -> None:
        while not over.is_set():
            mine = next(self.numbers)
            began = time.monotonic()
            answer = self.send(
                f"198.{18 + mine % 2}.{mine % DOMAINS}.{1 + number}", self.world.honest(mine)
            )
            outcome.seconds.append(time.monotonic() - began)
            outcome.honest[answer] += 1
            over.wait(self.pause)


def assert_honest_mail_gets_through(outcome: Outcome) -> None:
    """At least 95 % accepted with dmarc=pass, median 2 s, p99 10 s, at most 5 % deferred; no
    forgery accepted."""
    print(outcome)
    assert outcome.sent >= ENOUGH, outcome
    assert outcome.passed >= 0.95, outcome
    assert outcome.deferred <= 0.05, outcome
    assert statistics.median(outcome.seconds) <= 2.0, outcome
    assert outcome.quantile(0.99) <= 10.0, outcome
    accepted = [
        kind
        for (kind, code), _ in outcome.attackers.items()
        if code == 250 and kind in ("forged", "spoof")
    ]
    assert not accepted, outcome
