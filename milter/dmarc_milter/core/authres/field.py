"""Authentication-Results (RFC 8601): our own strict writer, and a tolerant reader for others'
fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain, Malformed
from dmarc_milter.core.quick_dataclass import quick_dataclass

MAX_FIELD = 8192
"""Bytes of a field that are written or read."""
MAX_RESULTS = 32
MAX_PROPERTIES = 16
MAX_VALUE = 256
"""Characters of one value, reason or comment."""
OF_ONE_MESSAGE = ("b", "mailfrom")
"""Properties whose values no second message has, so that nothing is remembered for it."""
LINE = 78
"""Bytes that a line aims at (RFC 5322 2.1.1); what cannot be broken stays under 998."""

# Keyword = Letter *( LetDigHyp ) LetDig      RFC 8601 2.2 (RFC 5321 4.1.2's Ldh-str)
KEYWORD = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
# token: printable ASCII but space and tspecials      RFC 2045 5.1
TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~\x80-\U0010ffff]+")
# What is written with a backslash in a comment (RFC 5322 3.2.2)
IN_COMMENT = re.compile(r"([()\\])")
# "@" domain-name, of LDH labels (RFC 6376 3.5)
AT_DOMAIN = re.compile(r"@[A-Za-z0-9]++(?:-++[A-Za-z0-9]++|\.[A-Za-z0-9]++)*+")


@lru_cache(maxsize=128)
def _is_keyword(text: str) -> bool:
    return KEYWORD.fullmatch(text) is not None


def _is_one_line(text: str) -> bool:
    """Nothing that could end a line, hide, or stand for bytes that were no text."""
    return len(text) <= MAX_VALUE and text.isprintable() and "\ufffd" not in text


@quick_dataclass(frozen=True, slots=True)
class Property:
    """`ptype.name=value` (RFC 8601 2.2, propspec). Making one of anything but printable text is a
    ValueError: see `properties`."""

    ptype: str
    name: str
    value: str
    written: str = field(init=False, repr=False, compare=False)
    """As it stands in a field."""

    def __post_init__(self) -> None:
        if not (
            _is_keyword(self.ptype)
            and _is_keyword(self.name)
            and self.value
            and _is_one_line(self.value)
        ):
            raise ValueError("not a property of Authentication-Results")
        written = f"{self.ptype}.{self.name}={_pvalue(self.value)}"
        object.__setattr__(self, "written", written)  # as frozen dataclasses do it themselves


def properties(*triples: tuple[str, str, str]) -> tuple[Property, ...]:
    """The properties (ptype, name, value) that can be written; an empty, long or unprintable value
    leaves its property out."""
    kept = []
    for ptype, name, value in triples:
        if not value or len(value) > MAX_VALUE:
            continue
        make = _property if name in OF_ONE_MESSAGE else _remembered
        item = make(ptype, name, value)
        if item is not None:
            kept.append(item)
    return tuple(kept)


def _property(ptype: str, name: str, value: str) -> Property | None:
    try:
        return Property(ptype, name, value)
    except ValueError:
        return None


_remembered = lru_cache(maxsize=1024)(_property)


@quick_dataclass(frozen=True, slots=True)
class ResInfo:
    """One method's result (RFC 8601 2.2). `reason` and `comment` come from fixed vocabularies when
    we write."""

    method: str
    result: str
    properties: tuple[Property, ...] = ()
    reason: str = ""
    comment: str = ""

    def __post_init__(self) -> None:
        if not (
            _is_keyword(self.method)
            and _is_keyword(self.result)
            and (not self.reason or _is_one_line(self.reason))
            and (not self.comment or _is_one_line(self.comment))
        ):
            raise ValueError("not a result of Authentication-Results")

    def value(self, ptype: str, name: str) -> str:
        """The first value of that property, or ""."""
        return next(iter(self.values(ptype, name)), "")

    def values(self, ptype: str, name: str) -> tuple[str, ...]:
        """All values of that property, in order."""
        return tuple(
            item.value for item in self.properties if (item.ptype, item.name) == (ptype, name)
        )


@dataclass(frozen=True, slots=True)
class AuthResults:
    """A field as it was read."""

    authserv_id: str
    infos: tuple[ResInfo, ...] = ()

    def of(self, method: str) -> tuple[ResInfo, ...]:
        """All results of one method, in order."""
        return tuple(info for info in self.infos if info.method == method)


# --- the writer


def format(authserv_id: str, infos: Sequence[ResInfo], *, smtputf8: bool = False) -> str:
    """The field's value: a leading space, one result per line, folds as LF TAB, at most MAX_FIELD
    bytes.

    When that is too little, whole results are left out: DKIM's first, from the end, and of these
    what passed last; dmarc never. Without `smtputf8` the text is ASCII: a non-ASCII authserv-id
    becomes A-labels (RFC 8616 5), a non-ASCII property is left out.
    """
    head = " " + _value(_written_id(authserv_id, smtputf8=smtputf8))
    kept = [_folded(_words(info, smtputf8=smtputf8)) for info in infos]
    if (
        4 * (len(head) + sum(len(text) + 3 for text in kept)) > MAX_FIELD
    ):  # else it fits whatever its characters
        kept = _fitting(MAX_FIELD - len(head.encode()), kept, infos)
    return head + "".join(f";\n\t{text}" for text in kept) if kept else f"{head}; none"


def _fitting(room: int, texts: list[str], infos: Sequence[ResInfo]) -> list[str]:
    """The texts without as many as `room` bytes have no place for, the least wanted first."""
    sizes = [len(text.encode()) + 3 for text in texts]
    excess = sum(sizes) - room
    gone: set[int] = set()
    for number in sorted(range(len(texts)), key=lambda number: (_wanted(infos[number]), -number)):
        if excess <= 0:
            break
        gone.add(number)
        excess -= sizes[number]
    return [text for number, text in enumerate(texts) if number not in gone]


def _wanted(info: ResInfo) -> int:
    """DKIM's own limits and reservations, its other failures, its passes, other methods, dmarc."""
    if info.method == "dkim":
        return {"policy": 0, "pass": 2}.get(info.result, 1)
    return 4 if info.method == "dmarc" else 3


