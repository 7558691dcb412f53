"""The openspf suite for RFC 7208 as cases: fetched from pyspf's source distribution, its zone data
scripted."""

from __future__ import annotations

import importlib.util
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from dmarc_milter.core.mail.ip_address import plain_address
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.mail.path import reverse_path
from fakes.dns_zone import Zone

TOOL = Path(__file__).parents[2] / "tools" / "fetch_openspf.py"
CASES = 203
"""In the suite of pyspf 2.0.14: openspf's release 2014.05 with ten later additions."""


@cache
def suite() -> tuple[tuple[str, dict[str, Any], dict[str, Any]], ...]:
    """(name, case, zone data) of every case."""
    spec = importlib.util.spec_from_file_location("fetch_openspf", TOOL)
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    scenarios = yaml.safe_load_all(tool.fetch().read_bytes())
    return tuple(
        (name, case, scenario["zonedata"])
        for scenario in scenarios
        for name, case in scenario["tests"].items()
    )


def zone(data: dict[str, list[Any]]) -> Zone:
    """The suite's zone data: SPF stands for TXT unless a TXT is given, TIMEOUT fails every type
    that is not there."""
    found = Zone()
    for name, entries in data.items():
        pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
        has_txt = any(rdtype == "TXT" for rdtype, _ in pairs)
        for rdtype, value in pairs:
            if rdtype == "SPF" and has_txt:
                continue
            add(found, name, "TXT" if rdtype == "SPF" else rdtype, value)
        if "TIMEOUT" in entries:
            there = {
                "TXT" if rdtype == "SPF" and not has_txt else rdtype
                for rdtype, value in pairs
                if value != "NONE"
            }
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
    """The sender as the argument of MAIL FROM, so that it goes the way of every sender."""
    sender = reverse_path(f"<{case['mailfrom'] or ''}>".encode("utf-8", "surrogateescape"))
    return Envelope(plain_address(ip_address(case["host"])), case["helo"], sender)


def allowed(case: dict[str, Any]) -> list[str]:
    """The results that the suite takes."""
    expected = case["result"]
    return [expected] if isinstance(expected, str) else list(expected)
