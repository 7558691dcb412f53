"""What a postmaster should know of a day or a week, as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dmarc_milter.core.explain.senders import Identity, Kind, ProbableSender, sources
from dmarc_milter.ledger.impact import GROUPS, samples
from dmarc_milter.ledger.store.decisions import Decisions, Filter, Impact, Waiting
from dmarc_milter.ledger.store.reports import Report, ReportState
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


@dataclass(frozen=True, slots=True)
class Digest:
    """One period, from `since` to `until` (seconds since 1970), compared with the one before."""

    since: int
    until: int
    enforce: bool
    messages: int
    by_status: Mapping[str, int]
    stopped: Mapping[str, int]
    """reject, quarantine, tempfail -> messages; in monitor mode what would have been done."""
    new_senders: tuple[ProbableSender, ...]
    failing: tuple[Failing, ...]
    waiting: tuple[Waiting, ...]
    undelivered: tuple[Report, ...]


def digest(store: Store, *, since: int, until: int, enforce: bool) -> Digest:
    """Raises StoreError."""
    decisions, before = store.decisions, since - (until - since)
    now = decisions.impact(Filter(since=since, until=until), limit=GROUPS)
    then = decisions.impact(Filter(since=before, until=since), limit=GROUPS)
    return Digest(
        since=since,
        until=until,
        enforce=enforce,
        messages=sum(group.messages for group in now),
        by_status=_count(now, "status"),
        stopped=_count(now, "disposition" if enforce else "would_be"),
        new_senders=_new_senders(decisions, since, until, before),
        failing=tuple(_failing(now, then)),
        waiting=tuple(decisions.waiting(since, limit=LISTED)),
        undelivered=tuple(store.reports.find(list(UNDELIVERED), since=since, limit=LISTED)),
    )


def _count(groups: Iterable[Impact], name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for group in groups:
        key = getattr(group, name)
        counts[key] = counts.get(key, 0) + group.messages
    return counts


def _new_senders(
    decisions: Decisions, since: int, until: int, before: int
) -> tuple[ProbableSender, ...]:
    """Lists and forwarders that were stopped, and were not met in the period before."""
    known = _proven(decisions, before, since)
    found = [
        one
        for one in _senders(decisions, since, until)
        if one.identity and one.identity not in known
    ]
    return tuple(one for one in found if one.kind in (Kind.MAILING_LIST, Kind.FORWARDER))[:LISTED]


def _proven(decisions: Decisions, since: int, until: int) -> set[Identity]:
    return {one.identity for one in _senders(decisions, since, until) if one.identity}


def _senders(decisions: Decisions, since: int, until: int) -> tuple[ProbableSender, ...]:
    groups = decisions.impact(Filter(since=since, until=until, affected=True), limit=GROUPS)
    return sources(samples(decisions, groups, since, until))


def _failing(now: Iterable[Impact], then: Iterable[Impact]) -> Iterable[Failing]:
    """Domains that failed seldom before and often now; most failures first."""
    before = _shares(then)
    found = []
    for name, (failed, messages) in _shares(now).items():
        old_failed, old_messages = before.get(name, (0, 0))
        was_well = old_messages > old_failed and old_failed <= FEW * old_messages
        if name and was_well and failed >= SUDDEN and failed >= MANY * messages:
            found.append(Failing(name, failed, messages))
    return sorted(found, key=lambda one: -one.failed)[:LISTED]


def _shares(groups: Iterable[Impact]) -> dict[str, tuple[int, int]]:
    """Author domain -> (failed, all that had a verdict)."""
    shares: dict[str, tuple[int, int]] = {}
    for group in groups:
        failed, messages = shares.get(group.author_domain, (0, 0))
        if group.status in ("pass", "fail"):
            more = group.messages if group.status == "fail" else 0
            shares[group.author_domain] = (failed + more, messages + group.messages)
    return shares
