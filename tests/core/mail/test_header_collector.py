"""Which header fields are kept (docs/design.md, What a message gets)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.mail.header_collector import COUNTED, SIGNATURE, Collector

LIMIT = 12
NAMES = st.lists(
    st.sampled_from([b"Subject", b"DKIM-Signature", b"dkim-SIGNATURE", b"X-Fourteen-Let"]),
    max_size=30,
)


def kept(names: list[bytes], *, max_bytes: int = 10**6) -> Collector:
    collector = Collector(max_bytes, LIMIT, {})
    for name in names:
        collector.add(name, b" x")
    return collector


@given(NAMES)
def test_signatures_beyond_the_tenth_have_a_limit_of_their_own(names: list[bytes]) -> None:
    """A heap of signatures cannot make the good one unread."""
    fields = signatures = 0
    expected = True
    for name in names:
        signatures += name.lower() == SIGNATURE
        surplus = name.lower() == SIGNATURE and signatures > COUNTED
        fields += not surplus
        expected = expected and (signatures if surplus else fields) <= LIMIT
    collector = kept(names)
    assert collector.truncated is not expected
    if expected:
        assert [field.name for field in collector.headers()] == names


@pytest.mark.parametrize("limit", [0, 9, 10, 19, 20])
def test_octets_are_counted_with_colon_and_line_end(limit: int) -> None:
    """ "A: x" with CRLF is six octets, of which the space is the value's."""
    collector = Collector(limit, LIMIT, {})
    for _ in range(3):
        collector.add(b"Abcdefgh \t", b"")  # 11 octets of RFC 5322 4.5's spelling are not kept
    assert len(collector.headers()) == min(3, limit // 11)
    assert collector.truncated is (limit < 33)


def test_folds_are_crlf_whatever_the_mta_writes() -> None:
    """Signatures are over CRLF (RFC 6376 3.4); MTAs join folded lines by LF."""
    collector = Collector(1000, LIMIT, {})
    collector.add(b"A", b" x\n\ty\r\n z")
    (field,) = collector.headers()
    assert field.value == b" x\r\n\ty\r\n z"
