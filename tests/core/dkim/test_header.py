"""The canonical form of a header field (RFC 6376 3.4.1, 3.4.2)."""

from __future__ import annotations

import hashlib

import dkim
import pytest
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.dkim.header import SignedHeaders, canonicalize
from dmarc_milter.core.mail.message import HeaderField, Headers

PIECES = st.sampled_from(
    [
        b" ",
        b"  ",
        b"\t",
        b"\r\n ",
        b"\n\t",
        b"\r",
        b"\n",
        b"\x0b",
        b"\x00",
        b"a",
        b"B",
        b"\xe9",
        b":",
    ]
)
VALUES = st.lists(PIECES, max_size=12).map(b"".join)


@given(st.sampled_from([b"Subject", b"FROM", b"x-y \t"]), VALUES)
def test_a_field_of_one_line_has_the_canonical_form_that_dkimpy_gives(
    name: bytes, value: bytes
) -> None:
    """RFC 6376 3.4.2: the short way for the common field is no other form."""
    (expected,) = Relaxed.canonicalize_headers([(name, value + b"\r\n")])
    assert canonicalize(HeaderField(name, value), "relaxed") == expected


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        (b" C ", b"C\r\n"),
        (b" D  E\tF ", b"D E F\r\n"),
        (b" g\r\n\tE", b"g E\r\n"),
        (b"", b"\r\n"),
    ],
)
def test_relaxed_is_as_the_rfc_shows_it(value: bytes, canonical: bytes) -> None:
    """RFC 6376 3.4.5."""
    assert canonicalize(HeaderField(b"SubJect ", value), "relaxed") == (b"subject", canonical)


def test_simple_changes_nothing() -> None:
    """RFC 6376 3.4.1."""
    assert canonicalize(HeaderField(b"A", b" x \t y "), "simple") == (b"A", b" x \t y \r\n")


def test_the_fields_that_h_leaves_unsigned() -> None:
    """RFC 6376 8.15: one more field than h= names is an unsigned one."""
    headers = Headers([HeaderField(name, b" x") for name in (b"To", b"Subject", b"subject")])
    wanted = (b"from", b"to", b"subject")
    signed = SignedHeaders(headers)
    assert signed.unsigned((b"subject", b"to"), wanted) == (b"subject",)
    assert signed.unsigned((b"subject", b"to", b"subject"), wanted) == ()
    assert signed.unsigned((), wanted) == (b"to", b"subject")


NAMES = st.lists(st.sampled_from([b"from", b"to", b"subject", b"dkim-signature"]), max_size=8)


@given(NAMES, st.lists(st.sampled_from([b"From", b"TO", b"to", b"DKIM-Signature"]), max_size=8))
def test_the_fields_that_h_selects_are_those_that_dkimpy_selects(
    names: list[bytes], fields: list[bytes]
) -> None:
    """RFC 6376 5.4.2: of fields with one name the lowest first, each once, the signature itself
    never."""
    fields = [*fields, b"DKIM-Signature"]
    headers = Headers(HeaderField(name, b" %d" % number) for number, name in enumerate(fields))
    own = len(fields) - 1
    others = [canonicalize(field, "relaxed") for field in headers.fields[:own]]
    selected = b"".join(map(b":".join, dkim.select_headers(others, names)))
    assert (
        SignedHeaders(headers).digest(names, "relaxed", own, b" b=")
        == hashlib.sha256(selected + b"dkim-signature:b=").digest()
    )
