"""Totals by day as the charts and their tables show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from dmarc_milter.ledger.store.decisions import Total

VERDICTS = ("pass", "fail", "none", "temperror", "permerror")
ACTIONS = (
    "delivered",
    "quarantined",
    "refused",
    "deferred",
    "would be quarantined",
    "would be refused",
    "would be deferred",
)
_DONE = {
    "none": "delivered",
    "pass": "delivered",
    "quarantine": "quarantined",
    "reject": "refused",
    "tempfail": "deferred",
}
_WOULD = {
    "quarantine": "would be quarantined",
    "reject": "would be refused",
    "tempfail": "would be deferred",
}


class Chart(NamedTuple):
    """Days (YYYY-MM-DD, oldest first) and for each series its name and its values."""

    days: list[str]
    series: list[tuple[str, list[int]]]

    def data(self) -> dict[str, object]:
        """As the script in the page takes it."""
        return {
            "labels": self.days,
            "datasets": [{"label": name, "data": values} for name, values in self.series],
        }


def tiles(totals: Iterable[Total]) -> dict[str, int]:
    """Messages in the period: all, and by what matters first."""
    counts = dict.fromkeys(
        ("messages", "passed", "failed", "quarantined", "refused", "deferred"), 0
    )
    for total in totals:
        counts["messages"] += total.messages
        counts["passed"] += total.messages * (total.status == "pass")
        counts["failed"] += total.messages * (total.status == "fail")
        done = _action(total)
        if done in counts:
            counts[done] += total.messages
    return counts


def verdicts(totals: Sequence[Total]) -> Chart:
    """Messages by DMARC result."""
    return _chart(totals, VERDICTS, [total.status for total in totals])


def actions(totals: Sequence[Total]) -> Chart:
    """Messages by what was done; in monitor mode, what would have been."""
    return _chart(totals, ACTIONS, [_action(total) for total in totals])


def _action(total: Total) -> str:
    if total.disposition in ("none", "pass") and total.would_be in _WOULD:
        return _WOULD[total.would_be]
    return _DONE.get(total.disposition, "delivered")


def _chart(totals: Sequence[Total], names: Sequence[str], kinds: Sequence[str]) -> Chart:
    days = sorted({total.day for total in totals})
    values = {name: dict.fromkeys(days, 0) for name in names}
    for total, kind in zip(totals, kinds, strict=True):
        if kind in values:
            values[kind][total.day] += total.messages
    shown = [
        (name, list(by_day.values())) for name, by_day in values.items() if any(by_day.values())
    ]
    return Chart([datetime.fromtimestamp(day, UTC).strftime("%Y-%m-%d") for day in days], shown)
