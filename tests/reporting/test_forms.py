"""In which form a destination's reports go (RFC 9990 3, RFC 7489 Appendix C)."""

from __future__ import annotations

import re

import pytest

from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.report import failing_readers
from dmarc_milter.core.report.aggregate import Format
from dmarc_milter.core.report.failing_readers import (
    DATED,
    FAILING_READERS,
    FailingReader,
    reader_at,
)
from dmarc_milter.reporting import destinations
from dmarc_milter.reporting.destinations import form_for
from fakes.report_job import reporting


@pytest.fixture(autouse=True)
def a_known_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public destination that reads with a program that fails."""
    readers = (FailingReader("Old Reader", "1.0", "drops it", ("old-reader.example",)),)
    monkeypatch.setattr(
        destinations, "reader_at", lambda host: failing_readers.reader_at(host, readers)
    )


@pytest.mark.parametrize(
    ("settings", "address", "form"),
    [
        ({}, "a@legit.example", "rfc9990"),
        ({}, "a@old-reader.example", "rfc7489"),
        ({}, "a@eu.Old-Reader.example", "rfc7489"),
        ({}, "a@not-old-reader.example", "rfc9990"),
        ({"format": "rfc9990"}, "a@old-reader.example", "rfc9990"),
        ({"format": "rfc7489"}, "a@legit.example", "rfc7489"),
        ({"rfc7489_destinations": ["legit.example"]}, "a@in.legit.example", "rfc7489"),
        ({"rfc9990_destinations": ["old-reader.example"]}, "a@old-reader.example", "rfc9990"),
        (
            {"format": "rfc7489", "rfc9990_destinations": ["legit.example"]},
            "a@legit.example",
            "rfc9990",
        ),
        (
            {
                "rfc7489_destinations": ["legit.example"],
                "rfc9990_destinations": ["new.legit.example"],
            },
            "a@x.new.legit.example",
            "rfc9990",
        ),
        (
            {
                "rfc7489_destinations": ["x.legit.example"],
                "rfc9990_destinations": ["legit.example"],
            },
            "a@x.legit.example",
            "rfc7489",
        ),
    ],
)
def test_the_form_is_the_destinations(
    settings: dict[str, object], address: str, form: Format
) -> None:
    """`auto` is RFC 9990's form but for readers known to fail on it; the administrator's word for a
    destination counts more, the longest domain most."""
    assert form_for(address, reporting(**settings)).form == form


def test_why_a_form_is_not_the_usual_one_is_said() -> None:
    """An administrator who looks at a report's destination reads the reason there."""
    assert "Old Reader" in form_for("a@old-reader.example", reporting()).reason
    assert DATED in form_for("a@old-reader.example", reporting()).reason
    settings = reporting(rfc7489_destinations=["legit.example"])
    assert form_for("a@legit.example", settings).reason == "rfc7489_destinations"
    assert not form_for("a@legit.example", reporting()).reason


def test_the_shipped_list_is_dated_and_well_formed() -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", DATED)
    for reader in FAILING_READERS:
        assert reader.name
        assert reader.failure
        for destination in reader.destinations:
            assert reader_at(Domain(destination)) == reader.name
