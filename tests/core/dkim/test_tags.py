"""Tag lists: RFC 6376 3.2, strict and linear."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.dkim import tags
from dmarc_milter.core.dkim.tags import TagList
from dmarc_milter.core.mail.domain import Malformed

GOOD = {
    b"a=b": {b"a": b"b"},
    b" a = b ; c=d; ": {b"a": b"b", b"c": b"d"},
    b"a=;b=x=y;": {b"a": b"", b"b": b"x=y"},
    b"\r\n\ta\r\n =\r\n b\r\n c;\r\n d=e": {b"a": b"b\r\n c", b"d": b"e"},
    b"A=1;a=2;a_1=3": {b"A": b"1", b"a": b"2", b"a_1": b"3"},
    "d=exämple.example".encode(): {b"d": "exämple.example".encode()},
}
BAD = {
    b"": "syntax error",
    b" ": "syntax error",
    b";": "syntax error",
    b"a=b;;c=d": "syntax error",
    b"a=b; ;": "syntax error",
    b"a": "syntax error",
    b"a=b; c": "syntax error",
    b"=b": "syntax error",
    b"a b=c": "syntax error",
    b"a-b=c": "syntax error",
    b"1a=c": "syntax error",
    b"_a=c": "syntax error",
    b"a=b; a=c": "duplicate tag",
    b"a=b\x00": "syntax error",
    b"a=b\x7f": "syntax error",
    b"a=b\x0bc": "syntax error",
    b"a=b\r\nc": "syntax error",
    b"a=b\n c": "syntax error",
    b"a=b\r c": "syntax error",
    b"a=b\r\n": "syntax error",
    "ä=b".encode(): "syntax error",
}


@pytest.mark.parametrize("text", GOOD, ids=repr)
def test_a_list_gives_its_tags_in_order(text: bytes) -> None:
    """RFC 6376 3.2: names are case-sensitive, white space around name and value does not count."""
    listed = tags.parse(text)
    assert isinstance(listed, TagList)
    assert list(listed.values.items()) == list(GOOD[text].items())
    assert all(
        text[start:end].strip(tags.FWS) == listed.values[name]
        for name, (start, end) in listed.spans.items()
    )


@pytest.mark.parametrize("text", BAD, ids=repr)
def test_a_list_with_anything_wrong_is_no_list(text: bytes) -> None:
    """RFC 6376 3.2: a repeated tag invalidates the whole list; only the last semicolon may stand
    alone."""
    assert tags.parse(text) == Malformed(BAD[text])


def test_key_records_are_ascii() -> None:
    """RFC 8616 5 allows UTF-8 in header fields only."""
    assert isinstance(tags.parse("n=ä".encode()), TagList)
    assert tags.parse("n=ä".encode(), utf8=False) == Malformed("syntax error")


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        (b"YWJj", b"abc"),
        (b"Y\r\n W\tJ j", b"abc"),
        (b"YWI=", b"ab"),
        (b"YQ==", b"a"),
        (b"YQ = =", b"a"),
        (b"", None),
        (b" ", None),
        (b"abc", None),
        (b"YQ=", None),
        (b"YWJj=", None),
        (b"b=====", None),
        (b"====", None),
        (b"Y=Jj", None),
        (b"YW-j", None),
        (b"YW_j", None),
        (b"YWJj\x00", None),
        (b"YWJj!", None),
        ("YWJä".encode(), None),
    ],
    ids=repr,
)
def test_base64_is_strict(text: bytes, octets: bytes | None) -> None:
    """DKM-12: white space anywhere, the padding complete, nothing else."""
    assert tags.decode_base64(text) == octets


@given(st.binary(max_size=12) | st.text(alphabet="Ab+/=- ", max_size=12).map(str.encode))
def test_base64_is_what_the_library_takes_whole_and_padded(text: bytes) -> None:
    """RFC 6376 2.10: the short way to its decoder lets nothing else through."""
    packed = text.translate(None, tags.FWS)
    try:
        octets = base64.b64decode(packed, validate=True)
    except ValueError:
        octets = None
    assert tags.decode_base64(text) == (octets or None if len(packed) % 4 == 0 else None)


@given(st.binary(max_size=60) | st.text(alphabet="ab=; \t\r\n:@", max_size=60).map(str.encode))
def test_any_octets_give_a_list_or_a_reason(text: bytes) -> None:
    """Nothing raises; what is listed can be found in the text."""
    listed = tags.parse(text)
    if isinstance(listed, TagList):
        assert all(
            text[slice(*listed.spans[name])].strip(tags.FWS) == value
            for name, value in listed.values.items()
        )
    tags.decode_base64(text)


@pytest.mark.parametrize(
    "unit", [b" ", b"\r\n ", b"a=;", b";", b"=", b"b", b"\t\r\n\t", b"a:", b"\\", b'"']
)
def test_a_long_list_costs_linear_time(unit: bytes) -> None:
    """DOS-04: the inputs of SECURITY.md, Defects of the libraries, at 100 KB each cost far less
    than 0.2 s."""
    text = b"b=A" + unit * (100_000 // len(unit)) + b"!"
    begun = time.process_time()
    tags.parse(text)
    tags.decode_base64(text)
    tags.items(text)
    assert time.process_time() - begun < 0.2
