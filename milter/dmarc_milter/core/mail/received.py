"""The client that handed a message to one of our own relays, from the Received fields those relays
wrote (RFC 5321 4.4).

Most of a Received field is the sender's own text: HELO, the reverse name, the ident, a
certificate's name, a login, a recipient. So where the address stands is read from what the server
itself wrote: the first word, what opens the comment behind it, the folds, and the program's name
behind `by`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

from dmarc_milter.core.mail.domain import Malformed
from dmarc_milter.core.mail.ip_address import parse_address

MAX_FIELD = 65536
"""Bytes of a field. Exim takes a HELO of 16 KiB, which must not make the field unreadable."""
MAX_HOPS = 50
MAX_HELO = 255
"""Bytes of a HELO name that are kept (RFC 5321 4.5.3.1.2)."""

Network = IPv4Network | IPv6Network
Program = Literal["exim", "communigate", "first", "last", ""]
"""Who wrote the field. `first` and `last` begin with HELO; a program of `last` puts any text before
the address, but no space into HELO."""

FOLD = re.compile(r"(?:\r?\n[ \t]+)+")
FROM = re.compile(r"from[ \t]+([^ \t]+)[ \t]*", re.IGNORECASE)
BY = re.compile(r"by[ \t]", re.IGNORECASE)
PARENTHESIS = re.compile(r"[()]")
# A word, or one parenthesis; possessive and disjoint, so linear.
REST_PIECE = re.compile(r'"(?:[^"\\]|\\.)*+"|[()]|(?:[^ \t\r\n()"\\]|\\.)++', re.DOTALL)
# qmail-queue's own field, above the one that qmail-smtpd wrote for the same message.
QUEUED = re.compile(rb"[ \t\r\n]*\(qmail [0-9]{1,20} invoked from network\)[ \t\r\n]*(?:;|\Z)")

ADDRESS = r"\[([0-9A-Za-z:.%]{2,64})\]"
PORT = r"(?::[0-9]{1,5})?"
LITERAL = re.compile(rf"{ADDRESS}{PORT}")
# What the server wrote at the beginning of the comment behind the client's name.
OPTION = re.compile(r"\((?:helo|ident|port)=")
HELO = re.compile(r"\((?:HELO|EHLO|LHLO)(?= |\))", re.IGNORECASE)
ACCOUNT = re.compile(r"\(account ")
ADDRESS_FIRST = re.compile(
    rf'\( ?{ADDRESS}{PORT}(?: (?:helo|ident|port)=| "[HE][HE]LO | verified\)| RDNS failed\)|\))'
)
# The name before the address is the sender's, and so is the ident; neither holds a space or a
# parenthesis. Behind it Sendmail says "may be forged", and Stalwart the name and country of the
# client's network.
NAMED = re.compile(rf"\((?:[^ \t()]+[ @]|[^ \t()\[\]]+)?{ADDRESS}{PORT}(?: \([^()]*\))?\)(?= |\Z)")
BARE = re.compile(
    r"\((?:[^"
    rf" \t()\[\]]*@)?(?:([0-9.]{{7,15}}){PORT}"
    rf"|(?:IPv6:)?([0-9A-Fa-f:.]{{2,45}})(?:%\w{{1,20}})?)(?:"
    r" with \w+)?\)(?= |\Z)"
)
VERIFIED = re.compile(rf"\(account [^()]* {ADDRESS} verified\)(?= |\Z)")
LAST = re.compile(
    rf"from ([^ \t]+) \((?:.*[ @(])?{ADDRESS}(?: \(may be forged\))?\)", re.IGNORECASE
)
HELO_OPTION = re.compile(r"[( ]helo=(.*)", re.DOTALL)
IDENT_OPTION = re.compile(r" ident=[^ ]*\Z")
# Comments that say nothing of the client, by their first word.
ASIDE = re.compile(
    r"\((?:using |Client |No |no |[Aa]uthenticated|AUTH: |IDENT: |TLS|version=|envelope-|uid"
    r" |[HE][HE]LO )"
)

# What the program itself writes behind `by`, before anything that the sender may have chosen.
EXIM = re.compile(r"by \S+ (?:with \S+ )?(?:tls \S+ |\((?:TLS|SSL|Cipher)[^()]*\) )*\( ?Exim\b")
COMMUNIGATE = re.compile(r"by \S+ \(CommuniGate Pro ")
SENDMAIL = re.compile(r"by \S+ \([^()\s/]+/[^()\s]+\) ")
COURIER = re.compile(r"by \S+ with \S+ (?:for \S+ )?id [0-9A-F]{16}\.[0-9A-F]{16}\.[0-9A-F]{8}\b")
FIRST = re.compile(
    r"by \S+ (?:\([^()\s]*\) )?(?:\((?:Postfix|OpenSMTPD|MDaemon|Stalwart SMTP)\b|with Microsoft"
    r" SMTP)"
)
ENVELOPE = re.compile(r"[ \t]+<")
IPV4_PORT = re.compile(r"([0-9.]{7,15}):[0-9]{1,5}")
LOCAL = re.compile(r"by \S+ with local\b")


@dataclass(frozen=True, slots=True)
class Hop:
    """One client as a server saw it. IPv4-mapped addresses are IPv4. `helo` as given, undecodable
    bytes as surrogate escapes."""

    address: IPv4Address | IPv6Address
    helo: str


def original_client(received: Sequence[bytes], trusted: Sequence[Network]) -> Hop | None:
    """The client of the topmost Received field that names an address outside `trusted`; None if one
    above it is unreadable.

    Below that field everything is the sender's own writing, so nothing below it is read.
    """
    for value in received[:MAX_HOPS]:
        if QUEUED.match(value):
            continue
        hop = parse(value)
        if isinstance(hop, Malformed):
            return None
        if not any(hop.address in network for network in trusted):
            return hop
    return None


def parse(value: bytes) -> Hop | Malformed:
    """The client's address and HELO name in one Received field. Never raises.

        from HELO (NAME [ADDRESS]) by               Postfix, Sendmail, Courier, OpenSMTPD, Haraka
        and most others
        from HELO (IDENT@NAME [ADDRESS]) by         Sendmail; (IDENT@[ADDRESS]) where no name was
        found
        from NAME ([ADDRESS] helo=HELO ident=I) by  Exim; without helo= when it is NAME
        from [ADDRESS] (helo=HELO ident=I) by       Exim, no name found; without a comment when HELO
        is the address
        from [ADDRESS] (HELO HELO) by               CommuniGate; also (account USER HELO HELO)
        from HELO (ADDRESS) by                      Exchange; qmail when HELO is the name
        from HELO ([ADDRESS]) by                    MDaemon
        from NAME (HELO HELO) (ADDRESS) by          qmail; also (IDENT@ADDRESS)

    Nothing behind `helo=`, `ident=` or HELO is ever an address. A field that can be read in two
    ways is malformed; with the folds and the program's name as the program writes them there is
    only one way.
    """
    if len(value) > MAX_FIELD:
        return Malformed("too long")
    field = _field(value.decode("utf-8", "surrogateescape"))
    if field is None:
        return Malformed("no from clause")
    if LOCAL.match(field.tail):
        return Malformed("from a local program, which may have written all below")
    for read in READERS:
        found = read(field)
        if found is not None:
            return found
    return Malformed("no address")


@dataclass(frozen=True, slots=True)
class _Field:
    """A field without its folds. `tail` is its `by` clause, "" where Exim's comments that do not
    match hide where that begins."""

    name: str
    head: str
    at: int
    """Where in `head` the first comment would begin."""
    tail: str
    line: str = ""
    """The first line where the server's own folds set `by` off; "" elsewhere."""

    @property
    def program(self) -> Program:
        if EXIM.match(self.tail):
            return "exim"
        if COMMUNIGATE.match(self.tail):
            return "communigate"
        if SENDMAIL.match(self.tail) or COURIER.match(self.tail):
            return "last"
        return "first" if FIRST.match(self.tail) else ""

    @property
    def literal(self) -> str:
        """The address that the field begins with, "" if none."""
        match = LITERAL.fullmatch(self.name)
        return match[1] if match else ""


