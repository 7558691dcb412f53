"""The parts of a mail (RFC 2045, RFC 2046) in one pass over its bytes, bounded in number and
depth: no tree, no copies.

Made for mail of strangers: the standard library's parser takes time that grows with the square of
the nesting.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_DEPTH = 12
"""Multiparts inside each other; what is nested deeper is one part that is not looked into."""
MAX_PARTS = 200
MAX_HEADER = 64 << 10
"""Bytes of one part's header."""
MAX_FIELD = 8000
"""Characters of a field that goes on over several lines."""
MAX_MARKS = 100_000
"""Lines that begin with two hyphens, each of which might be a boundary."""
MARK = re.compile(rb"^--[^\r\n]{1,200}", re.MULTILINE)
LINE = re.compile(rb"[^\n]*\n?")
BOUNDARY = re.compile(r"boundary\s*=\s*(?:\"([^\"]{1,200})\"|([^\s;\"]{1,200}))", re.IGNORECASE)
CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:+-]{1,40})", re.IGNORECASE)
CODECS = re.compile(
    r"(?:utf-?8|us-ascii|ascii|iso-?8859-\d+|latin-?1|windows-\d+|cp\d+|koi8-[ru]|iso-2022-\w+|shift[_-]jis|euc-\w+|gb\w+|big5)"
)
"""Character sets that Python decodes in linear time; the others are read as Latin-1, which keeps
ASCII."""
Fields = dict[str, list[str]]


class Part(NamedTuple):
    """A part that is no multipart. `start` and `end` bound its body in the mail; `fields` by
    lower-case name, unfolded."""

    fields: Fields
    start: int
    end: int
    depth: int

    @property
    def type(self) -> str:
        """Media type in lower case; text/plain where none is given (RFC 2045 5.2)."""
        return media_type(self.fields)


def media_type(fields: Fields) -> str:
    """Type and subtype in lower case, without parameters."""
    return first(fields, "content-type").partition(";")[0].strip().lower() or "text/plain"


def first(fields: Fields, name: str) -> str:
    """The topmost field of that name, or ""."""
    return fields.get(name, [""])[0]


class _Open(NamedTuple):
    """A part whose end was not met yet."""

    fields: Fields
    start: int
    depth: int


def header(data: bytes) -> Fields:
    """The fields on top of a mail. A line `From ...` of a mailbox file is the field `from `."""
    return _header(data, 0, len(data), {})[0]


def parts(data: bytes, *, max_parts: int = MAX_PARTS) -> Iterator[Part]:
    """The parts in order. Never raises; linear in the mail's size."""
    active: dict[bytes, int] = {}
    fields, start = _header(data, 0, len(data), active)
    stack: list[bytes] = []
    current = _entered(fields, start, stack, active)
    made = 0
    for number, mark in enumerate(MARK.finditer(data, start)):
        if number >= MAX_MARKS or made >= max_parts:
            break
        key, closes = _key(mark[0][2:], active)
        if key is None or (current is None and mark.start() < start):
            continue
        if current is not None:
            made += 1
            yield Part(
                current.fields, current.start, max(current.start, mark.start()), current.depth
            )
        level = active[key]
        for gone in stack[level + (not closes) :]:
            del active[gone]
        del stack[level + (not closes) :]
        current = None
        if not closes:
            fields, start = _header(data, _next_line(data, mark.end()), len(data), active)
            current = _entered(fields, start, stack, active)
    if current is not None and made < max_parts:
        yield Part(current.fields, current.start, len(data), current.depth)


def _entered(
    fields: Fields, start: int, stack: list[bytes], active: dict[bytes, int]
) -> _Open | None:
    """A leaf; None for a multipart, whose boundary is looked for from now on."""
    kind = first(fields, "content-type")
    match = BOUNDARY.search(kind[:2000]) if media_type(fields).startswith("multipart/") else None
    if match is None or len(stack) >= MAX_DEPTH:
        return _Open(fields, start, len(stack))
    boundary = (match[1] or match[2]).rstrip().encode("latin-1", "replace")
    if boundary in active or not boundary:
        return _Open(fields, start, len(stack))
    active[boundary] = len(stack)
    stack.append(boundary)
    return None


def _key(text: bytes, active: dict[bytes, int]) -> tuple[bytes | None, bool]:
    """The boundary that a line names, and whether it closes it."""
    text = text.rstrip()
    if text in active:
        return text, False
    if text.endswith(b"--") and text[:-2] in active:
        return text[:-2], True
    return None, False


def _next_line(data: bytes, at: int) -> int:
    found = data.find(b"\n", at)
    return len(data) if found < 0 else found + 1


def _header(data: bytes, start: int, end: int, active: dict[bytes, int]) -> tuple[Fields, int]:
    """Fields, and where the body begins: behind the empty line, or at the first line that is no
    field."""
    fields: Fields = {}
    last: list[str] | None = None
    at, limit = start, min(end, start + MAX_HEADER)
    while at < limit:
        match = LINE.match(data, at, limit)
        line = match[0] if match else b""
        text = line.rstrip(b"\r\n")
        if not text:
            return fields, at + len(line)
        if text.startswith(b"--") and _key(text[2:], active)[0] is not None:
            return fields, at
        if text[:1] in (b" ", b"\t") and last is not None:
            if len(last[-1]) < MAX_FIELD:
                last[-1] += " " + text.strip().decode("latin-1")
        elif text.startswith(b"From ") and at == start:
            last = fields.setdefault("from ", [])
            last.append(text[5:].decode("latin-1"))
        else:
            name, colon, value = text.partition(b":")
            if not colon or not name.strip() or b" " in name.strip():
                return fields, at
            last = fields.setdefault(name.strip().decode("latin-1").lower(), [])
            last.append(value.strip().decode("latin-1"))
        at += len(line)
    return fields, at


def decoded(data: bytes, part: Part) -> bytes:
    """The body without its transfer encoding (RFC 2045 6); damage is passed over."""
    body = data[part.start : part.end]
    encoding = first(part.fields, "content-transfer-encoding").lower()
    if encoding == "base64":
        return unbase64(body)
    return binascii.a2b_qp(body) if encoding == "quoted-printable" else body


def unbase64(text: bytes) -> bytes:
    """Base64 as far as it can be read."""
    clean = re.sub(rb"[^A-Za-z0-9+/]+", b"", text)
    return binascii.a2b_base64(
        clean[: len(clean) // 4 * 4]
        + (clean[len(clean) // 4 * 4 :] + b"==")[:4] * (len(clean) % 4 > 1)
    )


def text_of(data: bytes, part: Part) -> str:
    """The body as text, by its character set where that is a usual one."""
    match = CHARSET.search(first(part.fields, "content-type")[:2000])
    name = match[1].lower() if match else "utf-8"
    octets = decoded(data, part)
    try:
        return octets.decode(name if CODECS.fullmatch(name) else "latin-1", "replace")
    except LookupError:
        return octets.decode("latin-1")
