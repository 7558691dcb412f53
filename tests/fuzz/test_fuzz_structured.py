"""The targets' promises for inputs that are almost right, which octets at random rarely are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from fakes.sealer import seal
from fakes.soak import LONG
from fuzz import strategies, targets
from fuzz.through_session import LEGIT, session

pytestmark = pytest.mark.soak
EXAMPLES = 20_000 if LONG else 150
many = settings(max_examples=EXAMPLES, deadline=None)


@many
@given(strategies.FROM_VALUES)
def test_from_values(value: bytes) -> None:
    targets.from_field(value)


@many
@given(strategies.PATHS)
def test_paths(value: bytes) -> None:
    targets.path(value)


@many
@given(strategies.DKIM_FIELDS)
def test_dkim_fields_and_keys(value: bytes) -> None:
    targets.dkim_field(value)
    targets.dkim_key(value)


@many
@given(strategies.DMARC_RECORDS)
def test_dmarc_records_and_their_addresses(value: bytes) -> None:
    targets.dmarc_record(value)


@many
@given(strategies.RESULTS)
def test_results(value: bytes) -> None:
    targets.results_field(value)


@many
@given(strategies.ARC_SETS)
def test_arc_sets_above_a_right_one(fields: list[tuple[bytes, bytes]]) -> None:
    above = b"".join(name + b":" + value + b"\r\n" for name, value in fields)
    targets.arc_sets(above + seal(b"From: <a@legit.example>\r\n\r\nHello.\r\n", LEGIT))


@many
@given(strategies.SESSIONS)
def test_sessions(octets: bytes) -> None:
    session(octets)
