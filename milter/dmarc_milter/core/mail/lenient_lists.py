"""What common mail programs take for an address in a list of mailboxes: each splits it in its own
way, and each has its fallbacks.

The strict reading (mailbox_list.py) knows which text is a name, a comment or a group's name, where
anyone may write what they like. A reader who ends a quotation or a comment elsewhere, or finds no
address where one should be, takes such a text for an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dmarc_milter.core.mail import lenient
from dmarc_milter.core.mail.broken_encoded_words import hide_somebody, holds_undecodable_specials
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.encoded_words import DECODERS, START, before_what_swallows, decode_words

MAX_VALUE = 4096
"""Bytes of a field with a second domain in it that is still read in every way; none that anyone
writes is longer."""
MAX_GROUPS = 10

# One address by the book and nothing else: every reader takes it, and looks no further.
ATOM = r"[^\s\"(),.:;<>@\\\[\]]+"
# Not possessive: Python 3.11.2 keeps the dot of a repetition (*+) that failed behind it.
PLAIN = re.compile(rf"{ATOM}(?:\.{ATOM})*@{ATOM}(?:\.{ATOM})*")
# A field with one @ in plain text can be read in one way only.
SIMPLE = re.compile(rb"[^@=&\x80-\xff]*+@[^@=&\x80-\xff]*+\Z")

# A name and such an address: no reader takes the name for it.
NAME_AND_ADDRESS = re.compile(rf"[^@<]*+<{PLAIN.pattern}>\s*+".encode())

QUOTED = r'"(?:[^"\\]|\\.)*+"?'
QUOTED_BLIND = r'"[^"]*+"?'
QUOTED_LINE = r'"(?:[^"\\\r\n]|\\.)*+[\r\n"]?'
COMMENT_FLAT = r"\([^)]*+\)?"
COMMENT_ESCAPED = r"\((?:[^)\\]|\\.)*+\)?"
COMMENT_LINE = r"\((?:[^)\\\r\n]|\\.)*+[\r\n)]?"
ANGLE = r"<[^>]*+>?"
ANGLE_QUOTED = r'<(?:[^>"]|"(?:[^"\\]|\\.)*+"?)*+>?'
TEXT = r"[^\"(<:,;]++"
TEXT_ESCAPED = r"[^\"(<:,;\\]++|\\.?"
GROUP_TO_THE_SEMICOLON = r":(?P<INSIDE>[^;]*+);?"


class Style(NamedTuple):
    """How one kind of reader splits a list. `nested`: comments hold comments; then `pieces` has
    only their start.

    `plain_first`: whether plain text with an @ counts also before angle brackets. `angles_only`:
    whether nothing else counts than what stands in them; else an element without an address is
    searched for one in its quotations and comments.
    """

    pieces: re.Pattern[str]
    nested: bool
    plain_first: bool = False
    angles_only: bool = False


def _style(quoted: str, comment: str, angle: str, group: str = ":", *, text: str = TEXT) -> Style:
    return Style(
        re.compile(
            rf"(?P<QUOTED>{quoted})|(?P<COMMENT>{comment or '[(]'})|(?P<ANGLE>{angle})"
            rf"|(?P<GROUP>{group})|(?P<END>[,;])"
            rf"|(?P<TEXT>{text})",
            re.DOTALL,
        ),
        nested=not comment,
    )


STYLES = (
    # By the book (RFC 5322 3.2): Roundcube, Python's email.policy.
    _style(QUOTED, "", ANGLE_QUOTED),
    # Brackets end at the first closing one, groups at the first semicolon: nodemailer, mailparser,
    # postal-mime.
    _style(QUOTED, COMMENT_FLAT, ANGLE, GROUP_TO_THE_SEMICOLON),
    _style(QUOTED, COMMENT_ESCAPED, ANGLE, GROUP_TO_THE_SEMICOLON, text=TEXT_ESCAPED),
    # A line's end ends them: Python's email.utils where lines end in CRLF. Without angle brackets
    # it would be met by the names of much honest mail that are folded in the middle.
    _style(QUOTED_LINE, COMMENT_LINE, ANGLE_QUOTED)._replace(angles_only=True),
    # Without quoted-pairs: regular expressions.
    _style(QUOTED_BLIND, COMMENT_FLAT, ANGLE),
)

# Python's email.utils where lines end in LF: what looks like an address ends there, even where one
# in angle brackets follows.
PLAIN_FIRST = STYLES[0]._replace(plain_first=True)
# An encoded word that ends nowhere, or behind the address: what follows it is swallowed by Python's
# email.policy, which then takes the words before it for the address.
OPEN_WORD = re.compile(rf"{START.pattern}(?![^?<]*+\?=)".encode())
# One in which a quotation begins or ends, or a comment inside its charset: who decodes it first
# sees other quotations and comments than we do.
WORD_OVER_TOKENS = re.compile(
    rb'=\?(?:[^?*"()<>\s]{0,60}+["()<>\s][^?*]{0,60}+(?:\*[^?]{0,40}+)?\?[BbQq]\?[^?]*+|[^?]{1,101}+\?[BbQq]\?[^?"]*+"[^?]*+)\?='
)


def in_doubt(value: bytes, domain: Domain) -> bool:
    """Whether some reader takes an address of another domain for the author of a field that is
    well-formed for `domain`."""
    if SIMPLE.match(value):
        return False
    if not NAME_AND_ADDRESS.fullmatch(value) and hide_somebody([value]):
        return True
    if lenient.domains((value,), 1) == ((domain,), False):
        return False  # there is no other domain in it
    if len(value) > MAX_VALUE or OPEN_WORD.search(value) or WORD_OVER_TOKENS.search(value):
        return True
    if holds_undecodable_specials(value):
        return True
    taken = {
        address
        for text in dict.fromkeys(_texts(value))
        for style in STYLES
        for address in addresses(text, style)
    }
    taken.update(
        address for text in lenient.decodings(value) for address in addresses(text, PLAIN_FIRST)
    )
    return lenient.domains_of_text(taken, 1) != ((domain,), False)


def _texts(value: bytes) -> Iterator[str]:
    """The field as it stands, and as programs see it that decode before they split."""
    for text in lenient.decodings(value):
        for decode in (str, *DECODERS):
            decoded = decode(text)
            yield decoded
            yield decoded.translate(lenient.MAPPED)
            yield lenient.unreferenced(decoded)
        before = before_what_swallows(text)
        if before:
            yield decode_words(before)


@dataclass(slots=True)
class _Element:
    """What stands between two separators."""

    angles: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    quoted: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    """What is quoted and what is not, in order."""

    def addresses(self, style: Style) -> Iterator[str]:
        """The addresses in angle brackets, else the one in plain text, else whatever looks like
        one.

        Only where there is exactly one, with nothing odd in it, does every reader stop there.
        """
        angles = [each for each in self.angles if "@" in each]
        plain = "".join(self.plain).strip()
        yield from angles
        if style.angles_only:
            return
        if style.plain_first and "@" in plain:
            yield plain
        if len(angles) == 1 and len(self.angles) == 1 and PLAIN.fullmatch(angles[0]):
            return
        if not angles and PLAIN.fullmatch(plain) and not self.quoted:
            yield plain
            return
        yield from (each for each in (plain, *self.quoted, *self.comments) if "@" in each)
        if "@" in plain and self.quoted:
            yield "".join((*self.quoted, *self.plain))
        if self.quoted:
            yield from (each for each in "".join(self.whole).split() if "@" in each)


def addresses(text: str, style: Style, groups: int = 0) -> Iterator[str]:
    """What a reader of this style takes for an address."""
    element = _Element()
    position = 0
    while position < len(text):
        match = style.pieces.match(text, position)
        if match is None:
            break
        position = match.end()
        kind, piece = match.lastgroup, match[0]
        if kind == "COMMENT" and style.nested:
            position = _comment_end(text, match.start())
            _add(element, kind, text[match.start() : position])
        elif kind == "END":
            yield from element.addresses(style)
            element = _Element()
        elif kind in ("GROUP", "INSIDE"):
            # The name of a group is a name to some, and to others the author.
            yield from (
                each for each in (*element.plain, *element.quoted, *element.comments) if "@" in each
            )
            element = _Element(angles=element.angles)
            if kind == "INSIDE" or "INSIDE" in match.groupdict():
                inside = match["INSIDE"] or ""
                yield from (
                    addresses(inside, style, groups + 1) if groups < MAX_GROUPS else (inside,)
                )
        else:
            _add(element, kind, piece)
    yield from element.addresses(style)


def _add(element: _Element, kind: str | None, piece: str) -> None:
    if kind == "ANGLE":
        element.angles.append(piece[1:].removesuffix(">"))
    elif kind == "QUOTED":
        element.quoted.append(piece.strip('"'))
        element.whole.append(piece.strip('"'))
        element.plain.append(" ")
    elif kind == "COMMENT":
        element.comments.append(piece)
        element.plain.append(" ")
    else:
        element.plain.append(piece)
        element.whole.append(piece)


def _comment_end(text: str, start: int) -> int:
    """Where the comment that opens at `start` ends, with those inside it."""
    depth = 0
    for match in lenient.COMMENT_PIECE.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth <= 0:
            return match.end()
    return len(text)
