"""The one domain of a From field: a strict, linear reading of RFC 5322 3.4 and RFC 6854, with few
tolerances."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple

from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain, Malformed
from dmarc_milter.core.mail.path import NotStrict as _NotStrict

MAX_MAILBOXES = 100
"""More authors than this are no From field."""
MAX_COMMENT_DEPTH = 50
MAX_TOKENS = 10_000
"""Words, white space, comments and specials of one field: with MAX_MAILBOXES nobody needs a tenth
of it."""


class Tolerated(IntEnum):
    """What stood there that RFC 5322 does not allow, and so which other readings must agree."""

    NOTHING = 0
    ENCODED_WORD = 1
    """Specials inside an encoded-word: readers who do not decode it first."""
    NAME = 2
    """A comma, colon, semicolon, @, bracket or backslash that is not quoted in a display name, an
    address in parentheses after a name, a semicolon between addresses, or a backslash that may be
    half a character: every reader."""


class Reading(NamedTuple):
    """The domain that all mailboxes share."""

    domain: Domain
    tolerated: Tolerated


def parse(value: bytes) -> Reading | Malformed:
    """The reading of one From field's value. Never raises.

    Dots and 8-bit text in a name, dots anywhere in a local part, empty list elements and comments
    beside the @ harm no reading. A route, white space inside an addr-spec, an address literal,
    controls and everything else that the grammar does not allow or `Tolerated` names are malformed
    (docs/design.md, Decisions).
    """
    try:
        return _one_domain(value)
    except _NotStrict as error:
        name, angle, address = value.rpartition(b"<")
        spelled = BACKSLASH.sub(b"", name) + angle + address
        name, parenthesis, address = value.rstrip(b" \t\r\n").rpartition(b"(<")
        if (
            parenthesis
            and address.endswith(b">)")
            and name.strip(b" \t\r\n,")
            and not NOT_IN_A_PLAIN_NAME.search(name)
        ):
            spelled = name + b"<" + address[:-1]
        return _tolerated(spelled) if spelled != value else Malformed(error.reason)


def _tolerated(value: bytes) -> Reading | Malformed:
    """The reading of what every reader finds in a field: an address in parentheses after a name,
    backslashes that quote nothing."""
    try:
        return Reading(_one_domain(value).domain, Tolerated.NAME)
    except _NotStrict as error:
        return Malformed(error.reason)


class _Kind(Enum):
    SPACE = 1
    COMMENT = 2
    QUOTED = 3
    LITERAL = 4
    ATOM = 5
    SPECIAL = 6


class _Token(NamedTuple):
    kind: _Kind
    text: bytes


# Nothing but a fold may break a line, and no reader agrees with another about the other controls
# (RFC 5322 4.1 lets them be).
FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|\n(?![ \t])")
# An encoded-word counts as one atom whatever its text holds (RFC 2047 5 (3) allows less, senders
# write more); the charset is a token (RFC 2047 2). FWS, quoted-string, domain-literal, specials,
# and all else: atext, dots and 8-bit (RFC 5322 3.2, RFC 6532 3.2). Every alternative starts with
# another byte and every repetition is possessive, so matching is linear.
TOKEN = re.compile(
    rb"""(?P<SPACE>[ \t\r\n]++)
    |(?P<QUOTED>"(?:[^"\\]|\\[^\r\n])*+")
    |(?P<LITERAL>\[[^\[\]\\]*+\])
    |(?P<ENCODED>=\?[!#-'*+\-0-9A-Z^-~]{1,60}+\?[BbQq]\?[!->@-~]*+\?=)
    |(?P<SPECIAL>[<>@,;:])
    |(?P<BRACKET>[\[\]])
    |(?P<ATOM>[^ \t\r\n"\[\]<>@,;:()\\]++)""",
    re.VERBOSE,
)
# In Shift_JIS, Big5 and GBK a backslash may be the second half of a character, and quotes nothing
# then.
HALF_A_CHARACTER = re.compile(rb'[\x81-\xfe]\\["()\\]')
# One that quotes nothing: half a character, or as in DOMAIN\\user.
BACKSLASH = re.compile(rb"(?<=[\x81-\xfe])\\|\\(?=[0-9A-Za-z])")
SPECIALS = re.compile(rb'[<>@,;:()\[\]"\\]')
COMMENT_PIECE = re.compile(rb"[()]|\\[^\r\n]|[^()\\]++")
# A whole one, wherever it stands: `=?` alone is plain atext.
ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[BbQq]\?[^?]*+\?=")
NOT_IN_A_PLAIN_NAME = re.compile(rb'[<>()@"\\]')
KINDS = {kind.name: kind for kind in _Kind} | {"ENCODED": _Kind.ATOM, "BRACKET": _Kind.LITERAL}
CFWS = (_Kind.SPACE, _Kind.COMMENT)
AT, OPEN, CLOSE = (
    _Token(_Kind.SPECIAL, b"@"),
    _Token(_Kind.SPECIAL, b"<"),
    _Token(_Kind.SPECIAL, b">"),
)
# A commercial at that compatibility mapping turns into "@": full width and small.
OTHER_ATS = ("\uff20", "\ufe6b")
# Marks, embeddings, overrides and isolates of the bidirectional algorithm (UAX 9 2): with one of
# them in it, an address is shown with its end before its beginning, so that the local part is read
# as the domain.
DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _tokens(value: bytes) -> list[_Token]:
    """The value as tokens; raises _NotStrict at the first byte that starts none."""
    if FORBIDDEN.search(value):
        raise _NotStrict("control character")
    tokens: list[_Token] = []
    position = 0
    while position < len(value):
        if len(tokens) >= MAX_TOKENS:
            raise _NotStrict("too many words")
        if value[position] == 0x28:  # "("
            end = _comment_end(value, position)
            tokens.append(_Token(_Kind.COMMENT, value[position:end]))
            position = end
            continue
        match = TOKEN.match(value, position)
        if match is None or match.lastgroup is None:
            raise _NotStrict(
                "open quotation" if value[position] == 0x22 else "special character out of place"
            )
        tokens.append(_Token(KINDS[match.lastgroup], match.group()))
        position = match.end()
    return tokens


def _quotes_in_doubt(value: bytes) -> bool:
    """Whether a quotation or comment ends elsewhere for a reader with an Asian character set."""
    if not HALF_A_CHARACTER.search(value):
        return False
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _comment_end(value: bytes, position: int) -> int:
    """Where the comment that opens at `position` ends. Raises _NotStrict when it does not, or is
    nested absurdly deep."""
    depth = 0
    while True:
        piece = COMMENT_PIECE.match(value, position)
        if piece is None:
            raise _NotStrict("open comment")
        position = piece.end()
        if piece.group() == b"(":
            depth += 1
        elif piece.group() == b")":
            depth -= 1
        if depth == 0:
            return position
        if depth > MAX_COMMENT_DEPTH:
            raise _NotStrict("comments nested too deep")


@dataclass(slots=True)
class _AddressList:
    """Where a From field's reading stands (RFC 5322 3.4, obs-mbox-list of 4.4; groups by RFC 6854).

    `phrase`: tokens since the last separator. `dangling`: a name stood before a comma and its
    address is still to come. `closed`: an address or group just ended, so only CFWS may come before
    the next separator. `bare`: an address without angle brackets stood since the last colon.
    """

    phrase: list[_Token] = field(default_factory=list)
    domains: dict[Domain, None] = field(default_factory=dict)
    mailboxes: int = 0
    in_group: bool = False
    dangling: bool = False
    closed: bool = False
    bare: bool = False
    tolerated: Tolerated = Tolerated.NOTHING

    def add(self, mailbox: list[_Token]) -> None:
        self.mailboxes += 1
        if self.mailboxes > MAX_MAILBOXES:
            raise _NotStrict("too many mailboxes")
        self.domains[_addr_spec_domain(mailbox)] = None

    def end_element(self) -> None:
        """A comma, the end of a group or of the field: what stands before it is nothing, an
        addr-spec, or part of a name."""
        words = [token for token in self.phrase if token.kind not in CFWS]
        if AT in words:
            if self.dangling:
                raise _NotStrict("name without an address")
            self.add(self.phrase)
            self.bare = True
        elif words:
            self.name(words)
            self.dangling = True
            self.tolerated = Tolerated.NAME
        self.phrase = []
        self.closed = False

    def start_angle(self) -> None:
        words = [token for token in self.phrase if token.kind not in CFWS]
        if AT in words:
            # A name that is or ends as an address, as some clients write: one more mailbox that
            # must agree. With anything after it, readers who skip white space would see another
            # domain.
            if words[-2:-1] != [AT]:
                raise _NotStrict("@ in a name")
            host = words.pop()
            self.domains[_host(host._replace(text=host.text.rstrip(b"'")))] = (
                None  # 'a@b', as some clients quote
            )
            self.tolerated = Tolerated.NAME
            words.pop()
        self.name(words)
        self.phrase = []
        self.dangling = False

    def name(self, words: list[_Token]) -> None:
        """A phrase (RFC 5322 3.2.5) with its obsolete dots; 8-bit is an atom's already. Brackets
        are often written in one."""
        if any(word.kind is _Kind.SPECIAL for word in words):
            raise _NotStrict("special character in a name")
        if any(word.kind is _Kind.LITERAL for word in words):
            self.tolerated = Tolerated.NAME

    def start_group(self) -> None:
        """A colon: a group's, or where there cannot be one part of a name, which an angle bracket
        must follow."""
        words = [token for token in self.phrase if token.kind not in CFWS]
        if AT in words or self.bare:
            raise _NotStrict("colon out of place")
        self.name(words)
        if self.in_group or self.dangling or not words:
            self.tolerated = Tolerated.NAME
        self.phrase = []
        self.in_group = True

    def end_group(self) -> None:
        """A semicolon: a group's end, else part of a name, or for a comma as in an address book."""
        if not self.in_group:
            words = [token for token in self.phrase if token.kind not in CFWS]
            if not (self.closed or words):
                raise _NotStrict("semicolon out of place")
            self.tolerated = Tolerated.NAME
            self.end_element()
            return
        self.end_element()
        if self.dangling:
            raise _NotStrict("name without an address")
        self.in_group = self.bare = False
        self.closed = True

    def end(self) -> None:
        self.end_element()
        if self.in_group:  # so it was a name with a colon
            if self.bare:
                raise _NotStrict("open group")
            self.tolerated = Tolerated.NAME
        if self.dangling:
            raise _NotStrict("name without an address")
        if len(self.domains) != 1:
            raise _NotStrict("several domains" if self.domains else "no address")


def _one_domain(value: bytes) -> Reading:
    """Raises _NotStrict."""
    reading = _AddressList(
        tolerated=Tolerated.NAME if _quotes_in_doubt(value) else Tolerated.NOTHING
    )
    tokens = iter(_tokens(value.rstrip(b" \t\r\n")))
    for token in tokens:
        if token.kind in CFWS:
            reading.phrase.append(token)
        elif token.text == b"," and token.kind is _Kind.SPECIAL:
            reading.end_element()
        elif reading.closed and token.text != b";":
            raise _NotStrict("text after an address")
        elif token == OPEN:
            reading.start_angle()
            reading.add(_inside_angle(tokens))
            reading.closed = True
        else:
            _one_more(reading, token)
    reading.end()
    return Reading(next(iter(reading.domains)), reading.tolerated)


def _one_more(reading: _AddressList, token: _Token) -> None:
    """Any token that is neither CFWS, a comma nor an opening bracket."""
    if token.kind is not _Kind.SPECIAL or token == AT:
        reading.phrase.append(token)
        if token.kind is _Kind.ATOM and SPECIALS.search(token.text):
            reading.tolerated = max(reading.tolerated, Tolerated.ENCODED_WORD)
    elif token.text == b":":
        reading.start_group()
    elif token.text == b";":
        reading.end_group()
    else:
        raise _NotStrict("unbalanced angle brackets")


def _inside_angle(tokens: Iterator[_Token]) -> list[_Token]:
    """The tokens up to the closing bracket, which is consumed."""
    inside: list[_Token] = []
    for token in tokens:
        if token == CLOSE:
            return inside
        inside.append(token)
    raise _NotStrict("unbalanced angle brackets")


def _addr_spec_domain(tokens: list[_Token]) -> Domain:
    """addr-spec (RFC 5322 3.4.1) with comments, but no white space, around its @. Raises
    _NotStrict."""
    start, end = 0, len(tokens)
    while start < end and tokens[start].kind in CFWS:
        start += 1
    while end > start and tokens[end - 1].kind in CFWS:
        end -= 1
    kept = [token for token in tokens[start:end] if token.kind is not _Kind.COMMENT]
    if not kept:
        raise _NotStrict("empty address")
    if kept[0] == AT or any(token.text == b":" for token in kept):
        raise _NotStrict("route or scheme in an address")
    if any(token.kind is _Kind.SPACE for token in kept):
        raise _NotStrict("white space in an address")
    if len(kept) != 3 or kept[1] != AT:
        raise _NotStrict("not an address")
    if not DIRECTIONS.isdisjoint(
        b"".join(token.text for token in tokens[start:end]).decode("utf-8", "replace")
    ):
        raise _NotStrict("direction mark in an address")
    local, host = kept[0], kept[2]
    if local.kind not in (_Kind.ATOM, _Kind.QUOTED):
        raise _NotStrict("not an address")
    _check_local_part(local.text)
    return _host(host)


def _host(token: _Token) -> Domain:
    """The token after an @ as a name. Raises _NotStrict."""
    if token.kind is not _Kind.ATOM:
        raise _NotStrict("address literal" if token.kind is _Kind.LITERAL else "not an address")
    name = domain.parse(token.text)
    if isinstance(name, Malformed):
        raise _NotStrict(name.reason)
    if name.labels[-1].isdigit():
        raise _NotStrict("number for a top-level domain")  # RFC 3696 2
    return name


def _check_local_part(text: bytes) -> None:
    """UTF-8 (RFC 6532 3.2), and nothing that decodes or maps to another @ for a reader who does
    that first (RFC 2047 5)."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        raise _NotStrict("local part not UTF-8") from None
    if ENCODED_WORD.search(decoded):
        raise _NotStrict("encoded word in an address")
    if any(at in decoded for at in OTHER_ATS):
        raise _NotStrict("two at signs")
