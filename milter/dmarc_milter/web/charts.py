"""Totals by day as the overview draws them: cards with share and trend, and one chart of stacked
bars in which no day is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from dmarc_milter.core.explain.done import done
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store.decisions import Total

OUTCOMES = (
    "passed",
    "no policy",
    "failed, delivered",
    "not judged, delivered",
    "would be quarantined",
    "would be refused",
    "would be deferred",
    "quarantined",
    "refused",
    "deferred",
)
"""Every message is one of these; in a bar the first stands lowest."""
_DELIVERED = {"pass": "passed", "none": "no policy", "fail": "failed, delivered"}
LABELS = 7
"""Days that are named below the chart, at most."""


def outcome(total: Total) -> str:
    """One of OUTCOMES."""
    word = done(total.disposition, total.would_be)
    return _DELIVERED.get(total.status, "not judged, delivered") if word == "delivered" else word


class Card(NamedTuple):
    """A number of the period. `share` and `before` (the same share in the period before) are in
    percent, None where there was no mail; `search` is what the list of decisions is asked for."""

    name: str
    messages: int
    would: int
    """Messages that would have been treated so with enforcement."""
    share: float | None
    before: float | None
    search: Mapping[str, str]
    earlier: int = 0
    """Messages of the period before, on the card of all messages."""

    @property
    def trend(self) -> str:
        """up, down, same, or "" where nothing can be compared."""
        if self.share is None or self.before is None:
            return ""
        change = round(self.share, 1) - round(self.before, 1)
        return "same" if not change else "up" if change > 0 else "down"


_CARDS: tuple[tuple[str, str, str, str], ...] = (
    ("passed", "status", "pass", ""),
    ("failed", "status", "fail", ""),
    ("refused", "disposition", "reject", "refused"),
    ("quarantined", "disposition", "quarantine", "quarantined"),
    ("deferred", "disposition", "tempfail", "deferred"),
    ("no policy", "status", "none", ""),
    ("temperror", "status", "temperror", ""),
)


def cards(now: Sequence[Total], before: Sequence[Total]) -> list[Card]:
    """All messages first, then what matters about them."""
    all_now, all_before = _sum(now), _sum(before)
    found = [Card("messages", all_now, 0, None, None, {}, all_before)]
    for name, field, value, word in _CARDS:
        number = _sum(total for total in now if getattr(total, field) == value)
        earlier = _sum(total for total in before if getattr(total, field) == value)
        shares = (_share(number, all_now), _share(earlier, all_before))
        would = _would_be(word, now)
        if would and not number:  # as in monitor mode: what matters is what would have been
            shares = (_share(would, all_now), _share(_would_be(word, before), all_before))
            asked = {field: f"would be {word}"}
            found.append(Card(f"would be {word}", would, 0, *shares, asked))
        else:
            found.append(Card(name, number, would, *shares, {field: word or value}))
    return found


def _would_be(word: str, totals: Iterable[Total]) -> int:
    """Messages that enforcement would have treated so."""
    return _sum(total for total in totals if word and outcome(total) == f"would be {word}")


def _sum(totals: Iterable[Total]) -> int:
    return sum(total.messages for total in totals)


def _share(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


class BarSegment(NamedTuple):
    """A part of a bar, measured downwards from the chart's top in percent of its height."""

    name: str
    top: float
    height: float


class Bar(NamedTuple):
    """One day. `counts` are in the order of the chart's names."""

    day: str
    messages: int
    counts: tuple[int, ...]
    segments: tuple[BarSegment, ...]


class Chart(NamedTuple):
    """`names`: outcomes that occur; `bars`: one a day, oldest first; `ticks`: the scale, its
    greatest value first; `labels`: days at even distances, the first at the left edge."""

    names: tuple[str, ...]
    bars: tuple[Bar, ...]
    ticks: tuple[int, ...]
    labels: tuple[str, ...]

    @property
    def empty(self) -> bool:
        return not self.names


def chart(totals: Sequence[Total], since: int, days: int) -> Chart:
    """Messages of each day from `since` (its first second) on, by outcome."""
    counts: dict[int, dict[str, int]] = {since + number * DAY: {} for number in range(days)}
    for total in totals:
        if total.day in counts:
            name = outcome(total)
            counts[total.day][name] = counts[total.day].get(name, 0) + total.messages
    names = tuple(name for name in OUTCOMES if any(name in day for day in counts.values()))
    top = _scale(max((sum(day.values()) for day in counts.values()), default=0))
    bars = tuple(_bar(_date(day), names, found, top) for day, found in counts.items())
    step = next(step for step in range(-(-days // LABELS), days + 1) if days % step == 0)
    labels = tuple(f"{datetime.fromtimestamp(day, UTC):%-d %b}" for day in list(counts)[::step])
    return Chart(names, bars, (top, top // 2, 0), labels)


def _bar(day: str, names: tuple[str, ...], found: Mapping[str, int], top: int) -> Bar:
    segments, below = [], 0
    for name in names:
        number = found.get(name, 0)
        if number:
            below += number
            segments.append(
                BarSegment(name, round(100 - 100 * below / top, 3), round(100 * number / top, 3))
            )
    return Bar(day, below, tuple(found.get(name, 0) for name in names), tuple(segments))


def _scale(most: int) -> int:
    """A round even number that is not below `most`."""
    step = 1
    while True:
        for factor in (2, 4, 6, 10):
            if most <= factor * step:
                return factor * step
        step *= 10


def _date(day: int) -> str:
    return datetime.fromtimestamp(day, UTC).strftime("%Y-%m-%d")