def _field(text: str) -> _Field | None:
    """None where there is no `from NAME ... by` clause."""
    lines = FOLD.split(text.strip(" \t\r\n"))
    starts = [number for number, line in enumerate(lines) if BY.match(line)]
    if len(starts) == 1 and starts[0]:
        head = " ".join(lines[: starts[0]]).rstrip()
        begin = FROM.match(head)
        return (
            _Field(
                begin[1], head, begin.end(), _by(" ".join(lines[starts[0] :])), lines[0].rstrip()
            )
            if begin
            else None
        )
    head = " ".join(lines)
    begin = FROM.match(head)
    if not begin:
        return None
    end = _comments(head, begin.end())[1]
    if BY.match(head, end):
        return (
            None
            if _has_another_clause(head[end + 2 :])
            else _Field(begin[1], head[:end].rstrip(), begin.end(), _by(head[end:]))
        )
    return _Field(begin[1], head, begin.end(), "") if "(Exim " in head[end:] else None


def _by(tail: str) -> str:
    """The clause as the patterns have it: `by` in lower case, single spaces."""
    return re.sub(r"[ \t]+", " ", "by" + tail[2:])


def _comments(text: str, start: int) -> tuple[list[str], int]:
    """The comments that follow one another from `start`, with their parentheses, and where they
    end.

    Quotes and backslashes mean nothing in them: servers that pair parentheses (Postfix) do not look
    at those.
    """
    found: list[str] = []
    while text.startswith("(", start):
        depth = 0
        for match in PARENTHESIS.finditer(text, start):
            depth += 1 if match[0] == "(" else -1
            if not depth:
                break
        if depth:
            break
        found.append(text[start : match.end()])
        start = match.end()
        while text[start : start + 1] in (" ", "\t"):
            start += 1
    return found, start