def _written_id(authserv_id: str, *, smtputf8: bool) -> str:
    if smtputf8 or authserv_id.isascii():
        return authserv_id
    name = domain.parse(authserv_id)
    return (
        name.name if isinstance(name, Domain) else authserv_id.encode("ascii", "replace").decode()
    )


def _words(info: ResInfo, *, smtputf8: bool) -> list[str]:
    """What may not be broken: result, comment, reason, each property."""
    words = [f"{info.method}={info.result}"]
    if info.comment and (smtputf8 or info.comment.isascii()):
        words.append("(" + IN_COMMENT.sub(r"\\\1", info.comment) + ")")
    if info.reason and (smtputf8 or info.reason.isascii()):
        words.append(f"reason={_value(info.reason)}")
    words += [item.written for item in info.properties if smtputf8 or item.written.isascii()]
    return words


def _pvalue(text: str) -> str:
    """pvalue: "@" domain-name too (RFC 8601 2.2)."""
    return text if AT_DOMAIN.fullmatch(text) else _value(text)


def _value(text: str) -> str:
    """value: a token or a quoted-string (RFC 2045 5.1)."""
    return (
        text
        if TOKEN.fullmatch(text)
        else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )


def _folded(words: Iterable[str]) -> str:
    """Words separated by a space, or by a fold where the line would grow beyond LINE."""
    text, width = "", 1
    for word in words:
        size = len(word) if word.isascii() else len(word.encode())
        if text and width + 1 + size > LINE:
            text, width = f"{text}\n\t{word}", 1 + size
        else:
            text, width = f"{text} {word}" if text else word, width + 1 + size
    return text


# --- the reader

SPACE = re.compile(r"[ \t\r\n]++")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
COMMENT_PIECE = re.compile(r"[()]|\\.|[^()\\]++", re.DOTALL)
KEY = re.compile(r'[^ \t\r\n;="()]++')
VALUE = re.compile(r'[^ \t\r\n;"()]++')


def parse(value: bytes) -> AuthResults | Malformed:
    """What a field says, read tolerantly: what cannot be understood is skipped. At most MAX_FIELD
    bytes. Never raises.

    Reads Authentication-Results and ARC-Authentication-Results, whose leading i= (RFC 8617 4.1.1)
    is stepped over. A missing authserv-id is "".
    """
    if len(value) > MAX_FIELD:
        return Malformed("too long")
    try:
        parts = segments(value.decode("utf-8", "replace"))
    except UnreadableField:
        return Malformed("open quotation or comment")
    if parts[0].pairs and parts[0].pairs[0][0] == "i":
        del parts[0]
    authserv_id = parts[0].leading if parts else ""
    infos = [info for segment in parts[:MAX_RESULTS] if (info := _info(segment))]
    return AuthResults(authserv_id, tuple(infos))


