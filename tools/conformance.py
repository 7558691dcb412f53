#!/usr/bin/env python3
"""Runs the suites and counts, per RFC section and per attack category, cases and passes.

    tools/conformance.py [--json] [PYTEST ARGUMENTS]        default: tests/core and the daemon's
    suites

A case counts for every RFC section and every row of the attack catalogue that its id or its
docstring names. Exits 1 when a case fails, when the openspf suite is not whole, or when there are
fewer own cases than promised.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUITES = (
    "tests/core",
    "tests/attacks",
    "tests/session/test_session.py",
    "tests/session/test_milter_protocol.py",
)
SUITES += (
    "tests/dns/test_resolver.py",
    "tests/dns/test_wire.py",
    "tests/dns/test_spf_over_dns.py",
    "tests/dns/test_suffix_list.py",
)
OPENSPF = 203
OWN = 400
CATEGORIES = {
    "ESP": "composition of SPF, DKIM and From",
    "WL": "weak links in the chain",
    "FWD": "open forwarding, false exemptions",
    "BSP": "permissive SPF records",
    "SMU": "smuggling",
    "LTAG": "unsigned rest of a body",
    "RPL": "replay",
    "FRM": "From field corpus",
    "MTA": "what the MTA does after us",
    "HDR": "header block, message structure",
    "SPF": "SPF records",
    "DKM": "DKIM signatures and keys",
    "ARC": "ARC chains",
    "ARF": "forged Authentication-Results",
    "ARI": "injection into Authentication-Results and replies",
    "DMR": "DMARC records, walks, alignment",
    "DNS": "hostile DNS, budgets",
    "DOS": "denial of service",
    "FLT": "faults",
    "RPT": "reports",
    "STO": "storage",
    "LOG": "log",
    "OPS": "operation",
}
ROW = re.compile(rf"\b({'|'.join(CATEGORIES)})-(\d\d)[a-z]?(?:\.\.(\d\d)|\b)")
FURTHER = re.compile(r", ?-(\d\d)\b")
# "RFC 7208 2.4, 4.6.4 and 5.5": the RFC, then sections until something else comes.
RFC = re.compile(
    r"\bRFC (\d{4}),? (?:section )?((?:\d{1,2}(?:\.\d{1,2})*|[A-Z]\.\d{1,2})(?:(?:, (?:and )?| and"
    r" | to )\d{1,2}(?:\.\d{1,2})+)*)"
)
SECTION = re.compile(r"\d{1,2}(?:\.\d{1,2})*|[A-Z]\.\d+")


@dataclass
class Count:
    """Cases of one row of the table."""

    cases: int = 0
    passed: int = 0
    rows: set[str] = field(default_factory=set)

    def add(self, passed: bool, row: str = "") -> None:
        self.cases += 1
        self.passed += passed
        if row:
            self.rows.add(row)


def sections(text: str) -> Iterator[str]:
    """The RFC sections that a text names, such as "RFC 7208 4.6.4"."""
    for found in RFC.finditer(text):
        for section in SECTION.findall(found[2]):
            yield f"RFC {found[1]} {section}"


def rows(text: str) -> Iterator[str]:
    """The rows of the attack catalogue that a text names: ESP-08, DMR-01..13, "ESP-09, -11,
    -12"."""
    for found in ROW.finditer(text):
        category, first, last = found[1], int(found[2]), int(found[3] or found[2])
        yield from (f"{category}-{number:02d}" for number in range(first, last + 1))
        at = found.end()
        while more := FURTHER.match(text, at):
            yield f"{category}-{more[1]}"
            at = more.end()