def _has_another_clause(rest: str) -> bool:
    """Whether a second `from` or `by` follows, which only a server that copies spaces out of HELO
    would write.

    Recipients stand here too, so quoted-strings are skipped and parentheses need not match: they
    must not make a field unreadable.
    """
    depth = 0
    for match in REST_PIECE.finditer(rest):
        piece = match[0]
        if depth == 0 and piece.lower() in ("from", "by"):
            if piece.lower() == "from" and ENVELOPE.match(rest, match.end()):
                continue  # XMail ends with `for <RECIPIENT> from <SENDER>`
            return True
        if depth == 0 and piece.endswith(";"):
            return False
        depth = max(0, depth + (piece == "(") - (piece == ")"))
    return False


Found = Hop | Malformed | None
"""None: the field has not this form."""


def _last_on_line(field: _Field) -> Found:
    """Sendmail and Courier end the first line with the address; a reverse name or an ident before
    it may be anything."""
    match = LAST.fullmatch(field.line) if field.program == "last" else None
    if not match:
        return None
    first = NAMED.match(field.line, field.at)
    joined = (
        first and first[1] != match[2] and field.line[first.end() :].lstrip().startswith("(")
    )  # by another relay
    return Malformed("two readings") if joined else _hop(match[2], match[1])


def _option_behind(field: _Field) -> Found:
    """`[ADDRESS] (helo=` and `NAME ([ADDRESS] helo=`: whatever the rest is, these addresses are
    Exim's."""
    first = ADDRESS_FIRST.match(field.head, field.at)
    if OPTION.match(field.head, field.at) and field.literal:
        address = field.literal
    elif first and first[0].endswith("="):
        address = first[1]
    else:
        return None
    if field.program in ("first", "last"):
        return Malformed("two readings") if "(Exim " in field.tail and not field.line else None
    return _hop(address, _helo_option(field))


