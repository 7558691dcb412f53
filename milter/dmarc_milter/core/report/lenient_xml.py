"""Elements and texts of an XML document that may be torn, wrongly coded or not well-formed: as far
as they can be read, piece by piece.

A stranger's report goes through no library that builds a tree or follows entities: memory is
bounded by one tag and one text, whatever the document's size, depth and number of attributes.
Attributes, comments and processing instructions are passed over.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from dmarc_milter.core.report.budget import Budget, Words
from dmarc_milter.core.report.mime import CODECS

MAX_TAG = 32 << 10
"""Characters of one tag, comment or declaration."""
MAX_TEXT = 4000
"""Characters of one text that are kept."""
NAME = r"[A-Za-z_:][\w:.-]{0,100}"
LEAF = re.compile(rf"<({NAME})>([^<&]{{0,{MAX_TEXT}}})</\1\s{{0,20}}>")
TAG = re.compile(rf"<(/?)({NAME})(?:\s[^<>]{{0,{MAX_TAG}}}|/)?>")
ASIDES = (("<!--", "-->"), ("<?", "?>"), ("<![CDATA[", "]]>"))
DOCTYPE = re.compile(rf"<![A-Za-z][^\[<>]{{0,{MAX_TAG}}}(?:\[[^\]]{{0,{MAX_TAG}}}\]\s{{0,100}})?>")
REFERENCE = re.compile(r"&(?:#([0-9]{1,7})|#x([0-9A-Fa-f]{1,6})|([A-Za-z_][\w.-]{0,60}));|&")
NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
DECLARED = re.compile(rb"<\?xml[^>]{0,100}encoding\s{0,10}=\s{0,10}[\"']([\w.:-]{1,40})")


class Event(NamedTuple):
    """An element's start or end, whose name is lower case and without prefix, or a text; `leaf` is
    all three: its name and its text."""

    kind: Literal["start", "end", "text", "leaf"]
    name: str
    text: str = ""


def events(pieces: Iterator[bytes], budget: Budget, words: Words) -> Iterator[Event]:
    """What stands in a document. Raises Spent where the budget ends, UnreadableReport where it
    cannot be unpacked any further."""
    return _Scanner(budget, words).run(_text(pieces, words))


def _text(pieces: Iterator[bytes], words: Words) -> Iterator[str]:
    head = next(pieces, b"")
    while len(head) < 200 and (more := next(pieces, b"")):
        head += more
    name = _encoding(head)
    decoder = codecs.getincrementaldecoder(name)(errors="replace")
    if not name.startswith("utf-8"):
        words.say(f"it is written in {name}, not in UTF-8")
    for piece in _and_all(head, pieces):
        text = decoder.decode(piece)
        if "\ufffd" in text:
            words.say(f"octets that are no {name.removesuffix('-sig').upper()} were replaced")
        yield text
    yield decoder.decode(b"", True)


def _and_all(head: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from pieces


def _encoding(head: bytes) -> str:
    """By the first bytes, else as declared where that is ASCII with something more, else UTF-8
    (XML 1.0, appendix F)."""
    for sign, name in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\0\0\xfe\xff", "utf-32"),
        (b"\xff\xfe\0\0", "utf-32"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if head.startswith(sign):
            return name
    for sign, name in (
        (b"\0\0\0<", "utf-32-be"),
        (b"<\0\0\0", "utf-32-le"),
        (b"\0<", "utf-16-be"),
        (b"<\0", "utf-16-le"),
    ):
        if head.lstrip(b" \r\n\t").startswith(sign):
            return name
    match = DECLARED.search(head[:300])
    declared = match[1].decode("ascii").lower() if match else ""
    if declared and CODECS.fullmatch(declared) and not declared.startswith("utf"):
        try:
            return codecs.lookup(declared).name
        except LookupError:
            pass
    return "utf-8"


class _Scanner:
    """The text not yet read, and where in it the next thing stands."""

    def __init__(self, budget: Budget, words: Words) -> None:
        self._budget, self._words = budget, words
        self._buffer, self._at, self._ended = "", 0, False

    def run(self, texts: Iterator[str]) -> Iterator[Event]:
        for text in texts:
            self._buffer, self._at = self._buffer[self._at :] + text, 0
            yield from self._read()
        self._ended = True
        yield from self._read()

    def _read(self) -> Iterator[Event]:
        buffer, leaf = self._buffer, LEAF.match
        while True:
            begin = buffer.find("<", self._at)
            if begin < 0:
                if not self._ended and len(buffer) - self._at < MAX_TEXT:
                    return  # it may go on, even within a reference
                if tail := buffer[self._at : self._at + MAX_TEXT].strip():
                    yield Event("text", "", self._resolved(tail))
                self._at = len(buffer)
                return
            if (
                begin > self._at
                and (text := buffer[self._at : min(begin, self._at + MAX_TEXT)]).strip()
            ):
                yield Event("text", "", self._resolved(text))
            self._at = begin
            if found := leaf(buffer, begin):
                self._budget.element()
                self._at = found.end()
                yield Event("leaf", local(found[1]), found[2].strip())
                continue
            made = self._tag(buffer, begin)
            if made is None:
                return
            yield from made

    def _tag(self, buffer: str, begin: int) -> tuple[Event, ...] | None:
        """What begins with this `<`; None where more of the document has to come first."""
        if match := TAG.match(buffer, begin):
            self._budget.element()
            self._at = match.end()
            name = local(match[2])
            if match[1]:
                return (Event("end", name),)
            return (
                (Event("start", name), Event("end", name))
                if match[0].endswith("/>")
                else (Event("start", name),)
            )
        self._budget.element()
        if buffer.startswith(("<!", "<?"), begin):
            return self._aside(buffer, begin)
        if not self._ended and self._is_open(buffer, begin):
            return None
        self._at = begin + 1
        if len(buffer) - begin > 1:
            self._words.say("a < that begins no element was read as text")
        return (Event("text", "", "<"),)

    def _is_open(self, buffer: str, begin: int) -> bool:
        """Whether the tag might end in what has not come yet."""
        stop = buffer.find("<", begin + 1)
        close = buffer.find(">", begin + 1, stop if stop >= 0 else len(buffer))
        return stop < 0 and close < 0 and len(buffer) - begin < MAX_TAG

    def _aside(self, buffer: str, begin: int) -> tuple[Event, ...] | None:
        """Comments, instructions, the document type and its entities: passed over. CDATA is
        text."""
        for opening, closing in ASIDES:
            if buffer.startswith(opening, begin):
                end = buffer.find(closing, begin + len(opening))
                break
        else:
            doctype = DOCTYPE.match(buffer, begin)
            closing, opening, end = "", "", doctype.end() if doctype else -1
            if doctype:
                self._words.say("a document type was passed over")
        if end < 0 and not self._ended and len(buffer) - begin < MAX_TAG:
            return None
        if end < 0:
            self._words.say("a comment or declaration without an end was passed over")
            self._at = begin + 2
            return ()
        self._at = end + len(closing)
        text = buffer[begin + len(opening) : end] if opening == "<![CDATA[" else ""
        return (Event("text", "", text[:MAX_TEXT]),) if text else ()

    def _resolved(self, text: str) -> str:
        return REFERENCE.sub(self._reference, text) if "&" in text else text

    def _reference(self, match: re.Match[str]) -> str:
        if match[1] or match[2]:
            number = int(match[1]) if match[1] else int(match[2], 16)
            return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
        if match[3] is None:
            self._words.say("an & that begins no reference was read as text")
            return "&"
        if match[3] not in NAMED:
            self._words.say("entities are not followed")
        return NAMED.get(match[3], "")


def local(name: str) -> str:
    """Without namespace prefix, lower case."""
    return name.rpartition(":")[2].lower()
