"""The counters as Prometheus reads them. Label values are words of this program, never of a sender.

docs/reference/metrics.md, the Grafana board and the alert rules in conf/ use these names; a test
compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from dmarc_milter import __version__
from dmarc_milter.core.deferrals import DEFERRALS
from dmarc_milter.core.dkim import DkimStatus
from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.policy.decide import Disposition
from dmarc_milter.core.spf.check import SpfStatus
from dmarc_milter.telemetry.counters import BOUNDS, STAGES, named

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "dmarc_milter_"
SINGLE = {
    "connections": ("connections", "connections that MTAs opened"),
    "refused_connections": (
        "connections_refused",
        "connections answered 451 or hung up on for want of places, threads or descriptors",
    ),
    "exempt_messages": (
        "messages_exempt",
        "messages passed through unevaluated: authenticated clients, trusted networks and daemons",
    ),
    "unrecorded_messages": (
        "spool_unrecorded",
        "messages answered before the spool had committed them, or whose spool file was damaged",
    ),
    "poisoned_messages": (
        "messages_poisoned",
        "messages not evaluated again because they stopped two workers",
    ),
    "over_limit_messages": (
        "messages_over_limit",
        (
            "messages refused for more forged fields than [limits] removable_fields, or more"
            " queries than dns_queries"
        ),
    ),
    "overloaded_messages": (
        "messages_overloaded",
        "messages that others left no room for: 451 4.3.2, or delivered unjudged in monitor mode",
    ),
    "lost_records": ("spool_lost", "messages whose record was given up for good"),
    "failures": ("failures", "messages that met a failure of our own (on_error applied)"),
    "log_lines_dropped": ("log_lines_dropped", "log lines that nobody read fast enough"),
    "organization_differs": (
        "organization_differs",
        "messages for which tree walk and public suffix list name different organizations",
    ),
    "psl_guarded": ("psl_guarded", "messages for which psl_guard took a record as psd=y"),
    "dns_queries": ("dns_queries", "DNS queries sent"),
    "dns_retries": ("dns_retries", "DNS queries sent again or to another server"),
    "dns_tcp": ("dns_tcp", "DNS queries over TCP"),
    "dns_failures": ("dns_failures", "DNS look-ups without a usable answer"),
    "dns_timeouts": ("dns_timeouts", "DNS look-ups that ran out of time"),
    "dns_waits": ("dns_waits", "DNS questions that waited for a place among those in flight"),
    "dns_shortages": (
        "dns_shortages",
        "DNS questions still unsent when their message's time ended",
    ),
    "dns_cache_hits": ("dns_cache_hits", "DNS look-ups answered from memory"),
    "dns_stale_answers": (
        "dns_stale_answers",
        "Answers used past their time because the DNS failed",
    ),
}
"""Metric -> (counter, what it counts)."""
LABELLED = {
    "messages": (
        "disposition",
        "messages evaluated, by what was done",
        {f"disposition_{word}": word.value for word in Disposition},
    ),
    "dmarc_results": (
        "result",
        "messages by dmarc= word",
        {f"dmarc_{word}": word.value for word in DmarcStatus},
    ),
    "spf_results": (
        "result",
        "messages by spf= word",
        {f"spf_{word}": word.value for word in SpfStatus},
    ),
    "dkim_results": (
        "result",
        "signatures by dkim= word; none: unsigned messages",
        {f"dkim_{word}": word.value for word in DkimStatus},
    ),
    "deferrals": (
        "reason",
        "messages answered 451",
        {f"deferred_{reason}": reason for reason in DEFERRALS},
    ),
    "worker_restarts": (
        "reason",
        "workers replaced outside a reload",
        {"workers_died": "died", "workers_killed": "hung"},
    ),
    "reloads": ("result", "SIGHUPs taken", {"reloads": "applied", "reloads_failed": "refused"}),
}
"""Metric -> (label, what it counts, counter -> label value)."""
LABELLED["messages"][2]["messages_tempfailed"] = "tempfail"
LABELLED["dkim_results"][2]["dkim_none"] = "none"


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """Spool and store as they were when last looked at; None: not looked at yet, or not to be
    had."""

    spool_messages: int | None = None
    spool_octets: int | None = None
    spool_oldest: int | None = None
    """When the message was answered that has waited there longest; None: none waits."""
    store_up: bool | None = None
    last_drained: int | None = None
    store_lost: int | None = None
    """Messages that the store had and has lost for good, as all hosts found."""
    reports: Mapping[str, int] = field(default_factory=dict)
    """State -> reports."""


@dataclass(frozen=True, slots=True)
class WorkerReading:
    """Everything that is shown: SharedMemory.totals(), open connections, enforce, and storage."""

    totals: Sequence[int]
    sessions: int
    enforce: bool
    storage: StorageStatus = StorageStatus()


class _Families(Collector):
    def __init__(self, reading: WorkerReading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        counts = dict(named(self._reading.totals))
        for name, (counter, text) in SINGLE.items():
            yield CounterMetricFamily(PREFIX + name, _sentence(text), value=counts[counter])
        for name, (label, text, values) in LABELLED.items():
            family = CounterMetricFamily(PREFIX + name, _sentence(text), labels=(label,))
            for counter, word in values.items():
                family.add_metric((word,), counts[counter])
            yield family
        yield _histogram(counts)
        yield from _gauges(counts, self._reading)
        yield from _storage(self._reading.storage)


def metrics_text(reading: WorkerReading) -> bytes:
    """The page, in Prometheus' text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(reading))
    return generate_latest(registry)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _histogram(counts: Mapping[str, int]) -> Metric:
    family = HistogramMetricFamily(
        PREFIX + "stage_seconds", "Seconds spent on a message, by stage.", labels=("stage",)
    )
    for stage in STAGES:
        ranges = list(accumulate(counts[f"{stage}_{number}"] for number in range(len(BOUNDS) + 1)))
        buckets = [
            (str(bound), float(number)) for bound, number in zip(BOUNDS, ranges, strict=False)
        ]
        family.add_metric(
            (stage,), [*buckets, ("+Inf", float(ranges[-1]))], counts[f"{stage}_microseconds"] / 1e6
        )
    return family