def _helo_option(field: _Field) -> str:
    """HELO as Exim shows it: up to the ident, which it puts last; the name or address itself where
    it is the same."""
    match = HELO_OPTION.search(field.head, field.at)
    return IDENT_OPTION.sub("", match[1].removesuffix(")")) if match else field.name


def _literal_alone(field: _Field) -> Found:
    """Exim where HELO is the client's own address; CommuniGate, which begins with nothing else in
    brackets."""
    if not field.literal:
        return None
    if field.program == "exim" and field.at >= len(field.head):
        return _hop(field.literal, field.name)
    if field.program == "communigate":
        first = ADDRESS_FIRST.match(field.head, field.at)
        if first:  # HELO was this literal
            return _hop(first[1], field.name)
        inner = re.match(r"\((?:account \S+ )?HELO ([^()]*)\)", field.head[field.at :])
        return _hop(field.literal, inner[1] if inner else field.name)
    return None


def _behind_helo(field: _Field) -> Found:
    """`NAME (HELO HELO) (ADDRESS)`, and `[ADDRESS] (HELO HELO)`, `[ADDRESS] (account USER HELO
    HELO)`."""
    comments, end = _comments(field.head, field.at)
    if not comments or not field.tail:
        return None
    named = HELO.match(comments[0])
    helo = comments[0][5:].strip(" )") if named else ""
    if named and len(comments) > 1:
        shapes = [BARE.fullmatch(comment) or NAMED.fullmatch(comment) for comment in comments[1:]]
        named_there = {_address(shape[shape.lastindex or 1]) for shape in shapes if shape}
        if not shapes[0] or len(named_there) > 1 or end < len(field.head):
            return Malformed("several addresses" if len(named_there) > 1 else "no address")
        return _hop(shapes[0][shapes[0].lastindex or 1], helo)
    if not field.literal or field.program in ("first", "last"):
        return None
    if named:
        beside = LITERAL.fullmatch(helo)
        # A client whose address has the name "helo" looks like that too: nobody can tell.
        return (
            Malformed("two readings")
            if beside and beside[1] != field.literal
            else _hop(field.literal, helo)
        )
    account = re.fullmatch(
        r"\(account .* (?:HELO|EHLO) (\S*)\)|\(account .* verified\)", comments[0]
    )
    return _hop(field.literal, account[1] or field.name) if account else None


def _in_the_comment(field: _Field) -> Found:
    """The address that ends the comment behind HELO, or begins it."""
    if not field.tail:
        return None
    first = ADDRESS_FIRST.match(field.head, field.at)
    shapes = (
        first and not first[0].endswith("=") and first,
        *(pattern.match(field.head, field.at) for pattern in (NAMED, BARE, VERIFIED)),
    )
    found = next((shape for shape in shapes if shape), None)
    if not found:
        return None
    hop = _hop(found[found.lastindex or 1], field.name)
    if field.program or isinstance(hop, Malformed):
        return hop
    return hop if _is_alone(hop, field) else Malformed("several addresses")


def _is_alone(hop: Hop, field: _Field) -> bool:
    """Whether nothing else before `by` has an address in a server's form: a server may have copied
    it out of HELO."""
    comments, end = _comments(field.head, field.at)
    for comment in comments[1:]:
        found = NAMED.fullmatch(comment) or BARE.fullmatch(comment)
        if (
            found
            and not ASIDE.match(comment)
            and _address(found[found.lastindex or 1]) != hop.address
        ):
            return False
    return end == len(field.head)


READERS: tuple[Callable[[_Field], Found], ...] = (
    _last_on_line,
    _option_behind,
    _literal_alone,
    _behind_helo,
    _in_the_comment,
)


def _hop(address: str, helo: str) -> Hop | Malformed:
    found = _address(address)
    return Hop(found, helo[:MAX_HELO]) if found else Malformed("not an address")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address with or without `IPv6:` and scope, or of IPv4 with a port (Momentum); None if it
    is none."""
    port = IPV4_PORT.fullmatch(text)
    return parse_address(port[1] if port else text)
