"""The streamed body: RFC 6376 3.4.3, 3.4.4, 3.7, whatever the chunking."""

import hashlib
import itertools
import re
import time
import tracemalloc

import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.dkim import BodyHasher
from dmarc_milter.core.mail.message import BodyHash
from fakes.received import digests
from fakes.signer import canonical_body

SIMPLE, RELAXED = BodyHash("simple", "sha256", None), BodyHash("relaxed", "sha256", None)
BODIES = [
    b"",
    b"\r\n",
    b"\r\n\r\n\r\n",
    b" \r\n\t\r\n  \t\r\n",
    b"x",
    b"x ",
    b"x \t",
    b"x\r",
    b"x \r",
    b"x\n",
    b"\r",
    b"\n",
    b" ",
    b"\r\n\r",
    b"\n\r\n",
    b"\r\r\n\r\n",
    b"\n\n\r\n\r\n",
    b"x\r\n\r\n \r\n\r\ny\r\n",
    b"a  b\t\tc \t d\r\n",
    b"  lead\r\n trail \t \r\n",
    b"a \rb \r\r\n \r \r\n",
    b"a\r\n\r\n\r\n\r\nb\r\n\r\n",
    b" \r \r \r \r",
    b"\x00\xff \x80\r\n.\r\n..\r\n",
    b"a" * 70 + b" " * 70 + b"\r\n" * 35,
]
TEXT = st.text(alphabet="ab \t\r\n", max_size=40).map(str.encode)
LINES = st.lists(
    st.sampled_from([b"\r\n", b" ", b"\t", b"word", b"\r", b"\n", b" \r\n", b"\x00"]), max_size=30
).map(b"".join)


def expected(body: bytes, mode: str) -> bytes:
    return canonical_body(body, mode)


@pytest.mark.parametrize("body", BODIES, ids=repr)
@pytest.mark.parametrize("chunk", [0, 1, 2, 3, 5, 64])
def test_chunks_do_not_change_the_hash(body: bytes, chunk: int) -> None:
    """DKM-21: empty bodies, only line ends, only white space, no final CRLF, lone CR and LF."""
    found = digests(body, [SIMPLE, RELAXED], chunk)
    for request in (SIMPLE, RELAXED):
        whole = expected(body, request.canonicalization)
        assert found[request] == (
            hashlib.sha256(whole).digest(),
            len(whole),
        ), request.canonicalization


@pytest.mark.parametrize("offset", range(1, 65))
def test_a_body_may_be_cut_anywhere(offset: int) -> None:
    """DKM-21: one cut at every offset of a body that has everything."""
    body = b" a\t b \r\n\r\n \t\r\nc\r\rd\n \r\n\r\n\r\n e  \t  f \r\n\r\n" * 2
    hasher = BodyHasher([SIMPLE, RELAXED])
    hasher.update(body[:offset])
    hasher.update(body[offset:])
    found = hasher.finish()
    for request in (SIMPLE, RELAXED):
        assert (
            found[request].digest
            == hashlib.sha256(expected(body, request.canonicalization)).digest()
        )


@given(body=TEXT | LINES, cuts=st.lists(st.integers(0, 60), max_size=6))
def test_any_body_any_chunks(body: bytes, cuts: list[int]) -> None:
    """The stream agrees with the line-by-line reading of the RFC."""
    hasher = BodyHasher([SIMPLE, RELAXED])
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(bounds):
        hasher.update(body[start:end])
    found = hasher.finish()
    for request in (SIMPLE, RELAXED):
        whole = expected(body, request.canonicalization)
        assert found[request] == (hashlib.sha256(whole).digest(), len(whole))


@given(body=TEXT | LINES)
def test_dkimpy_canonicalizes_alike(body: bytes) -> None:
    """But for white space at the very end of a body without CRLF, which dkimpy keeps (RFC 6376
    3.4.4 (a) does not)."""
    found = digests(body, [SIMPLE, RELAXED])
    assert found[SIMPLE].digest == hashlib.sha256(Simple.canonicalize_body(body)).digest()
    body = re.sub(rb"[ \t]+\Z", b"", body)
    found = digests(body, [RELAXED])
    assert found[RELAXED].digest == hashlib.sha256(Relaxed.canonicalize_body(body)).digest()


@pytest.mark.parametrize("chunk", [0, 1, 7])
def test_prefixes_are_hashed_in_the_same_pass(chunk: int) -> None:
    """RFC 6376 3.5, l=: the first octets of the canonicalized body; the size tells what is left, or
    that l= is too long."""
    body = b"one  two \r\nthree\r\n\r\n\r\n"
    whole = expected(body, "relaxed")
    requests = [
        BodyHash("relaxed", "sha256", length)
        for length in (None, 0, 1, 7, len(whole) - 1, len(whole), len(whole) + 1, 10**76)
    ]
    found = digests(body, [*requests, SIMPLE], chunk)
    for request in requests:
        assert found[request] == (hashlib.sha256(whole[: request.length]).digest(), len(whole))
    assert found[SIMPLE].size == len(expected(body, "simple"))


def test_nothing_asked_for_nothing_done() -> None:
    """A message without signatures costs nothing."""
    assert digests(b"text\r\n", []) == {}


UNITS = [
    b" ",
    b"\t",
    b"\r\n",
    b" \r",
    b"a  ",
    b"a\t",
    b"\r",
    b"\n",
    b" \r\n",
    b"text ",
    b"\r\r\n",
    b"\x00",
]


@pytest.mark.parametrize("unit", UNITS, ids=repr)
@pytest.mark.parametrize("chunk", [4096, 65_535, 1 << 24])
def test_no_body_is_slow(unit: bytes, chunk: int) -> None:
    """DOS-03 and SECURITY.md, Defects of the libraries, at 4 MB: one second for ten megabytes is
    the bound, both ways at once."""
    body = unit * ((1 << 22) // len(unit)) + b"x"
    requests = [SIMPLE, RELAXED, *(BodyHash("relaxed", "sha256", length) for length in range(8))]
    begun = time.process_time()
    digests(body, requests, chunk)
    assert time.process_time() - begun < 0.8


@pytest.mark.parametrize("unit", [b"\r\n", b" ", b" \r", b"word \r\n"], ids=repr)
def test_memory_is_one_chunk(unit: bytes) -> None:
    """The body is never kept, nor are its blank lines or its runs of spaces."""
    chunk = unit * (65_536 // len(unit))
    hasher = BodyHasher([SIMPLE, RELAXED])
    tracemalloc.start()
    for _ in range(200):
        hasher.update(chunk)
    hasher.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
