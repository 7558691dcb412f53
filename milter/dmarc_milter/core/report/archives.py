"""What a report travels in: gzip, zip, bzip2, a mail, and these inside each other. Unpacked piece
by piece, on one budget.

The standard library's zipfile and email hold a whole directory, or a whole tree of parts, in memory
before the first byte is read.
"""

from __future__ import annotations

import binascii
import bz2
import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from struct import unpack_from
from typing import NamedTuple

from dmarc_milter.core.report.budget import PIECE, Budget, UnreadableReport, Words
from dmarc_milter.core.report.mime import Part, first, parts

Pieces = Iterator[bytes]

BLANK = b" \t\r\n"
BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<", b"\0\0\0<", b"\0\0\xfe\xff")
"""How XML in Unicode's other forms begins."""
FOREIGN = {
    b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"\x28\xb5\x2f\xfd": "zstd",
    b"%PDF": "PDF",
    b"\xd0\xcf\x11\xe0": "an Office file",
}  # fmt: skip
METHODS = {9: "deflate64", 14: "lzma", 93: "zstd", 95: "xz", 98: "ppmd", 99: "AES"}
MAX_DEPTH = 4
"""Packages inside each other."""
MAX_HELD = 16 << 20
"""Bytes of a zip, or a mail, that lies inside another package: it has to be in memory whole."""
MAX_ENTRIES = 200
MAX_MEMBERS = 100
"""Of one gzip file."""
WHOLE = 0xFFFFFFFF
"""In place of a size: it stands in the zip64 extra field."""


class _ZipEntry(NamedTuple):
    """An entry of a zip's directory."""

    name: bytes
    flags: int
    method: int
    crc: int
    size: int
    offset: int