def leading_words(text: str) -> tuple[str, ...]:
    """The word before the first method of each part between semicolons, where there is one. Raises
    UnreadableField."""
    return tuple(segment.leading for segment in segments(text) if segment.leading)


class UnreadableField(Exception):
    """A comment or quoted-string does not end. For those who read piece by piece: `parse` answers
    Malformed."""


class Segment:
    """What stands between two semicolons: key=value pairs, the word before the first of them, and
    the first comment. `stray`: there is more, which belongs to nothing."""

    __slots__ = ("comment", "leading", "pairs", "stray")

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []
        self.leading = ""
        self.comment = ""
        self.stray = False


def segments(text: str) -> list[Segment]:
    """The field cut at its semicolons. Raises UnreadableField."""
    parts, position = [Segment()], 0
    while True:
        position = _skip(text, position, parts[-1])
        if position >= len(text):
            return parts
        if text[position] == ";":
            parts.append(Segment())
            position += 1
            continue
        position = _pair(text, position, parts[-1])


def _pair(text: str, position: int, segment: Segment) -> int:
    """Reads `key = value` or a lone word at `position` into the segment; where it ends."""
    key, position = word(text, position, KEY)
    end = _skip(text, position, segment)
    # ptype [CFWS] "." [CFWS] property, method [CFWS] "/" [CFWS] version
    while text.startswith((".", "/"), end) or (key.endswith((".", "/")) and KEY.match(text, end)):
        more, position = word(text, end, KEY)
        key += more
        end = _skip(text, position, segment)
    if not text.startswith("=", end):
        if segment.pairs or segment.leading:
            segment.stray = True
        else:
            segment.leading = key
        return position
    value, position = word(text, _skip(text, end + 1, segment), VALUE)
    segment.pairs.append((key.lower(), value))
    return position


def word(text: str, position: int, pattern: re.Pattern[str]) -> tuple[str, int]:
    """A quoted-string without its quotes, or what the pattern matches, or one stray character; and
    where it ends. Raises UnreadableField."""
    if text.startswith('"', position):
        quoted = QUOTED.match(text, position)
        if quoted is None:
            raise UnreadableField
        return QUOTED_PAIR.sub(r"\1", quoted[1]), quoted.end()
    match = pattern.match(text, position)
    if match is not None:
        return match[0], match.end()
    # A stray ")" or "=" is stepped over; an empty value stays before its semicolon.
    return "", position + (text[position : position + 1] in (")", "="))


def _skip(text: str, position: int, segment: Segment) -> int:
    """Past white space and comments; the segment keeps its first comment. Raises
    UnreadableField."""
    comment, position = skip(text, position)
    segment.comment = segment.comment or comment
    return position


def skip(text: str, position: int) -> tuple[str, int]:
    """The first comment of the white space and comments (CFWS) at `position`, or "", and where they
    end. Raises UnreadableField."""
    first = ""
    while position < len(text):
        space = SPACE.match(text, position)
        if space is not None:
            position = space.end()
        elif text[position] == "(":
            comment, position = _comment(text, position)
            first = first or comment
        else:
            break
    return first, position


def _comment(text: str, position: int) -> tuple[str, int]:
    """The text of the comment that opens at `position`, and where it ends. Any depth, no recursion.
    Raises UnreadableField."""
    depth = 0
    pieces: list[str] = []
    while (piece := COMMENT_PIECE.match(text, position)) is not None:
        position = piece.end()
        depth += (piece[0] == "(") - (piece[0] == ")")
        if depth == 0:
            return "".join(pieces[1:]), position
        pieces.append(piece[0][-1] if piece[0][0] == "\\" else piece[0])
    raise UnreadableField


def _info(segment: Segment) -> ResInfo | None:
    """A segment as a result; None when its first pair is none."""
    if not segment.pairs:
        return None
    method, result = segment.pairs[0]
    rest = segment.pairs[1:]
    named = [(*key.partition("."), value) for key, value in rest]
    try:
        info = ResInfo(method.partition("/")[0], result.lower())
    except ValueError:
        return None
    info = replace(
        info,
        properties=properties(*((ptype, name, value) for ptype, _, name, value in named))[
            :MAX_PROPERTIES
        ],
    )
    reason = next((value for key, value in rest if key == "reason"), "")
    return replace(
        info,
        reason=reason if _is_one_line(reason) else "",
        comment=segment.comment if _is_one_line(segment.comment) else "",
    )