@dataclass(eq=False)
class Tally:
    """All counts, and pytest's plugin that fills them."""

    sections: dict[str, Count] = field(default_factory=dict)
    categories: dict[str, Count] = field(default_factory=dict)
    openspf: Count = field(default_factory=Count)
    own: Count = field(default_factory=Count)
    failures: list[str] = field(default_factory=list)
    _texts: dict[str, tuple[str, str]] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            function = getattr(item, "function", None)
            module = getattr(item, "module", None)
            self._texts[item.nodeid] = (
                str(getattr(function, "__doc__", "") or ""),
                str(getattr(module, "__doc__", "") or ""),
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failures.append(f"{report.nodeid} ({report.when})")
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self.count(
                report.nodeid, *self._texts.get(report.nodeid, ("", "")), passed=report.passed
            )

    def count(self, nodeid: str, docstring: str, module: str, *, passed: bool) -> None:
        """One case under everything that it is about: its own id says most, then its docstring,
        then its module's."""
        if "::test_openspf[" in nodeid:
            self.openspf.add(passed)
            self.sections.setdefault("RFC 7208 (openspf)", Count()).add(passed)
            return
        parameters = nodeid.partition("[")[2]
        named = set(rows(parameters)) or set(rows(docstring))
        for row in named:
            self.categories.setdefault(row.partition("-")[0], Count()).add(passed, row)
        for section in set(sections(parameters)) | set(sections(docstring)) or set(
            sections(module)
        ):
            self.sections.setdefault(section, Count()).add(passed)
        if not named:
            self.own.add(passed)

    @property
    def attacks(self) -> Count:
        return Count(
            sum(each.cases for each in self.categories.values()),
            sum(each.passed for each in self.categories.values()),
        )

    def shortcomings(self) -> list[str]:
        """What keeps the run from being a success."""
        found = [f"failed: {each}" for each in self.failures]
        if (self.openspf.cases, self.openspf.passed) != (OPENSPF, OPENSPF):
            found.append(f"openspf: {self.openspf.passed} of {OPENSPF}")
        if self.own.passed < OWN:
            found.append(f"own cases: {self.own.passed}, promised {OWN}")
        return found


def natural(section: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdigit() else 999, part) for part in re.split(r"[ .]", section)]


def table(tally: Tally) -> Iterator[str]:
    """The lines of the table."""
    yield f"{'RFC section':40} {'cases':>7} {'passed':>7}"
    for name in sorted(tally.sections, key=natural):
        yield line(name, tally.sections[name])
    yield ""
    yield f"{'attack category':56} {'rows':>5} {'cases':>7} {'passed':>7}"
    for name, what in CATEGORIES.items():
        if count := tally.categories.get(name):
            yield f"{name + '  ' + what:56} {len(count.rows):5} {count.cases:7} {count.passed:7}"
    yield ""
    yield line("openspf", tally.openspf, f" of {OPENSPF}")
    yield line("attack cases", tally.attacks)
    yield line("own cases besides", tally.own)


def line(name: str, count: Count, more: str = "") -> str:
    return f"{name:40} {count.cases:7} {count.passed:7}{more}"


def as_json(tally: Tally) -> str:
    def plain(counts: Iterable[tuple[str, Count]]) -> dict[str, dict[str, int]]:
        return {name: {"cases": count.cases, "passed": count.passed} for name, count in counts}

    totals = plain([("openspf", tally.openspf), ("attacks", tally.attacks), ("own", tally.own)])
    return json.dumps(
        {
            "sections": plain(tally.sections.items()),
            "categories": plain(tally.categories.items()),
            **totals,
        },
        indent=1,
    )


def main(arguments: list[str]) -> int:
    tally = Tally()
    wanted = [each for each in arguments if each != "--json"] or [
        each for each in SUITES if (ROOT / each).exists()
    ]
    pytest.main(
        [
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            f"--rootdir={ROOT}",
            "-c",
            str(ROOT / "pyproject.toml"),
            *wanted,
        ],
        plugins=[tally],
    )
    print(as_json(tally) if "--json" in arguments else "\n".join(table(tally)))
    for each in tally.shortcomings():
        print(each, file=sys.stderr)
    return 1 if tally.shortcomings() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
