"""The tool that counts cases per RFC section and attack category."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "conformance.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conformance_tool", TOOL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tool = load()


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("RFC 7208 2.4, 4.6.4 and 5.5; more", ["RFC 7208 2.4", "RFC 7208 4.6.4", "RFC 7208 5.5"]),
        ("RFC 9989 5.3.1: never, RFC 8617 5.2, step 5.", ["RFC 9989 5.3.1", "RFC 8617 5.2"]),
        ("RFC 6376 3.5 says 10 things, RFC 8601.", ["RFC 6376 3.5"]),
        ("RFC 6376 6.1.2 (4), RFC 8017 A.1", ["RFC 6376 6.1.2", "RFC 8017 A.1"]),
        ("nothing", []),
    ],
)
def test_sections_are_read_from_text(text: str, sections: list[str]) -> None:
    """One RFC with several sections, several RFCs, none."""
    assert list(tool.sections(text)) == sections


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("test_x[FRM-03 value]", ["FRM-03"]),
        ("DMR-01..03", ["DMR-01", "DMR-02", "DMR-03"]),
        ("ESP-09, -11, -12: none", ["ESP-09", "ESP-11", "ESP-12"]),
        ("ESP-04b and SPF-11", ["ESP-04", "SPF-11"]),
        ("XSPF-1", []),
    ],
)
def test_rows_are_read_from_text(text: str, rows: list[str]) -> None:
    """Single rows, ranges, lists."""
    assert list(tool.rows(text)) == rows


def test_what_keeps_a_run_from_success() -> None:
    """A failure, an incomplete suite, too few own cases."""
    tally = tool.Tally()
    for number in range(203):
        tally.count(f"x.py::test_openspf[{number}]", "", "", passed=True)
    for number in range(400):
        tally.count(f"test_own[{number}]", "RFC 9989 4.7: x", "", passed=True)
    tally.count("test_attack[FRM-01 a]", "RFC 5322 3.6", "", passed=True)
    assert tally.shortcomings() == []
    assert (tally.categories["FRM"].cases, tally.sections["RFC 9989 4.7"].passed) == (1, 400)
    assert any("FRM" in each for each in tool.table(tally))
    tally.count("x.py::test_openspf[0]", "", "", passed=False)
    assert len(tally.shortcomings()) == 1
    tally.failures.append("x")
    assert "failed: x" in tally.shortcomings()
