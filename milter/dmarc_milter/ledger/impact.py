"""What enforcement did, or in monitor mode would do, put together for `impact`, the summary and the
dashboard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dmarc_milter.core.explain.senders import NOT_NOTED, SenderGroup
from dmarc_milter.ledger.store.decisions import Decisions, Pair, Treated

SAMPLE = 10
TREATMENTS = ("reject", "quarantine", "tempfail")


class DomainImpact(NamedTuple):
    """What happened to one author domain's mail. `would_` only counts in monitor mode."""

    author_domain: str
    refused: int
    quarantined: int
    deferred: int
    would_refuse: int
    would_quarantine: int
    would_defer: int
    sources: int

    @property
    def messages(self) -> int:
        return (
            self.refused
            + self.quarantined
            + self.deferred
            + self.would_refuse
            + self.would_quarantine
            + self.would_defer
        )


def by_domain(treated: Iterable[Treated], clients: Mapping[str, int]) -> list[DomainImpact]:
    """One line for each author domain, most messages first. `clients`: addresses by domain."""
    counts: dict[str, list[int]] = {}
    for part in treated:
        numbers = counts.setdefault(part.author_domain, [0] * 6)
        if part.disposition in TREATMENTS:
            numbers[TREATMENTS.index(part.disposition)] += part.messages
        else:
            numbers[3 + TREATMENTS.index(part.would_be)] += part.messages
    found = [
        DomainImpact._make((name, *numbers, clients.get(name, 0)))
        for name, numbers in counts.items()
    ]
    return sorted(found, key=lambda row: (-row.messages, row.author_domain))


def by_kind(treated: Iterable[Treated]) -> dict[str, int]:
    """Messages by what their source looks like, most first."""
    kinds = Counter[str]()
    for part in treated:
        kinds[part.kind or NOT_NOTED] += part.messages
    return dict(kinds.most_common())


def samples(decisions: Decisions, pairs: Sequence[Pair]) -> list[SenderGroup]:
    """The pairs, each with some of its messages."""
    found = decisions.samples(pairs, SAMPLE)
    return [
        SenderGroup(author, source, messages, found.get((author, source), ()))
        for author, source, messages, _, _ in pairs
    ]