class Unpacker:
    """`documents` of one file, each as pieces. What cannot be read is reported in `words`, and the
    next one is looked at."""

    def __init__(self, budget: Budget, words: Words) -> None:
        self._budget, self._words = budget, words
        self.problem = ""
        """The first thing that made a part unreadable."""

    def documents(self, data: bytes) -> Iterator[Pieces]:
        """The XML documents inside. A piece that cannot be unpacked raises UnreadableReport where
        it is asked for."""
        yield from self._opened(_slices(data), data, 0)

    def _opened(
        self, pieces: Pieces, whole: bytes | None, depth: int, *, mailed: bool = False
    ) -> Iterator[Pieces]:
        try:
            head = next(pieces, b"")
            while len(head) < 16 and (more := next(pieces, b"")):
                head += more
        except UnreadableReport as error:
            self._fail(str(error))
            return
        pieces = chain((head,), pieces)
        start = head.lstrip(BLANK)
        if depth > MAX_DEPTH:
            self._fail("packages nested too deep")
        elif start.startswith(b"PK\x03\x04"):
            yield from self._from_zip(self._held(pieces, whole), depth)
        elif start.startswith(b"\x1f\x8b"):
            yield from self._opened(self._budget.charged(self._gunzip(pieces)), None, depth + 1)
        elif re.match(rb"BZh[1-9]1AY&SY", start):
            yield from self._opened(self._budget.charged(self._bunzip(pieces)), None, depth + 1)
        elif _is_xml(start, strict=mailed):
            yield pieces if depth else self._budget.charged(pieces)
        elif kind := next((name for sign, name in FOREIGN.items() if start.startswith(sign)), ""):
            self._fail(f"{kind}, which is not read here")
        elif not mailed and not head.startswith(b"\0"):
            yield from self._from_mail(self._held(pieces, whole), depth)

    def _fail(self, text: str) -> None:
        self.problem = self.problem or text
        self._words.say(text)

    def _held(self, pieces: Pieces, whole: bytes | None) -> bytes:
        """All bytes at once; of what is larger than may be held, the beginning."""
        if whole is not None:
            return whole
        found, size = [], 0
        try:
            for piece in pieces:
                found.append(piece)
                size += len(piece)
                if size > MAX_HELD:
                    self._fail(f"a package of more than {MAX_HELD >> 20} MiB inside another one")
                    return b""
        except UnreadableReport as error:
            self._fail(str(error))
            return b""
        return b"".join(found)

    # --- gzip, bzip2 ---

    def _gunzip(self, pieces: Pieces) -> Pieces:
        """RFC 1952: any number of members; bytes behind the last one are not read."""
        members, unpacker = 0, zlib.decompressobj(wbits=31)
        for given in pieces:
            piece = given
            while piece:
                try:
                    yield from _drained(unpacker, piece)
                except zlib.error as error:
                    raise UnreadableReport(f"damaged gzip: {error}") from None
                if not unpacker.eof:
                    break
                members += 1
                piece = unpacker.unused_data.lstrip(b"\0")
                if piece and (not piece.startswith(b"\x1f") or members >= MAX_MEMBERS):
                    self._words.say("octets behind the end of the gzip are not read")
                    return
                unpacker = zlib.decompressobj(wbits=31) if piece else unpacker
            if unpacker.eof:
                unpacker = zlib.decompressobj(wbits=31)
                begun = False
            else:
                begun = True
        if not members or begun:
            raise UnreadableReport("damaged gzip: it ends early")

    def _bunzip(self, pieces: Pieces) -> Pieces:
        unpacker = bz2.BZ2Decompressor()
        for piece in pieces:
            given = piece
            try:
                while not unpacker.eof and (given or not unpacker.needs_input):
                    yield unpacker.decompress(given, PIECE)
                    given = b""
            except (OSError, ValueError, EOFError) as error:
                raise UnreadableReport(f"damaged bzip2: {error}") from None
            if unpacker.eof:
                return
        raise UnreadableReport("damaged bzip2: it ends early")

    # --- zip ---

    def _from_zip(self, data: bytes, depth: int) -> Iterator[Pieces]:
        for number, entry in enumerate(self._entries(data)):
            if number >= MAX_ENTRIES:
                self._words.say(f"a zip with more than {MAX_ENTRIES} entries: the rest is not read")
                return
            if entry.name.endswith((b"/", b"\\")) and not entry.size:
                continue
            if entry.flags & 0x41:
                self._fail("an encrypted entry in a zip is not read")
                continue
            if entry.method not in (0, 8, 12):
                self._fail(
                    f"an entry packed with {METHODS.get(entry.method, f'method {entry.method}')} in"
                    " a zip is not read"
                )
                continue
            yield from self._opened(
                self._budget.charged(self._member(data, entry)), None, depth + 1
            )

    def _entries(self, data: bytes) -> Iterator[_ZipEntry]:
        """The central directory (APPNOTE 4.3.12), wherever the file says it is."""
        end = data.rfind(b"PK\x05\x06", max(0, len(data) - 65557))
        if end < 0 or end + 22 > len(data):
            self._fail("damaged zip: it has no directory")
            return
        size, at = unpack_from("<LL", data, end + 12)
        locator = data.rfind(b"PK\x06\x06", max(0, end - 200), end)
        if WHOLE in (size, at) and 0 <= locator <= len(data) - 56:
            size, at = unpack_from("<QQ", data, locator + 40)
        shift = (
            max(0, (locator if locator >= 0 else end) - size - at)
            if data[at : at + 4] != b"PK\x01\x02"
            else 0
        )
        at += shift
        if data[at : at + 4] != b"PK\x01\x02":
            self._fail("damaged zip: its directory is not where it says")
        while data[at : at + 4] == b"PK\x01\x02" and at + 46 <= len(data):
            flags, method, crc, packed, _ = unpack_from("<HH4xLLL", data, at + 8)
            name, extra, comment = unpack_from("<HHH", data, at + 28)
            (offset,) = unpack_from("<L", data, at + 42)
            more = data[at + 46 + name : at + 46 + name + extra]
            if WHOLE in (packed, offset):
                packed, offset = _zip64(more, unpack_from("<LLL", data, at + 20)[:2], offset)
            yield _ZipEntry(
                data[at + 46 : at + 46 + name], flags, method, crc, packed, offset + shift
            )
            at += 46 + name + extra + comment

    def _member(self, data: bytes, entry: _ZipEntry) -> Pieces:
        """The bytes of one entry; sizes are not believed, the packed data say where they end."""
        at = entry.offset
        if data[at : at + 4] != b"PK\x03\x04" or at + 30 > len(data):
            raise UnreadableReport("damaged zip: an entry is not where the directory says")
        name, extra = unpack_from("<HH", data, at + 26)
        start = at + 30 + name + extra
        crc = 0
        for piece in self._raw(data, start, entry):
            crc = zlib.crc32(piece, crc)
            yield piece
        if crc != entry.crc:
            self._words.say("the checksum of a zip's entry is wrong")

    def _raw(self, data: bytes, start: int, entry: _ZipEntry) -> Pieces:
        if entry.method == 0:
            yield from _slices(data, start, min(len(data), start + entry.size))
        elif entry.method == 12:
            yield from self._bunzip(_slices(data, start))
        else:
            unpacker = zlib.decompressobj(-15)
            for piece in _slices(data, start):
                try:
                    yield from _drained(unpacker, piece)
                except zlib.error as error:
                    raise UnreadableReport(f"damaged zip: {error}") from None
                if unpacker.eof:
                    return
            raise UnreadableReport("damaged zip: it ends early")

    # --- mail ---

    def _from_mail(self, data: bytes, depth: int) -> Iterator[Pieces]:
        """Parts that are, or hold, XML. HTML and text for people are none."""
        for part in parts(data, max_parts=2000):
            if part.type == "message/rfc822" and first(
                part.fields, "content-transfer-encoding"
            ).lower() in ("", "7bit", "8bit", "binary"):
                if depth < 2 and part.end - part.start <= MAX_HELD:
                    yield from self._from_mail(data[part.start : part.end], depth + 1)
                continue
            yield from self._opened(
                self._budget.charged(_decoded(data, part)), None, depth + 1, mailed=True
            )


