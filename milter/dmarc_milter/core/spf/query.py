"""pyspf's query, asking our resolver and fenced against its defects (SECURITY.md, Defects of the
libraries).

pyspf keeps the evaluation of each mechanism, include, redirect, the ten look-ups and the macro
transformers. It is fed one checked mechanism at a time. What each override works around is
described where it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import quote

import spf as pyspf

from dmarc_milter.core import budget
from dmarc_milter.core.mail.domain import Malformed
from dmarc_milter.core.resolver import (
    LimitExceeded,
    LookupFailed,
    Missing,
    NoAnswer,
    Question,
    RdataType,
    Resolver,
    TimeExceeded,
    missing,
)
from dmarc_milter.core.spf import record as spf_record
from dmarc_milter.core.spf.look_ahead import LookAhead
from dmarc_milter.core.spf.options import SpfOptions
from dmarc_milter.core.spf.record import MAX_EXPANDED, Directive, SpfMacro, SpfRecord, is_askable

MAX_NAMES = 10
"""Exchanges of one mx, names of one ptr (RFC 7208 4.6.4)."""


@dataclass(frozen=True, slots=True)
class Sender:
    """What is checked, as RFC 7208 4.1 names it."""

    ip: IPv4Address | IPv6Address
    """IPv4-mapped addresses as IPv4, no zone."""
    local_part: str
    domain: str
    """A-labels, lower case."""
    helo: str


class QueryRefused(pyspf.PermError):  # type: ignore[misc]  # pyspf has no types
    """A permerror of ours; its text is from a fixed vocabulary."""


class Exhausted(QueryRefused):
    """The message has no question left. Its own doing, so nothing that could pass for trouble in
    the DNS."""


class NothingToAsk(Exception):
    """A macro gave no name that can be asked: the term does not match (RFC 8616 4 for local parts
    that are not ASCII)."""


class Query(pyspf.query):  # type: ignore[misc]  # pyspf has no types
    """One check. Nothing of it is global: pyspf reads its DNS function and limits from module
    globals, so those are not used."""

    def __init__(self, sender: Sender, resolver: Resolver, options: SpfOptions) -> None:
        super().__init__(i=str(sender.ip), s=f"{sender.local_part}@{sender.domain}", h=sender.helo)
        # pyspf splits the address at its first @, which a quoted local part may contain.
        self.l, self.o, self.d = sender.local_part, sender.domain, sender.domain
        self.client = sender.ip
        self.resolver = resolver.share(queries=options.queries, seconds=options.seconds)
        self.limits = options
        self.record: bytes | None = None
        """The record at the sender's domain, once it has been looked up."""
        self.path: list[str] = []
        """The terms that led to the result, outermost first."""
        self.permissive = False
        self.personal = False
        """A macro asked for the local part or HELO: the result is no other sender's."""
        self.missing: Missing | None = None
        """The answer that could not be had, if any."""
        self._asked: set[Question] = set()
        self._addresses: set[str] = set()
        self._ahead = LookAhead(sender.ip, options)
        self._void_counted = True  # the first look-up is none of a term's
        self._names: tuple[str, ...] | None = None

    # Records

    def dns_spf(self, domain: str) -> bytes | None:
        """The record at a name; None if there is none or the name is not one that can have one (RFC
        7208 4.3, 4.5).

        Instead of pyspf's: its pattern takes a final line feed for the end, its text is of any
        size, single labels are asked.
        """
        if not spf_record.is_multi_label(domain):
            return None
        self._ahead.evaluated(domain)
        records = spf_record.select(self.dns_txt(domain))
        if self.record is None:
            self.record = records[0] if len(records) == 1 else b""
        if len(records) > 1:
            raise QueryRefused("several SPF records")
        if records and len(records[0]) > self.limits.max_record:
            raise QueryRefused("record too long")
        return records[0] if records else None

    def check0(self, spf: bytes | None, recursion: int) -> tuple[str, int, str]:
        """One record. pyspf is fed one mechanism at a time.

        Fed a whole record it expands every macro and counts redirect= before anything is evaluated,
        fetches exp= even for a pass and without counting it, refuses repeated unknown modifiers,
        compares modifier names with case, and hands the record to two patterns of quadratic time.
        """
        if spf is None:
            return "none", 250, ""
        record = spf_record.parse(spf, self.limits.max_term)
        if isinstance(record, Malformed):
            raise QueryRefused(record.reason)
        hinted = False
        for position, directive in enumerate(record.directives):
            if directive.network is not None and self.client not in directive.network:
                # Most terms are these, and pyspf would parse every address again for every message.
                continue
            if directive.mechanism in spf_record.LOOKS_UP and not hinted:
                hinted = True
                self._hint_terms(record, position)
            if self._matches(directive, recursion):
                return directive.result, 250, ""
        return self._redirect(record, recursion) if record.redirect else ("neutral", 250, "")

    def _matches(self, directive: Directive, recursion: int) -> bool:
        depth = len(self.path)
        self.path.append(directive.text)
        try:
            if (
                self._feed(
                    directive.plain, recursion, looks_up=directive.mechanism in spf_record.LOOKS_UP
                )[0]
                == "pass"
            ):
                if directive.mechanism != "include":
                    self.permissive = self._is_permissive(directive)
                return True
        except NothingToAsk:
            pass
        del self.path[depth:]
        return False

    def _redirect(self, record: SpfRecord, recursion: int) -> tuple[str, int, str]:
        self.path.append(f"redirect={record.redirect}")
        try:
            return self._feed(f"redirect={record.redirect}", recursion, looks_up=True)
        except NothingToAsk:
            raise QueryRefused(
                "redirect to no name"
            ) from None  # RFC 7208 6.1: malformed target-name

    def _feed(self, term: str, recursion: int, *, looks_up: bool) -> tuple[str, int, str]:
        if looks_up and self.lookups >= budget.SPF_TERMS:
            raise QueryRefused("more than 10 terms that look something up")
        self._void_counted = not looks_up
        result: tuple[str, int, str] = super().check0(f"v=spf1 {term}", recursion)
        return result

    def _is_permissive(self, directive: Directive) -> bool:
        """BreakSPF (docs/attacks.md BSP-01): all, or a range that no sender needs."""
        match directive.mechanism:
            case "all":
                return True
            case "ip4" | "ip6" if directive.network:
                prefix = directive.network.prefixlen
            case "a" | "mx":
                prefix = directive.prefix4 if self.client.version == 4 else directive.prefix6
            case _:
                return False
        return prefix < (
            self.limits.permissive_prefix4
            if self.client.version == 4
            else self.limits.permissive_prefix6
        )

    # Macros

    def expand_domain(self, arg: str) -> str:
        """Without pyspf's second look at the syntax: its pattern takes quadratic time, and the
        record has been checked."""
        return self.expand(arg)

    def expand(self, s: str, stripdot: bool = True) -> str:
        """RFC 7208 7.3. Instead of pyspf's: that keeps delimiters where a dot belongs, takes no
        upper-case R, drops one label at most from a long name, keeps %{p} across include, and
        raises for what is not ASCII."""
        name = "".join(
            token if isinstance(token, str) else self._value(token)
            for token in spf_record.tokens(s)
        )
        if stripdot:
            name = name.removesuffix(".")
        if len(name) > MAX_EXPANDED:
            name = name[name.find(".", len(name) - MAX_EXPANDED - 1) + 1 :]
        if not name:
            raise NothingToAsk
        return name

    def _value(self, macro: SpfMacro) -> str:
        letter = macro.letter
        self.personal = self.personal or letter in "slh"
        if letter in "sl" and not self.l.isascii():
            if any("\ud800" <= char <= "\udfff" for char in self.l):
                raise QueryRefused("local part is not UTF-8")
            raise NothingToAsk
        value = self.validated_name() if letter == "p" else str(getattr(self, letter))
        if len(value) > MAX_EXPANDED:
            raise NothingToAsk
        value = "".join(pyspf.expand_one(value, macro.transformers, "."))
        if macro.escaped:
            value = quote(value, safe="~", errors="surrogateescape")
        # What the message or the client's own zone may put into a question: visible ASCII, no
        # escape or wildcard of zone files.
        if letter in "slhp" and any(not "!" <= char <= "~" or char in "\\*" for char in value):
            raise NothingToAsk
        return value

    def validated_name(self) -> str:
        """%{p}: the client's proven name that is nearest to the current domain (RFC 7208 7.3)."""
        names, here = self.validated_ptrs(), str(self.d).lower()
        if here in names:
            return here
        below = [name for name in names if name.endswith(f".{here}")]
        return (*below, *names, "unknown")[0]

    def validated_ptrs(self) -> Sequence[str]:
        """The client's names that resolve back to it, of the first ten (RFC 7208 5.5).

        Instead of pyspf's: that asks again for each use, and a failure is a temperror although it
        only means no match. The client owns these names, so they get half the time at most: whoever
        stalls them does not stall the rest.
        """
        if self._names is None:
            main, self.resolver = (
                self.resolver,
                self.resolver.share(queries=1 + MAX_NAMES, seconds=self.limits.seconds / 2),
            )
            try:
                self._names = tuple(self._proven_names())
            finally:
                self.resolver = main
        return self._names

    def _proven_names(self) -> Iterator[str]:
        try:
            names = [name.lower() for name in self.dns_ptr(self.i)[:MAX_NAMES]]
        except (pyspf.TempError, Exhausted):
            return
        self._hint_addresses(names)
        for name in names:
            try:
                if self.cidrmatch(self._address(name), self.cidrmax):
                    yield name
            except (pyspf.TempError, Exhausted):
                continue

    # Look-ups

    def dns_mx(self, domainname: str) -> Iterator[str]:
        """The addresses of all exchanges, fetched while none has matched. pyspf's fetches all of
        them, one after the other."""
        exchanges = sorted(self.dns(domainname, "MX"))
        if len(exchanges) > MAX_NAMES:
            raise QueryRefused("more than 10 MX records")
        names = [name for _, name in exchanges if name]
        self._hint_addresses(names)
        for name in names:
            yield from self._address(name)

    def _address(self, name: str) -> list[str]:
        """Of one name of mx or ptr; pyspf does not count these."""
        self._addresses.add(name.lower())
        if len(self._addresses) > self.limits.max_address_lookups:
            raise QueryRefused("too many address look-ups")
        addresses: list[str] = self.dns(name, self.A)
        return addresses

    def cidrmatch(self, ipaddrs: Iterable[str], n: int) -> bool:
        """Whether the client is in the range of `n` bits around one of the addresses. pyspf's
        builds two networks for each address first: 4 s for what ten mx can answer."""
        shift = self.cidrmax - n
        wanted = int(self.client) >> shift
        return any(int(ip_address(text)) >> shift == wanted for text in ipaddrs)

    def dns(self, name: str, qtype: RdataType, **_ignored: Any) -> list[Any]:
        """One question to our resolver, in the shape that pyspf expects. [] if there is no such
        data.

        pyspf's own goes through a module global to a resolver with a search list, whose exceptions
        it does not all know. Here a term that finds nothing counts once, however many exchanges of
        its mx have no AAAA (RFC 7208 4.6.4: "terms").
        """
        question = Question(name.removesuffix(".").lower(), qtype)
        if not is_askable(question.name):
            return []
        self._count(question)
        try:
            return self._ask(question)
        except NoAnswer:
            self._count_void()
            return []
        except LookupFailed as failure:
            raise self._unanswered(failure) from None

    def _unanswered(self, failure: LookupFailed) -> Exception:
        """What ends the check. A shortage is kept in mind even where the answer would only have
        been no match (ptr)."""
        late = isinstance(failure, TimeExceeded)
        if isinstance(failure, LimitExceeded) and not late:
            return Exhausted("too many DNS queries")
        if self.missing is None or self.missing.kind != "shortage":
            self.missing = Missing("dns", failure.name) if late else missing(failure)
        error: Exception = pyspf.TempError("time limit" if late else "DNS look-up failed")
        return error

    def _ask(self, question: Question) -> list[Any]:
        name, rdtype = question
        match rdtype:
            case "TXT":
                return [(text,) for text in self.resolver.txt(name)]
            case "A" | "AAAA":
                return list(self.resolver.addresses(name, rdtype))
            case "MX":
                return list(self.resolver.mx(name))
            case "PTR":
                return list(self.resolver.ptr(name))

    def _count(self, question: Question) -> None:
        """A limit of counts is the record's own doing: permerror before the share of the message's
        budget runs out."""
        self._asked.add(question)
        if len(self._asked) > self.limits.queries:
            raise QueryRefused("too many DNS queries")

    def _count_void(self) -> None:
        if self._void_counted:
            return
        self._void_counted = True
        self.void_lookups += 1
        if self.void_lookups > self.limits.void_lookups:
            raise QueryRefused("too many terms that find nothing")

    # Hints: what will be asked next, in parallel. Never more than the evaluation itself could ask.

    def _hint_terms(self, record: SpfRecord, position: int) -> None:
        """The first questions of the terms from `position`, and of the included records that have
        come meanwhile."""
        questions = self._ahead.questions(
            record,
            position,
            here=str(self.d),
            room=budget.SPF_TERMS - self.lookups,
            resolver=self.resolver,
        )
        self._ahead.taken(self._hint(questions))

    def _hint_addresses(self, names: Iterable[str]) -> None:
        wanted = dict.fromkeys(name.lower() for name in names if is_askable(name))
        room = self.limits.max_address_lookups - len(self._addresses)
        self._hint(
            [Question(name, self.A) for name in wanted if name not in self._addresses][
                : max(room, 0)
            ]
        )

    def _hint(self, questions: Iterable[Question]) -> int:
        """Pass on what is new, if it is more than the one that is asked at once anyway; how many
        that were."""
        fresh = [
            question
            for question in dict.fromkeys(questions)
            if question not in self._asked and is_askable(question.name)
        ]
        fresh = fresh[: self.limits.queries - len(self._asked)]
        if len(fresh) < 2:
            return 0
        self._asked.update(fresh)
        self.resolver.prefetch(fresh)
        return len(fresh)
