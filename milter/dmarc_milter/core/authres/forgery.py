"""Whose an Authentication-Results field is: what any reader could take for ours is forged when it
comes in (RFC 8601 5)."""

from __future__ import annotations

import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dmarc_milter.core.authres.field import MAX_FIELD, UnreadableField, leading_words, skip, word
from dmarc_milter.core.mail import domain, encoded_words, lenient
from dmarc_milter.core.mail.domain import Domain

HEAD = 1024
"""Characters within which an authserv-id is looked for; RFC 8601 2.5 means a domain name, so a
longer head is no id of ours."""
MAX_PIECES = 32
MAX_NAMES = 8
"""Of how many pieces a name is put together. One of more stands before the first method anyway."""
# A piece of an authserv-id, with its job id, as a reader cuts it out who expects a domain name.
PIECE = re.compile(r"[\-.0-9A-Z_a-z\x80-\U0010ffff/]++")
# What some reader takes for the end of a line or of a string; only CRLF or LF before white space is
# a fold.
BREAK = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x85\u2028\u2029]|\r(?!\n)|\n(?![ \t])")
# Full stops that IDNA2003 and UTS 46 map, and what is dropped by them or by whoever shows the text.
STOPS = {0x3002: ".", 0xFF0E: ".", 0xFF61: ".", 0xFE52: "."}
# What a reader who compares in upper or lower case takes for i, and two characters that look like a
# space.
ALIKE = {0x130: "i", 0x131: "i", 0x2800: " ", 0xFFFC: " "}
# Controls, format characters, private and unassigned ones show nothing, or nothing known;
# separators are white space to somebody.
NO_SHAPE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn"))
SEPARATORS = frozenset(("Zs", "Zl", "Zp"))
# Charsets of which mail without a charset may be; those that can spell an id of ours are read too.
CHARSETS = (
    "latin-1", "cp1252", "iso8859-2", "cp1250", "iso8859-3", "iso8859-4", "cp1257", "iso8859-5",
    "cp1251", "koi8-r", "koi8-u", "cp866",
    "iso8859-7", "cp1253", "iso8859-9", "cp1254", "iso8859-6", "cp1256", "iso8859-8", "cp1255",
    "cp437", "cp850", "mac-roman", "cp1258",
    "tis-620", "shift_jis", "euc-jp", "gb18030", "big5", "euc-kr",
)  # fmt: skip
DROPPED = {*range(0x20), 0x7F, 0xFFFD, *lenient.IGNORABLE}

WORK = 64 * 1024
"""How much telling forged fields apart may cost for one message: a field that is not PLAIN costs
its bytes and COST."""
COST = 64
# How a field begins that anyone writes in earnest: its authserv-id, or a method where that is
# missing, perhaps a version. Telling whose it is takes microseconds, so that these cost nothing.
PLAIN = re.compile(
    rb"(?:\r?\n)?[ \t]*+(?:\r?\n[ \t]++)?[0-9A-Za-z._-]{1,255}+(?:[ \t]++[0-9]{1,3}+)?["
    rb" \t]*+(?:\r?\n[ \t]++)?[;=]"
)


