"""Tag lists (RFC 6376 3.2, RFC 8616 5): strict, and in linear time whatever is in them."""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

from dmarc_milter.core.mail.domain import Malformed

FWS = b" \t\r\n"
LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = b"0123456789"
NAME_OCTETS = LETTERS + DIGITS + b"_"
USUAL_NAMES = frozenset(
    (
        b"v",
        b"a",
        b"b",
        b"bh",
        b"c",
        b"d",
        b"h",
        b"i",
        b"l",
        b"q",
        b"s",
        b"t",
        b"x",
        b"z",
        b"k",
        b"n",
        b"p",
        b"g",
        b"cv",
    )
)
"""Only a short cut."""
BASE64_OCTETS = LETTERS + DIGITS + b"+/"
VISIBLE = bytes(range(0x21, 0x7F))
PRINTABLE = VISIBLE + b" \t"
PRINTABLE_UTF8 = PRINTABLE + bytes(range(0x80, 0x100))
QUOTED_OCTET = re.compile(rb"=([0-9A-F]{2})")


class TagList(NamedTuple):
    """`values` without white space around them; `spans` where each raw value stands in the text,
    white space included."""

    values: dict[bytes, bytes]
    spans: dict[bytes, tuple[int, int]]


def parse(text: bytes, *, utf8: bool = True) -> TagList | Malformed:
    """The tags of `text` in order; the whole list is malformed when any part of it is.

    `text` may be folded (CRLF before white space). `utf8` allows octets from 0x80 in values:
    message header fields may hold them (RFC 8616 5), key records may not. dkimpy's parse_tag_value
    takes names such as `a-b` and any octet in a value.
    """
    if not _is_printable(text, utf8=utf8):
        return Malformed("syntax error")
    values: dict[bytes, bytes] = {}
    spans: dict[bytes, tuple[int, int]] = {}
    specs = text.split(b";")
    if not specs[-1].strip(FWS):
        specs.pop()  # the last semicolon may be followed by nothing
    if not specs:
        return Malformed("syntax error")
    start = 0
    for item in specs:
        raw_name, equals, raw_value = item.partition(b"=")
        name = raw_name.strip(FWS)
        if not equals or (name not in USUAL_NAMES and not _is_tag_name(name)):
            return Malformed("syntax error")
        if name in values:
            return Malformed("duplicate tag")
        values[name] = raw_value.strip(FWS)
        end = start + len(item)
        spans[name] = (end - len(raw_value), end)
        start = end + 1
    return TagList(values, spans)


def compact(value: bytes) -> bytes:
    """The value without any folding white space."""
    return value.translate(None, FWS)


def unquoted(value: bytes) -> bytes:
    """dkim-quoted-printable (RFC 6376 2.11): white space is nothing, "=" with two upper-case
    hexadecimal digits an octet. An "=" that begins nothing of the kind stays, as signers write it
    in local parts."""
    return QUOTED_OCTET.sub(lambda found: bytes.fromhex(found[1].decode("ascii")), compact(value))


def items(value: bytes) -> tuple[bytes, ...]:
    """The parts of a colon-separated list, without white space around each."""
    return tuple([part.strip(FWS) for part in value.split(b":")])


def decode_base64(value: bytes) -> bytes | None:
    """base64string of RFC 6376 2.10: white space anywhere, the padding complete, nothing else; None
    when it is not that."""
    packed = compact(value)
    digits = packed.rstrip(b"=")
    padding = len(packed) - len(digits)
    if not packed or len(packed) % 4 or padding > 2 or digits.translate(None, BASE64_OCTETS):
        return None
    return binascii.a2b_base64(packed)


def _is_printable(text: bytes, *, utf8: bool) -> bool:
    """Whether there is nothing but visible octets, white space, and CRLF before white space."""
    unfolded = text.replace(b"\r\n ", b"").replace(b"\r\n\t", b"")
    return not unfolded.translate(None, PRINTABLE_UTF8 if utf8 else PRINTABLE)


def _is_tag_name(name: bytes) -> bool:
    # tag-name = ALPHA *ALNUMPUNC ; ALNUMPUNC = ALPHA / DIGIT / "_"
    return bool(name) and name[:1] in LETTERS and not name.translate(None, NAME_OCTETS)
