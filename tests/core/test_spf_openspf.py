"""The openspf suite for RFC 7208, all 203 cases of it, through our own `check` and a scripted DNS.

The suite is fetched from pyspf's source distribution (tools/fetch_openspf.py); a machine that cannot fetch it fails here rather
than passing without it. Explanations (exp=) are not compared: they are never fetched and never printed.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmarc_milter.address import ReversePath
from dmarc_milter.domain import Domain, parse
from dmarc_milter.message import Envelope, plain_address
from dmarc_milter.spf import check
from fakes.dns_zone import Zone

TOOL = Path(__file__).parents[2] / "tools" / "fetch_openspf.py"
CASES = 203
"""In the suite of pyspf 2.0.14: openspf's release 2014.05 with ten later additions."""

EXCEPTIONS: dict[str, str] = {}
"""Case: the result that we give instead, with the sentence of RFC 7208 that says so. None is needed."""


@cache
def suite() -> tuple[tuple[str, dict[str, Any], dict[str, Any]], ...]:
    """(name, case, zone data) of every case."""
    spec = importlib.util.spec_from_file_location("fetch_openspf", TOOL)
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    scenarios = yaml.safe_load_all(tool.fetch().read_bytes())
    return tuple((name, case, scenario["zonedata"]) for scenario in scenarios for name, case in scenario["tests"].items())


def zone(data: dict[str, list[Any]]) -> Zone:
    """The suite's zone data: SPF stands for TXT unless a TXT is given, TIMEOUT fails every type that is not there."""
    found = Zone()
    for name, entries in data.items():
        pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
        has_txt = any(rdtype == "TXT" for rdtype, _ in pairs)
        for rdtype, value in pairs:
            if rdtype == "SPF" and has_txt:
                continue
            add(found, name, "TXT" if rdtype == "SPF" else rdtype, value)
        if "TIMEOUT" in entries:
            there = {"TXT" if rdtype == "SPF" and not has_txt else rdtype for rdtype, value in pairs if value != "NONE"}
            for rdtype in {"TXT", "A", "AAAA", "MX", "PTR"} - there:
                found.fail(name, rdtype)
        if not pairs:
            found.add(name, "TXT")
    return found


def add(found: Zone, name: str, rdtype: str, value: Any) -> None:
    if value == "TIMEOUT":
        found.fail(name, rdtype)
    elif value in ("NONE", []):
        found.add(name, rdtype)
    elif rdtype == "TXT":
        found.add(name, "TXT", value)
    elif rdtype == "MX":
        found.add(name, "MX", tuple(value))
    else:
        found.add(name, rdtype, value)


def envelope(case: dict[str, Any]) -> Envelope:
    """A sender without local part or with a bad domain is made directly, past what the SMTP grammar would refuse."""
    local_part, _, domain = (case["mailfrom"] or "").rpartition("@")
    found = parse(domain)
    sender = ReversePath(local_part, found) if isinstance(found, Domain) else ReversePath("", None, found.reason if domain else "")
    return Envelope(plain_address(ip_address(case["host"])), case["helo"], sender)


@pytest.mark.parametrize("number", range(CASES))
def test_openspf(number: int) -> None:
    """One case of the suite; where several results are allowed, any of them."""
    name, case, data = suite()[number]
    expected = case["result"]
    allowed = [EXCEPTIONS[name]] if name in EXCEPTIONS else [expected] if isinstance(expected, str) else expected
    result = check(envelope(case), zone(data))
    assert result.status in allowed, f"{name}: {result}"


def test_the_suite_is_whole() -> None:
    """A suite with fewer or more cases is another suite: count the exceptions again."""
    assert len(suite()) == CASES
    assert set(EXCEPTIONS) <= {name for name, _, _ in suite()}
