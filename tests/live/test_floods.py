"""Forged fields by the thousand through a real Postfix, whose time for taking one out grows with
the fields above it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from live.attached import AttachedPostfix, postfix_with_milter
from live.scenarios import AUTHSERV_ID, SENDER, letter, our_fields

pytestmark = pytest.mark.live

FORGED = f"Authentication-Results: {AUTHSERV_ID}; dmarc=pass header.from=reject.example\n"
MARK = "X-DMARC-Quarantine: no\n"


@pytest.fixture(scope="module")
def mx() -> Iterator[AttachedPostfix]:
    with postfix_with_milter() as attached:
        yield attached


def flooded(above: str) -> bytes:
    return letter("Alice <alice@sender.example>", above=above, subject="Flood")


@pytest.mark.parametrize("count", [10_000, 20_000])
@pytest.mark.parametrize("field", [FORGED, MARK], ids=["results", "marks"])
def test_thousands_are_refused_before_postfix_edits_anything(
    mx: AttachedPostfix, field: str, count: int
) -> None:
    """ARF-16: 10,000 removals cost Postfix 3.7 some five seconds, 20,000 end in a panic of its
    cleanup."""
    begin = time.monotonic()
    reply = mx.mta.send(flooded(field * count), "flood", client=SENDER)
    seconds = time.monotonic() - begin
    assert (reply.code, reply.text[:6]) == (550, "5.6.0 "), reply
    assert "removable_fields" in reply.text
    assert seconds < 6, f"{seconds:.1f} s"
    assert "panic" not in mx.mta.log()
    assert mx.mta.send(letter("Alice <alice@sender.example>"), "after", client=SENDER).code == 250


def test_as_many_as_the_limit_are_removed_in_good_time(mx: AttachedPostfix) -> None:
    """ARF-14, HDR-21: 200 among 9,000 others is the most work that Postfix is given."""
    begin = time.monotonic()
    reply = mx.mta.send(flooded("X-Other: a\n" * 9_000 + FORGED * 200), "many", client=SENDER)
    seconds = time.monotonic() - begin
    assert reply.code == 250, reply
    assert seconds < 6, f"{seconds:.1f} s"
    assert len(our_fields(mx.mta.delivered("many"))) == 1
    refused = mx.mta.send(flooded("X-Other: a\n" * 20_000 + FORGED * 150), "more", client=SENDER)
    assert (refused.code, refused.text[:6]) == (550, "5.6.0 "), refused