class _Fold(dict[int, str | None]):
    """Compatibility form and case of one character at a time, so that any length folds in linear
    time."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        folded = (
            " "
            if category in SEPARATORS
            else ""
            if category in NO_SHAPE
            else unicodedata.normalize("NFKC", chr(code)).casefold()
        )
        if len(self) < 4096:
            self[code] = folded
        return folded


FOLD = _Fold(
    STOPS | ALIKE | dict.fromkeys(DROPPED)
)  # None, unlike "", keeps ASCII on the fast path of str.translate
UNSEEN = dict.fromkeys(DROPPED - {9, 10, 13, 0xFFFD})
LOOSE = dict.fromkeys(map(ord, ' \t\r\n"\\'))
# Bytes that are no UTF-8, as surrogate escapes: of these 0x85 ends a line for who reads Latin-1
# (NEL).
OCTETS = dict.fromkeys(range(0xDC80, 0xDD00), "\ufffd") | {0xDC85: "\x85"}
# ASCII in more bytes than it needs, which UTF-8 forbids and some decoders take (RFC 3629 3).
OVERLONG = re.compile(rb"(?:[\xc0\xc1]|\xe0[\x80\x81]|\xf0\x80[\x80\x81])[\x80-\xbf]")
# A name as far as somebody reads it who takes ASCII letters only, and what tidying takes off it.
LDH = re.compile(r"[\-.0-9A-Za-z]++")
DOTS = re.compile(r"\.{2,}+")
AROUND = " .-_/'`"
# A word in front of "=" for those who look for the first method.
KEY = re.compile(r'[^ \t\r\n="()]++')


def forged(values: Iterable[bytes], ids: Sequence[str], work: int = WORK) -> Iterator[int]:
    """Which of these Authentication-Results fields claim one of `ids`, as numbers from 1, in their
    order.

    At most `work` is spent: after that a field that is not PLAIN counts as ours, unread.
    """
    named = tuple(name.encode().lower() for name in ids)
    for number, value in enumerate(values, 1):
        work -= _cost(value, named)
        if work < 0 or may_be_taken_for_ours(value, ids):
            yield number


def _cost(value: bytes, named: Sequence[bytes]) -> int:
    """What reading a field costs: nothing where it is PLAIN and easily told. Of one over MAX_FIELD
    only the beginning is dear. Several charsets or decoders are several readings."""
    text = value.isascii() or _is_utf8(value)
    lower = value.lower()
    decoded = b"=?" in lower or b"xn--" in lower
    names_us = len(value) > COST and any(name in lower for name in named)
    if text and not decoded and not names_us and PLAIN.match(value):
        return 0
    return (min(len(value), MAX_FIELD) + COST) * (1 if text else 8) * (4 if decoded else 1)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def may_be_taken_for_ours(value: bytes, ids: Sequence[str]) -> bool:
    """Whether some reader of this Authentication-Results field could take its authserv-id for one
    of `ids` (RFC 8601 5).

    Any case, folding, white space, invisible or compatibility character, comment, quotation, job
    id, version, A- or U-label counts as ours, the last also in bytes of any charset that has its
    letters. So does our id with letters that are not ASCII between or behind its own, in a comment
    before the authserv-id, or alone between two semicolons. A field that does not begin as one
    should is ours when one of `ids` stands before its first method. One that has a comment or
    quotation without an end, or that is over MAX_FIELD bytes, is ours when one stands anywhere in
    it. One whose id is lost in a comment or quotation without an end counts too.
    """
    ours = _spellings(tuple(ids))
    return any(
        _taken_for_ours(text, ours) or _taken_for_ours_once_decoded(text, ours)
        for text in _texts(value, ours)
    )


def _taken_for_ours_once_decoded(text: str, ours: frozenset[str]) -> bool:
    if "=?" not in text:
        return False
    text = text[:MAX_FIELD]
    return any(
        _taken_for_ours(read, ours) for read in {decode(text) for decode in encoded_words.DECODERS}
    )


def _texts(value: bytes, ours: frozenset[str]) -> Iterator[str]:
    """The value as text; where it is no UTF-8, in each charset that could spell one of our ids
    too."""
    try:
        yield value.decode("utf-8")
        return
    except UnicodeDecodeError:
        octets = OVERLONG.sub(_short, value)
        yield octets.decode("utf-8", "surrogateescape").translate(OCTETS)
    for charset in _charsets(ours):
        yield value[:HEAD].decode(charset, "replace")


def _short(match: re.Match[bytes]) -> bytes:
    lead, last = match[0][-2], match[0][-1]
    return bytes([(lead & 1) << 6 | last & 0x3F])


@lru_cache(maxsize=16)
def _charsets(ours: frozenset[str]) -> tuple[str, ...]:
    """Charsets that have the letters of one of these names; none where all are ASCII."""
    return tuple(
        charset
        for charset in CHARSETS
        if any(_encodes(name, charset) for name in ours if not name.isascii())
    )


def _encodes(name: str, charset: str) -> bool:
    try:
        name.encode(charset)
    except UnicodeEncodeError:
        return False
    return True


def _taken_for_ours(text: str, ours: frozenset[str]) -> bool:
    head = _head(text[:HEAD].translate(UNSEEN))
    if any(_is_ours(name, ours) for name in head.names()):
        return True
    if len(text) > MAX_FIELD or BREAK.search(text):
        return _names_us(text, ours) or (not head.pieces and _hides_its_id(text))
    try:
        if not head.understood or _has_gaps(text[:HEAD].partition(";")[0]):
            before = _before_the_first_method(text)
        else:
            before = text[: skip(text, 0)[1]]
        if _names_us(before, ours):
            return True
        folded = text.translate(FOLD)
        return any(name in folded for name in ours) and any(
            _is_ours(name, ours) for name in leading_words(text)
        )
    except UnreadableField:
        return _names_us(text, ours) or (not head.pieces and _hides_its_id(text))


def _names_us(text: str, ours: frozenset[str]) -> bool:
    """Whether one of our names stands anywhere in the text, for a careless reader."""
    folded = text.translate(FOLD)
    return any(name in loose for loose in (folded, *_loose(folded)) for name in ours)


def _before_the_first_method(text: str) -> str:
    """The text up to its first "=" outside comments and quotations, an instance (RFC 8617 4.1.1)
    aside. Raises UnreadableField."""
    position, key = 0, ""
    while position < len(text):
        _, position = skip(text, position)
        if text.startswith("=", position) and key not in ("", "i", "I"):
            return text[:position]
        key, position = word(text, position, KEY)
    return text


def _has_gaps(text: str) -> bool:
    """Whether a character that nobody sees, or that is white space to somebody, stands in the text:
    there a reader may cut it."""
    return not text.isascii() and any(
        not char.isascii() and FOLD[ord(char)] in (None, "", " ") for char in text
    )


def _hides_its_id(text: str) -> bool:
    """Whether a comment or quotation without an end, within MAX_FIELD, stands before or around the
    authserv-id: it is nobody's."""
    text = text[:MAX_FIELD]
    try:
        _, position = skip(text, 0)
        word(text, position, PIECE)
    except UnreadableField:
        return True
    return False