def _gauges(counts: Mapping[str, int], reading: WorkerReading) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        PREFIX + "workers", "Worker processes that serve.", value=counts["workers_ready"]
    )
    yield GaugeMetricFamily(
        PREFIX + "workers_wanted", "Worker processes that should.", value=counts["workers_wanted"]
    )
    yield GaugeMetricFamily(
        PREFIX + "sessions", "MTA connections open now.", value=reading.sessions
    )
    yield GaugeMetricFamily(
        PREFIX + "enforcing",
        "1 while policy is enforced, 0 in monitor mode.",
        value=int(reading.enforce),
    )
    yield GaugeMetricFamily(
        PREFIX + "dns_up", "0 while no name server can be used.", value=1 - counts["dns_down"]
    )
    info = GaugeMetricFamily(
        PREFIX + "build_info", "Always 1; the version is a label.", labels=("version",)
    )
    info.add_metric((__version__,), 1)
    yield info


def _storage(storage: StorageStatus) -> Iterator[Metric]:
    """What is not known is left out rather than shown as nothing."""
    numbers = {
        "spool_messages": (
            "Messages in the local spool that the store has not counted yet.",
            storage.spool_messages,
        ),
        "spool_octets": ("Octets of the local spool.", storage.spool_octets),
        "spool_oldest_timestamp_seconds": (
            "When the message was answered that waits in the local spool longest.",
            storage.spool_oldest,
        ),
        "store_up": (
            "1 while the store answers, has the right schema and can be written.",
            None if storage.store_up is None else int(storage.store_up),
        ),
        "last_drained_timestamp_seconds": (
            "When this host's spool was last drained into the store.",
            storage.last_drained,
        ),
        "store_lost_messages": (
            "Messages that the store had and has lost for good (a restored backup, a failover).",
            storage.store_lost,
        ),
    }
    for name, (text, value) in numbers.items():
        if value is not None:
            yield GaugeMetricFamily(PREFIX + name, text, value=value)
    if storage.store_up:
        reports = GaugeMetricFamily(
            PREFIX + "reports", "Reports in the store, by state.", labels=("state",)
        )
        for state, number in sorted(storage.reports.items()):
            reports.add_metric((state,), number)
        yield reports
