"""A scripted DNS in memory: what `lookup.Resolver` promises, from a dictionary or a few lines of
zone text.

    zone = Zone({"example.com": {"TXT": ["v=spf1 mx -all"], "MX": [(10, "mx.example.com")]}},
    failing={"x.example"})
    zone = Zone.parse('''
        example.com      TXT   "v=spf1 mx -all"
        example.com      MX    10 mx.example.com
        mx.example.com   A     192.0.2.1
        www.example.com  CNAME mx.example.com
        slow.example     FAIL
        slow.example     FAIL  TXT
    ''')

Names are compared without case or trailing dot. A name that only has names below it is an empty
non-terminal (NoData). `*.` names answer as RFC 4592 says. `zone.calls` lists every question that
got this far, in order; `zone.prefetched` the hints.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from dmarc_milter.core.resolver import (
    LimitExceeded,
    LookupFailed,
    NoAnswer,
    NoData,
    NoSuchName,
    NoSuchTarget,
    Question,
    RdataType,
    Resolver,
    TimeExceeded,
)

Records = Mapping[str, Mapping[str, Sequence[Any]]]


def canonical(name: str) -> str:
    """ASCII lower case, no trailing dot."""
    return name.removesuffix(".").lower()


def askable(name: str) -> bool:
    """What a resolver can put into a question: printable ASCII, labels of 1 to 63 octets, 253 in
    all."""
    return (
        0 < len(name) <= 253
        and all(" " <= char <= "~" for char in name)
        and all(0 < len(label) <= 63 for label in name.split("."))
    )


class Zone:
    """Implements `Resolver`. TXT values are str, bytes, or a sequence of character-strings; MX are
    (preference, exchange)."""

    def __init__(
        self,
        records: Records | None = None,
        *,
        failing: Iterable[str | tuple[str, str]] = (),
        latency: float = 0.0,
        on_query: Callable[[Question], None] | None = None,
    ) -> None:
        """`failing`: names, or (name, type) pairs, whose look-ups raise LookupFailed. `latency`:
        pretended seconds a question."""
        self.records: dict[str, dict[str, list[Any]]] = {}
        self.failing: set[str | tuple[str, str]] = set()
        self.latency = latency
        self.now = 0.0
        """The pretended clock, advanced by `latency` at each question."""
        self.on_query = on_query
        self.calls: list[Question] = []
        self.prefetched: list[Question] = []
        for name, types in (records or {}).items():
            for rdtype, values in types.items():
                self.add(name, rdtype, *values)
        for each in failing:
            self.fail(each) if isinstance(each, str) else self.fail(*each)

    @classmethod
    def parse(cls, text: str, **options: Any) -> Zone:
        """Lines of NAME TYPE DATA; `;` at the start comments a line out; FAIL [TYPE] makes a name
        (or a type of it) fail."""
        zone = cls(**options)
        for line in text.split("\n"):
            if not line.strip() or line.strip().startswith(";"):
                continue
            name, rdtype, *rest = line.split(None, 2)
            data = rest[0].strip() if rest else ""
            if rdtype == "FAIL":
                zone.fail(name, data)
            elif rdtype == "TXT":
                zone.add(name, "TXT", tuple(shlex.split(data)))
            elif rdtype == "MX":
                preference, exchange = data.split()
                zone.add(name, "MX", (int(preference), exchange))
            else:
                zone.add(name, rdtype, data)
        return zone

    def add(self, name: str, rdtype: str, *values: Any) -> None:
        """More records of one type at a name; no values at all makes an empty non-terminal."""
        self.records.setdefault(canonical(name), {}).setdefault(rdtype, []).extend(values)

    def fail(self, name: str, rdtype: str = "") -> None:
        """From now on look-ups of the name (of one type, or all) raise LookupFailed."""
        self.failing.add((canonical(name), rdtype) if rdtype else canonical(name))

    def asked(self, rdtype: str = "") -> list[str]:
        """The names asked for, in order; of one type or of all."""
        return [call.name for call in self.calls if rdtype in ("", call.rdtype)]

    # lookup.Resolver

    def txt(self, name: str) -> tuple[bytes, ...]:
        return tuple(joined(value) for value in self.resolve(Question(canonical(name), "TXT")))

    def addresses(self, name: str, rdtype: Literal["A", "AAAA"]) -> tuple[str, ...]:
        return tuple(self.resolve(Question(canonical(name), rdtype)))

    def mx(self, name: str) -> tuple[tuple[int, str], ...]:
        return tuple(
            (preference, exchange.removesuffix("."))
            for preference, exchange in self.resolve(Question(canonical(name), "MX"))
        )

    def ptr(self, name: str) -> tuple[str, ...]:
        return tuple(
            target.removesuffix(".") for target in self.resolve(Question(canonical(name), "PTR"))
        )

    def aliases(self, name: str, rdtype: Literal["A", "AAAA", "MX"]) -> tuple[str, ...]:
        with contextlib.suppress(NoAnswer):
            self.resolve(Question(canonical(name), rdtype))
        found: list[str] = []
        node = self._node_or_nothing(canonical(name))
        while (targets := node.get("CNAME")) and not node.get(rdtype):
            found.append(canonical(targets[0]))
            node = self._node_or_nothing(found[-1])
        return tuple(found)

    def _node_or_nothing(self, name: str) -> dict[str, list[Any]]:
        try:
            return self._node(name)
        except NoSuchName:
            return {}

    def prefetch(self, questions: Iterable[Question]) -> None:
        self.prefetched.extend(Question(canonical(name), rdtype) for name, rdtype in questions)

    def share(self, *, queries: int, seconds: float) -> Resolver:
        return Share(self, self, queries, seconds)

    # How an answer is found

    def resolve(self, question: Question) -> list[Any]:
        """One counted question."""
        if not askable(question.name):
            raise NoSuchName(question.name)
        self.calls.append(question)
        self.now += self.latency
        if self.on_query:
            self.on_query(question)
        return self._answer(question.name, question.rdtype, hops=0)

    def _answer(self, name: str, rdtype: RdataType, hops: int) -> list[Any]:
        if name in self.failing or (name, rdtype) in self.failing:
            raise LookupFailed(f"{name}/{rdtype}", name=name)
        if hops > 8:
            raise LookupFailed("CNAME loop", name=name)
        try:
            types = self._node(name)
        except NoSuchName:
            raise NoSuchTarget(name) if hops else NoSuchName(name) from None
        if values := types.get(rdtype):
            return values
        if targets := types.get("CNAME"):
            return self._answer(canonical(targets[0]), rdtype, hops + 1)
        raise NoData(f"{name}/{rdtype}")

    def _node(self, name: str) -> dict[str, list[Any]]:
        """The records at a name, or at the wildcard that covers it (RFC 4592)."""
        if name in self.records:
            return self.records[name]
        if self._has_below(name):
            return {}
        parent = name
        while "." in parent:
            parent = parent.split(".", 1)[1]
            if f"*.{parent}" in self.records:
                return self.records[f"*.{parent}"]
            if parent in self.records or self._has_below(parent):
                break
        raise NoSuchName(name)

    def _has_below(self, name: str) -> bool:
        return any(other.endswith("." + name) for other in self.records)


class Share:
    """A part of a message's budget (`Resolver.share`), nestable: different questions are counted
    here and in every parent.

    A hint counts as a question, and does not bring its answer forward: the pretended clock runs
    when it is asked.
    """

    def __init__(self, zone: Zone, parent: Zone | Share, queries: int, seconds: float) -> None:
        self.zone, self.parent = zone, parent
        self.queries, self.deadline = queries, zone.now + seconds
        self.seen: set[Question] = set()
        self.answered: set[Question] = set()

    def spend(self, question: Question) -> None:
        """Count a question once, here and above; LimitExceeded when there is no room."""
        if question not in self.seen:
            if len(self.seen) >= self.queries:
                raise LimitExceeded(f"{question.name}/{question.rdtype}", name=question.name)
            if isinstance(self.parent, Share):
                self.parent.spend(question)
            self.seen.add(question)

    def _allowed(self, name: str, rdtype: RdataType) -> str:
        question = Question(canonical(name), rdtype)
        if askable(question.name) and question not in self.answered:
            if self.zone.now >= self.deadline:
                raise TimeExceeded(f"{name}/{rdtype}", name=question.name)
            self.spend(question)
            self.answered.add(question)
        return name

    def txt(self, name: str) -> tuple[bytes, ...]:
        return self.zone.txt(self._allowed(name, "TXT"))

    def addresses(self, name: str, rdtype: Literal["A", "AAAA"]) -> tuple[str, ...]:
        return self.zone.addresses(self._allowed(name, rdtype), rdtype)

    def mx(self, name: str) -> tuple[tuple[int, str], ...]:
        return self.zone.mx(self._allowed(name, "MX"))

    def ptr(self, name: str) -> tuple[str, ...]:
        return self.zone.ptr(self._allowed(name, "PTR"))

    def aliases(self, name: str, rdtype: Literal["A", "AAAA", "MX"]) -> tuple[str, ...]:
        return self.zone.aliases(self._allowed(name, rdtype), rdtype)

    def prefetch(self, questions: Iterable[Question]) -> None:
        for question in questions:
            try:
                self.spend(Question(canonical(question.name), question.rdtype))
            except LimitExceeded:
                return
            self.zone.prefetch([question])

    def share(self, *, queries: int, seconds: float) -> Resolver:
        return Share(self.zone, self, queries, min(seconds, self.deadline - self.zone.now))


def joined(value: str | bytes | Sequence[str | bytes]) -> bytes:
    """One TXT record's character-strings put together (RFC 7208 3.3)."""
    parts = [value] if isinstance(value, str | bytes) else value
    return b"".join(
        part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part for part in parts
    )
