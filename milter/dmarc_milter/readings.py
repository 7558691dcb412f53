"""Every domain that some lenient reader could find in a From field that the strict one refuses."""

from __future__ import annotations

import binascii
import re
import unicodedata
from collections.abc import Iterator, Sequence

from dmarc_milter import domain
from dmarc_milter.domain import Domain

MAX_RUNS = 100
"""Distinct texts after an @ that are looked at; a field with more of them has more domains than anyone answers for."""
MAX_RUN = 512
MAX_BROKEN = 16 * 1024
"""Octets of a field that is no text up to which it is read in every way."""

# A name as a reader would cut it out: letters, digits, hyphen, underscore, dot and anything that is not ASCII.
NAME = r"[A-Za-z0-9._\-\x80-\U0010ffff]"
SKIP = r"(?:[ \t\r\n]|\([^()@]*+\))"
# After the @: what some readers step over, and the name. Neither part crosses the next @, so all matches together are linear.
AFTER_AT = re.compile(rf'@(?:{SKIP}|["<\[])*+({NAME}++)')
# obs-domain: white space and comments around a dot (RFC 5322 4.4).
DOT_NEXT = re.compile(rf"{SKIP}++(\.{NAME}*+)")
AFTER_DOT = re.compile(rf"{SKIP}++({NAME}++)")

# Characters without a shape of their own (Unicode, Default_Ignorable_Code_Point): soft hyphen, zero width, direction, variation, tags.
IGNORABLE = {0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x2010), *range(0x202A, 0x202F)}
IGNORABLE |= {*range(0x2060, 0x2070), 0x3164, *range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0, *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE01F0)}
# What some readers drop without a word: those, controls, and the backslash of a quoted-pair.
DROPPED = {*range(0x20), 0x7F, 0x5C, *IGNORABLE} - {9, 10, 13}
DROP = dict.fromkeys(DROPPED)
# What compatibility mapping (UTS 46, NFKC) makes of at signs and full stops.
MAPPED = {0xFF20: "@", 0xFE6B: "@", 0x3002: ".", 0xFF0E: ".", 0xFF61: ".", 0xFE52: "."}

# encoded-word = "=?" charset ["*" language] "?" encoding "?" encoded-text "?="     RFC 2047 2, RFC 2231 5
ENCODED_WORD = re.compile(r"=\?([^?*\s]{1,40}+)(?:\*[^?\s]{0,40}+)?\?([BbQq])\?([^?]*+)\?=")
BETWEEN_WORDS = re.compile(r"(?<=\?=)[ \t\r\n]++(?==\?)")
# Charsets worth decoding, all of them linear in Python; any other is read as the superset of ASCII that it most likely is.
CHARSETS = ("utf-8", "utf-7", "utf-16", "utf-16be", "utf-16le", "gb2312", "gbk", "gb18030", "big5", "shift_jis", "iso-2022-jp")
COMMENT_PIECE = re.compile(r"[()]|\\.?|[^()\\]++", re.DOTALL)


def domains(values: Sequence[bytes], limit: int, *, decoded: bool = True) -> tuple[tuple[Domain, ...], bool]:
    """At most `limit` distinct domains in the order in which they are found, and whether there are more. Never raises.

    `decoded`: with those that show only once encoded words are decoded.
    """
    found: dict[Domain, None] = {}
    runs: set[str] = set()
    for value in values:
        for text in _texts(value, decoded):
            for run in _runs(text):
                if run in runs:
                    continue
                runs.add(run)
                found.update(dict.fromkeys(_spelled(run)))
                if len(found) > limit or len(runs) > MAX_RUNS:
                    return tuple(found)[:limit], True
    return tuple(found), False


def hides_an_at(value: bytes) -> bool:
    """Whether decoding the encoded words shows an @ that was not to be seen, before whatever name."""
    text = value.decode("latin-1")
    return "=?" in text and decode_words(text).count("@") != text.count("@")


def _texts(value: bytes, decoded: bool) -> Iterator[str]:
    """The field as different readers see it: as it stands, encoded words decoded, oddities dropped, comments removed."""
    for read in _decodings(value):
        text = read.translate(MAPPED)
        yield text
        if decoded and "=?" in text:
            yield decode_words(text).translate(MAPPED)
            yield ENCODED_WORD.sub(_decoded, text).translate(MAPPED)
        cleaned = text.translate(DROP)
        if cleaned != text:
            yield cleaned
        if "(" in text:
            yield without_comments(text)
        if "(" in text and cleaned != text:
            yield without_comments(cleaned)


def _decodings(value: bytes) -> tuple[str, ...]:
    """UTF-8, or as Latin-1, cut at the first octet that is no text, and read without such octets."""
    try:
        return (value.decode("utf-8"),)
    except UnicodeDecodeError:
        value = value.replace(b"\xc0\xae", b".")
    if len(value) > MAX_BROKEN:
        return (value.decode("latin-1"),)
    return value.decode("latin-1"), value.decode("utf-8", "replace"), value.decode("utf-8", "ignore")


def _runs(text: str) -> Iterator[str]:
    """What stands after each @, also continued across white space and comments beside a dot."""
    for match in AFTER_AT.finditer(text):
        run, position = match[1], match.end()
        if "." not in run and "[" in match[0] and text.startswith(":", position):
            continue  # the tag of an address literal, as in [IPv6:...] (RFC 5321 4.1.3)
        continued = run
        while len(continued) <= MAX_RUN:
            more = (AFTER_DOT if continued.endswith(".") else DOT_NEXT).match(text, position)
            if more is None:
                break
            continued += more[1]
            position = more.end()
        if "." in run or continued == run:
            yield run[:MAX_RUN]
        if continued != run:
            yield continued[:MAX_RUN]


def _spelled(run: str) -> Iterator[Domain]:
    """The domains that a run may stand for: itself, or else what mapping makes of it and what stands before the first oddity."""
    spellings = [run]
    if not run.isascii():
        spellings.append(unicodedata.normalize("NFKC", run).translate(MAPPED))
        spellings.append(run[: next(index for index, character in enumerate(run) if not character.isascii())])
    for number, spelling in enumerate(spellings):
        # Dots and hyphens too many are what a tidy reader takes away.
        name = domain.parse(".".join(label for label in spelling.strip(".-").split(".") if label))
        if isinstance(name, Domain):
            yield name
            if number == 0:
                return


def decode_words(text: str) -> str:
    """The text with its encoded words (RFC 2047) decoded as leniently as anyone does, wherever they stand."""
    return ENCODED_WORD.sub(_decoded, BETWEEN_WORDS.sub("", text))


def _decoded(match: re.Match[str]) -> str:
    """The text of one encoded word; of an undecodable one, nothing."""
    charset, encoding, text = match[1].lower(), match[2], match[3]
    octets = text.encode("utf-8")
    try:
        octets = binascii.a2b_qp(octets, header=True) if encoding in "qQ" else binascii.a2b_base64(octets.rstrip(b"=") + b"==")
    except binascii.Error:
        return ""
    return octets.decode(charset if charset in CHARSETS else "latin-1", "replace")


def without_comments(text: str) -> str:
    """The text outside comments; one that never ends takes the rest with it."""
    kept, depth = [], 0
    for match in COMMENT_PIECE.finditer(text):
        piece = match[0]
        if piece == "(":
            depth += 1
        elif piece == ")" and depth:
            depth -= 1
        elif not depth:
            kept.append(piece)
    return "".join(kept)
