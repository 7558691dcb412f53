"""What a postmaster should know of a day or a week, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dmarc_milter.core.explain.done import done
from dmarc_milter.core.explain.senders import Identity, Kind, ProbableSender, sources
from dmarc_milter.ledger.impact import samples
from dmarc_milter.ledger.stopped import StoppedMail
from dmarc_milter.ledger.store.decisions import Filter, Total, Waiting
from dmarc_milter.ledger.store.reports import Report, ReportState
from dmarc_milter.ledger.store.rollups import Verdicts, verdicts
from dmarc_milter.ledger.store.store import Store

SUDDEN = 10
"""Failing messages of a domain that are worth a line."""
MANY, FEW = 0.5, 0.2
"""Shares of failures: a domain that had at most FEW before and has MANY now is in trouble."""
LISTED = 10
UNDELIVERED = (ReportState.EXPIRED, ReportState.SUPPRESSED)


class Failing(NamedTuple):
    """A domain whose mail began to fail: messages that failed, and all, in this period."""

    author_domain: str
    failed: int
    messages: int


class Looked(NamedTuple):
    """Of how many of the messages that policy stopped, or would have, the senders were looked
    at."""

    looked_at: int
    messages: int


@dataclass(frozen=True, slots=True)
class Digest:
    """One period, from `since` to `until` (seconds since 1970), compared with the one before."""

    since: int
    until: int
    enforce: bool
    messages: int
    by_status: Mapping[str, int]
    became: Mapping[str, int]
    """Word of core/explain/done.py -> messages. The mode may have changed within the period."""
    new_senders: tuple[ProbableSender, ...]
    looked: Looked
    looked_before: Looked
    """In the period before: who is found there is not new."""
    failing: tuple[Failing, ...]
    waiting: tuple[Waiting, ...]
    undelivered: tuple[Report, ...]
    """Given up in this period, whatever days they are about."""


def digest(store: Store, *, since: int, until: int, enforce: bool) -> Digest:
    """Raises StoreError."""
    decisions, before = store.decisions, since - (until - since)
    totals = decisions.totals(since, until)
    senders, looked = _senders(store, since, until)
    senders_before, looked_before = _senders(store, before, since)
    return Digest(
        since=since,
        until=until,
        enforce=enforce,
        messages=sum(total.messages for total in totals),
        by_status=_by_status(totals),
        became=_became(totals),
        new_senders=_new_senders(senders, senders_before),
        looked=looked,
        looked_before=looked_before,
        failing=tuple(_failing(store, since, until, before)),
        waiting=tuple(decisions.waiting(since, until=until, limit=LISTED)),
        undelivered=tuple(store.reports.find(list(UNDELIVERED), done=(since, until), limit=LISTED)),
    )


def _by_status(totals: Iterable[Total]) -> Mapping[str, int]:
    counts = Counter[str]()
    for total in totals:
        counts[total.status] += total.messages
    return counts


def _became(totals: Iterable[Total]) -> Mapping[str, int]:
    counts = Counter[str]()
    for total in totals:
        counts[done(total.disposition, total.would_be)] += total.messages
    return counts


def _new_senders(
    senders: Sequence[ProbableSender], before: Sequence[ProbableSender]
) -> tuple[ProbableSender, ...]:
    """Lists and forwarders that were stopped, and were not met in the period before."""
    known: set[Identity] = {one.identity for one in before if one.identity}
    found = [one for one in senders if one.identity and one.identity not in known]
    return tuple(one for one in found if one.kind in (Kind.MAILING_LIST, Kind.FORWARDER))[:LISTED]


def _senders(store: Store, since: int, until: int) -> tuple[tuple[ProbableSender, ...], Looked]:
    stopped = StoppedMail(store.database, Filter(since=since, until=until, affected=True))
    found = sources(samples(store.decisions, stopped.pairs()))
    return found, Looked(stopped.looked_into, stopped.messages)


def _failing(store: Store, since: int, until: int, before: int) -> list[Failing]:
    """Domains that failed seldom before and often now; most failures first."""
    now = verdicts(store.database, since, until, fewest=SUDDEN, share=MANY)
    names = [one.author_domain for one in now]
    then = {one.author_domain: one for one in verdicts(store.database, before, since, of=names)}
    found = [Failing(*one) for one in now if _was_well(then.get(one.author_domain))]
    return sorted(found, key=lambda one: (-one.failed, one.author_domain))[:LISTED]


def _was_well(before: Verdicts | None) -> bool:
    return (
        before is not None
        and before.messages > before.failed
        and before.failed <= FEW * before.messages
    )
