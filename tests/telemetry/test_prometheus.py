"""The metrics page: counts that add up, histograms that are cumulative, and names that board,
alerts and reference agree on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.telemetry.counters import Meter
from dmarc_milter.telemetry.prometheus import StorageStatus, WorkerReading, metrics_text
from fakes.evaluations import evaluation

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"\bdmarc_milter_[a-z0-9_]+")
FULL = StorageStatus(
    spool_messages=3,
    spool_octets=4096,
    spool_oldest=1_700_000_100,
    store_up=True,
    last_drained=1_700_000_000,
    store_lost=0,
    reports={"open": 2},
)


def samples(page: bytes) -> dict[tuple[str, ...], float]:
    """(name, label value, ...) -> value; the values in the order of their labels' names."""
    found = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found[(sample.name, *(value for _, value in sorted(sample.labels.items())))] = (
                sample.value
            )
    return found


def read(
    shared_memory: SharedMemory, storage: StorageStatus = FULL
) -> dict[tuple[str, ...], float]:
    return samples(
        metrics_text(WorkerReading(shared_memory.totals(), shared_memory.sessions(), True, storage))
    )


def exposed() -> set[str]:
    return {key[0] for key in read(SharedMemory(1))}


def test_counts_of_several_workers_are_added() -> None:
    shared_memory = SharedMemory(2)
    for number, times in ((0, 3), (1, 4)):
        meter = Meter(shared_memory.slot(number))
        for _ in range(times):
            meter.message(
                evaluation(),
                0.2,
                recorded=True,
                stages={"wait": 0.0, "evaluate": 0.03, "record": 0.002},
            )
    found = read(shared_memory)
    assert found[("dmarc_milter_messages_total", "reject")] == 7
    assert found[("dmarc_milter_dmarc_results_total", "fail")] == 7
    assert found[("dmarc_milter_stage_seconds_count", "message")] == 7
    assert found[("dmarc_milter_stage_seconds_sum", "message")] == pytest.approx(1.4)


def test_histograms_are_cumulative_up_to_infinity() -> None:
    shared_memory = SharedMemory(1)
    meter = Meter(shared_memory.slot(0))
    for seconds in (0.0005, 0.005, 0.2, 70.0):
        meter.message(evaluation(), seconds, recorded=True)
    found = {
        key[1]: value
        for key, value in read(shared_memory).items()
        if key[0] == "dmarc_milter_stage_seconds_bucket" and key[2] == "message"
    }
    assert [found[bound] for bound in ("0.001", "0.005", "0.1", "0.25", "60.0", "+Inf")] == [
        1,
        2,
        2,
        3,
        3,
        4,
    ]
    values = [value for _, value in sorted(found.items(), key=lambda item: float(item[0]))]
    assert values == sorted(values)


def test_what_is_not_known_is_left_out() -> None:
    """No number is better than a wrong one: alerts on absence still work."""
    names = {key[0] for key in read(SharedMemory(1), StorageStatus())}
    assert not names & {
        "dmarc_milter_spool_messages",
        "dmarc_milter_store_up",
        "dmarc_milter_reports",
    }


def test_label_values_are_words_of_ours() -> None:
    """OPS-01: nothing that a sender wrote becomes a label."""
    shared_memory = SharedMemory(1)
    Meter(shared_memory.slot(0)).message(evaluation("attacker-chosen.example"), 0.1, recorded=True)
    page = metrics_text(WorkerReading(shared_memory.totals(), 0, True, FULL))
    assert b"attacker" not in page
    labels = {
        label
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        for label in sample.labels
    }
    assert labels == {"disposition", "result", "stage", "reason", "state", "le", "version"}


def test_the_board_asks_for_names_that_exist() -> None:
    dashboard = json.loads((ROOT / "conf" / "grafana-dashboard.json").read_text())
    expressions = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    assert len(expressions) >= 8
    asked = {name for each in expressions for name in NAME.findall(each)}
    assert asked
    assert asked <= exposed()


def test_the_alerts_ask_for_names_that_exist() -> None:
    rules = [
        rule
        for group in yaml.safe_load((ROOT / "conf" / "prometheus-alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    assert len(rules) >= 6
    for rule in rules:
        asked = set(NAME.findall(rule["expr"]))
        assert asked, rule["alert"]
        assert asked <= exposed(), rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_reference_names_every_metric_and_no_other() -> None:
    families = {
        family.name
        for family in text_string_to_metric_families(
            metrics_text(WorkerReading(SharedMemory(1).totals(), 0, True, FULL)).decode()
        )
    }
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    rows = {line.split("`")[1] for line in text.split("\n") if line.startswith("| `dmarc_milter_")}
    kinds = {f"{name}_total" if f"{name}_total" in exposed() else name for name in families}
    assert rows == kinds