@lru_cache(maxsize=16)
def _spellings(ids: tuple[str, ...]) -> frozenset[str]:
    """Our ids folded, as given and in both label forms; never empty text."""
    names = set(ids)
    for given in ids:
        name = domain.parse(given)
        if isinstance(name, Domain):
            names |= {name.name, domain.unicode_form(name)}
    folded = {*map(_folded_id, names), *(name.translate(FOLD) for name in names)}
    return frozenset(name for name in folded if name.strip("."))


def _folded_id(name: str) -> str:
    """How an authserv-id is compared."""
    folded = unicodedata.normalize(
        "NFKC", name.translate(FOLD)
    )  # of any script's space a plain one
    folded = DOTS.sub(".", folded).strip(AROUND)
    if folded.isascii():
        return folded
    parsed = domain.parse(folded)
    return parsed.name if isinstance(parsed, Domain) else folded


@lru_cache(maxsize=1024)
def _is_ours(name: str, ours: frozenset[str]) -> bool:
    """Whether the name is one of ours to some reader."""
    return any(_folded_id(spelling) in ours for spelling in _spelled_otherwise(name))


def _spelled_otherwise(name: str) -> Iterator[str]:
    """The name as it is, without a job id, and with every A-label decoded, whether it may be one or
    not. One of several labels also up to the first character that cannot stand in a host name, and
    without all that is not ASCII."""
    yield name
    yield name.partition("/")[0]
    if "xn--" in name.lower():
        yield ".".join(map(_decoded_label, name.lower().split(".")))
    host = LDH.match(name)
    if host is not None and "." in host[0]:
        yield host[0]
    if not name.isascii() and "." in (bare := name.encode("ascii", "ignore").decode()):
        yield bare


def _decoded_label(label: str) -> str:
    if not label.startswith("xn--") or len(label) > domain.MAX_LABEL:
        return label
    try:
        return label[4:].encode().decode("punycode")
    except UnicodeError:
        return label


def _loose(folded: str) -> Iterator[str]:
    """The whole text as careless readers see it: without white space, quotes and backslashes, with
    what a URL or HTML escapes; without comments too."""
    yield folded.translate(LOOSE)
    if "%" in folded or "&" in folded:
        yield urllib.parse.unquote(lenient.unreferenced(folded)).translate(LOOSE)
    if len(folded) <= MAX_FIELD and "(" in folded:
        yield re.sub(r"\([^()]*+\)", "", folded).translate(LOOSE)
        yield lenient.without_comments(folded).translate(LOOSE)


@dataclass(frozen=True, slots=True)
class _Head:
    """The beginning of a field, up to what ends an authserv-id. `pieces` are what white space and
    comments separate.

    `understood`: CFWS authserv-id [CFWS version] [CFWS] (";" / end), as RFC 8601 2.2 has it, or a
    method where the id is missing; an instance (RFC 8617 4.1.1) is none, nor is a quotation or a
    compatibility character that stands for more than a name.
    """

    pieces: tuple[str, ...]
    understood: bool

    def names(self) -> Iterator[str]:
        """What may be taken for the authserv-id: the first piece, or that with the next ones."""
        joined = ""
        for piece in self.pieces[:MAX_NAMES]:
            joined += piece
            yield joined


def _is_plain(piece: str) -> bool:
    """Whether nothing in the piece ends an authserv-id for a reader who takes quotes off or maps
    characters first."""
    return "\ufffd" not in piece and PIECE.fullmatch(piece.translate(FOLD)) is not None


def _head(text: str) -> _Head:
    pieces: list[str] = []
    position = 0
    while len(pieces) <= MAX_PIECES:
        try:
            _, position = skip(text, position)
            if text[position : position + 1] in ("", ";", "=") and position < HEAD:
                valued = text[position : position + 1] == "="
                versioned = len(pieces) == 2 and not pieces[1].strip(domain.DIGITS) and not valued
                alone = len(pieces) == 1 and not (valued and pieces[0] in ("i", "I"))
                return _Head(tuple(pieces), (alone or versioned) and _is_plain(pieces[0]))
            piece, end = word(text, position, PIECE)
        except UnreadableField:
            break
        if end == position or not piece:
            break
        pieces.append(piece)
        position = end
    return _Head(tuple(pieces), understood=False)
