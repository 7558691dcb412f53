"""Counters of all workers in shared memory, so that they add up and outlive any worker. No
attacker-chosen names.

A worker counts into its own slot of the shared memory; telemetry/prometheus.py shows the sums.
Histograms are counters too: one for each range between two bounds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from dmarc_milter.core.deferrals import DEFERRALS
from dmarc_milter.core.dkim import DkimStatus
from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.policy.decide import Disposition
from dmarc_milter.core.spf.check import SpfStatus
from dmarc_milter.process.shared_memory import COUNTERS, WorkerSlot

BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
"""Seconds: upper bounds of the histograms' ranges; one more range is above the last."""
STAGES = ("message", "wait", "evaluate", "record")
"""What is timed: MAIL FROM to the answer; and of it: waiting for the processor, the verdict, the
spool's commit."""

NAMES: tuple[str, ...] = (
    "connections",
    "connections_refused",
    "messages",
    "messages_exempt",
    "messages_tempfailed",
    *(f"deferred_{reason}" for reason in DEFERRALS),
    "messages_unrecorded",
    "messages_poisoned",
    "messages_over_limit",
    "messages_overloaded",
    "failures",
    "log_lines_dropped",
    *(f"dmarc_{status}" for status in DmarcStatus),
    *(f"spf_{status}" for status in SpfStatus),
    *(f"dkim_{status}" for status in DkimStatus),
    "dkim_none",
    *(f"disposition_{disposition}" for disposition in Disposition),
    *(f"{stage}_{number}" for stage in STAGES for number in range(len(BOUNDS) + 1)),
    *(f"{stage}_microseconds" for stage in STAGES),
    "organization_differs",
    "psl_guarded",
    "dns_queries",
    "dns_retries",
    "dns_tcp",
    "dns_failures",
    "dns_timeouts",
    "dns_waits",
    "dns_shortages",
    "dns_cache_hits",
    "dns_stale_answers",
    "spool_recorded",
    "spool_unrecorded",
    "spool_late",
    "spool_lost",
    "workers_ready",
    "workers_wanted",
    "workers_died",
    "workers_killed",
    "reloads",
    "reloads_failed",
    "dns_down",
)
"""In the order of the counters. The last seven are the supervisor's own; workers_ and dns_down go
up and down."""
INDEX = {name: index for index, name in enumerate(NAMES)}
assert len(NAMES) <= COUNTERS


class Meter:
    """One worker's counting."""

    def __init__(self, slot: WorkerSlot) -> None:
        self._slot = slot
        self._followed: dict[str, int] = {}

    def follow(self, name: str, value: int) -> None:
        """Add what a count kept elsewhere in this process has grown by since the last time. One
        thread only."""
        grown = value - self._followed.get(name, 0)
        if grown > 0:
            self._followed[name] = value
            self.count(name, grown)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter of NAMES."""
        self._slot.add([(INDEX[name], amount)])

    def set(self, name: str, value: int) -> None:
        """For what goes up and down. The supervisor's alone."""
        self._slot.counters[INDEX[name]] = value

    def message(
        self,
        evaluation: Evaluation,
        seconds: float,
        *,
        recorded: bool,
        stages: Mapping[str, float] = {},
    ) -> None:
        """Everything that one evaluated message adds: it took `seconds` from MAIL FROM on, and
        `stages` of STAGES after its end."""
        amounts = [(INDEX[name], 1) for name in _names_of(evaluation)]
        if not recorded:
            amounts.append((INDEX["messages_unrecorded"], 1))
        for stage, spent in {"message": seconds, **stages}.items():
            amounts += [
                (_FIRST_RANGE[stage] + bisect_left(BOUNDS, spent), 1),
                (_SUM[stage], int(spent * 1e6)),
            ]
        self._slot.add(amounts)


def _names_of(evaluation: Evaluation) -> list[str]:
    """The counters that a message adds one to."""
    verdict = evaluation.verdict
    names = ["messages", f"dmarc_{evaluation.dmarc.status}", f"spf_{evaluation.spf.status}"]
    names += [f"dkim_{result.status}" for result in evaluation.dkim] or ["dkim_none"]
    names.append(
        "messages_tempfailed" if verdict.tempfail else f"disposition_{verdict.disposition}"
    )
    if verdict.deferral:
        names.append(f"deferred_{verdict.deferral.reason}")
        if verdict.deferral.reason == "overloaded":
            names.append("messages_overloaded")
    if verdict.over_limit:
        names.append("messages_over_limit")
    if (outcome := evaluation.dmarc.outcome) is not None:
        if outcome.psl_organizational_domain is not None:
            names.append("organization_differs")
        if outcome.guarded:
            names.append("psl_guarded")
    return names


_FIRST_RANGE = {stage: INDEX[f"{stage}_0"] for stage in STAGES}
_SUM = {stage: INDEX[f"{stage}_microseconds"] for stage in STAGES}


def named(totals: Sequence[int]) -> Iterator[tuple[str, int]]:
    """(name, value) of every counter, from SharedMemory.totals()."""
    yield from zip(NAMES, totals, strict=False)