def _is_xml(start: bytes, *, strict: bool) -> bool:
    """Whether bytes begin an XML document; `strict` where HTML may stand, too."""
    if start.startswith(BOMS):
        return True
    return start.startswith((b"<?xml", b"<feedback", b"<Feedback") if strict else b"<")


def _slices(data: bytes, start: int = 0, end: int | None = None) -> Pieces:
    stop = len(data) if end is None else end
    for at in range(start, stop, PIECE):
        yield data[at : min(at + PIECE, stop)]


def _drained(unpacker: zlib._Decompress, piece: bytes) -> Pieces:
    """What `piece` unpacks to, never more than a piece at once. Raises zlib.error."""
    while True:
        found = unpacker.decompress(piece, PIECE)
        yield found
        piece = unpacker.unconsumed_tail
        if unpacker.eof or (not piece and len(found) < PIECE):
            return


def _zip64(extra: bytes, sizes: tuple[int, ...], offset: int) -> tuple[int, int]:
    """Packed size and offset from the zip64 field (APPNOTE 4.5.3), which has only those that did
    not fit."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = unpack_from("<HH", extra, at)
        if kind == 1:
            values = iter(
                [
                    unpack_from("<Q", extra, position)[0]
                    for position in range(at + 4, min(at + 4 + length, len(extra)) - 7, 8)
                ]
            )
            packed, unpacked = sizes
            if unpacked == WHOLE:
                next(values, 0)
            packed = next(values, 0) if packed == WHOLE else packed
            return packed, next(values, 0) if offset == WHOLE else offset
        at += 4 + length
    return sizes[0], offset


def _decoded(data: bytes, part: Part) -> Pieces:
    """The body without its transfer encoding (RFC 2045 6), piece by piece."""
    encoding = first(part.fields, "content-transfer-encoding").lower()
    raw = _slices(data, part.start, part.end)
    if encoding == "base64":
        return _unbase64(raw)
    if encoding == "quoted-printable":
        return _unquoted(raw)
    return raw


def _unbase64(pieces: Iterable[bytes]) -> Pieces:
    rest = b""
    for piece in pieces:
        clean = rest + re.sub(rb"[^A-Za-z0-9+/]+", b"", piece)
        rest = clean[len(clean) // 4 * 4 :]
        yield binascii.a2b_base64(clean[: len(clean) // 4 * 4])
    if len(rest) > 1:
        yield binascii.a2b_base64(rest + b"==")


def _unquoted(pieces: Iterable[bytes]) -> Pieces:
    rest = b""
    for piece in pieces:
        lines, newline, rest = (rest + piece).rpartition(b"\n")
        if len(rest) > PIECE:
            lines, newline, rest = lines + newline + rest, b"", b""
        yield binascii.a2b_qp(lines + newline)
    yield binascii.a2b_qp(rest)
