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
from dmarc_milter.ledger.store.rollups import Failing, Threshold, began_to_fail
from dmarc_milter.ledger.store.store import Store

SUDDEN = Threshold(few=0.2, many=0.5, fewest=10)
"""A domain that is in trouble."""
LISTED = 10
UNDELIVERED = (ReportState.EXPIRED, ReportState.SUPPRESSED)


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
        failing=tuple(began_to_fail(store.database, (before, since, until), SUDDEN, most=LISTED)),
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
