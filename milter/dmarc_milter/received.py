"""The client that handed a message to one of our own relays, from the Received fields those relays wrote (RFC 5321 4.4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from dmarc_milter.domain import Malformed

MAX_FIELD = 8192
MAX_HOPS = 50
MAX_HELO = 255
"""Octets of a HELO name that are kept (RFC 5321 4.5.3.1.2)."""

Network = IPv4Network | IPv6Network

# A word, or one parenthesis, outside comments; possessive and disjoint, so linear.
PIECE = re.compile(r"[ \t\r\n]++|[()]|(?:[^ \t\r\n()\\]|\\.)++|\\", re.DOTALL)
REST_PIECE = re.compile(r'"(?:[^"\\]|\\.)*+"|[()]|(?:[^ \t\r\n()"\\]|\\.)++', re.DOTALL)
# The address that the server itself wrote; Exim may add the port.
LITERAL = re.compile(r"\[([0-9A-Za-z:.%]{2,64})\](?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Hop:
    """One client as a server saw it. IPv4-mapped addresses are IPv4. `helo` as given, undecodable octets as surrogate escapes."""

    address: IPv4Address | IPv6Address
    helo: str


def original_client(received: Sequence[bytes], trusted: Sequence[Network]) -> Hop | None:
    """The client of the topmost Received field that names an address outside `trusted`; None if one above it is unreadable.

    Below that field everything is the sender's own writing, so nothing below it is read.
    """
    for value in received[:MAX_HOPS]:
        hop = parse(value)
        if isinstance(hop, Malformed):
            return None
        if not any(hop.address in network for network in trusted):
            return hop
    return None


def parse(value: bytes) -> Hop | Malformed:
    """The client's address and HELO name in one Received field, as Postfix, Sendmail, Exim, Exchange or qmail write it. Never raises.

        from HELO (NAME [ADDRESS]) by             Postfix, Sendmail and most others
        from NAME ([ADDRESS] helo=HELO) by        Exim; without helo= when it is NAME
        from [ADDRESS] (helo=HELO) by             Exim, no name found; with (HELO HELO) CommuniGate
        from HELO (ADDRESS) by                    Exchange; qmail when HELO is the name
        from NAME (HELO HELO) (ADDRESS) by        qmail, also (USER@ADDRESS)

    HELO is the sender's: an address there counts only in the form where the server wrote it. Two different addresses where one
    should be, a second `from` or `by`, or anything else is malformed.
    """
    if len(value) > MAX_FIELD:
        return Malformed("too long")
    words, comments, rest = _from_clause(value.decode("utf-8", "surrogateescape"))
    # The second word is the client's own and may be any word, these included.
    if [word.lower() for word in words[::2]] != ["from", "by"] or _has_another_clause(rest):
        return Malformed("no from clause")
    client = _Client(words[1])
    for comment in comments:
        client.read(comment)
    return client.hop()


def _from_clause(text: str) -> tuple[list[str], list[list[str]], str]:
    """The first three words outside comments, the words of each comment between the last two, and the rest of the field.

    Comments inside comments are dropped. No words when a parenthesis does not match.
    """
    words: list[str] = []
    comments: list[list[str]] = []
    depth = 0
    for match in PIECE.finditer(text):
        piece = match[0]
        if piece == "(":
            depth += 1
            if depth == 1 and len(words) == 2:
                comments.append([])
        elif piece == ")":
            depth -= 1
            if depth < 0:
                break
        elif piece[0] in " \t\r\n":
            continue
        elif depth == 1 and len(words) == 2:
            comments[-1].append(piece)
        elif depth == 0:
            words.append(piece)
            if len(words) == 3:
                return words, comments, text[match.end() :]
    return [], [], ""


def _has_another_clause(rest: str) -> bool:
    """Whether a second `from` or `by` follows, which only a server that copies spaces out of HELO would write.

    Recipients stand here too, so quoted-strings are skipped and parentheses need not match: they must not make a field unreadable.
    """
    depth = 0
    for match in REST_PIECE.finditer(rest):
        piece = match[0]
        if depth == 0 and piece.lower() in ("from", "by"):
            return True
        if depth == 0 and piece.endswith(";"):
            return False
        depth = max(0, depth + (piece == "(") - (piece == ")"))
    return False


class _Client:
    """What the words before `by` say of the client."""

    __slots__ = ("addresses", "beside_helo", "helo", "helo_is_named", "name")

    def __init__(self, name: str) -> None:
        self.name = self.helo = name
        self.helo_is_named = False
        self.addresses: set[IPv4Address | IPv6Address | None] = set()
        self.beside_helo: set[IPv4Address | IPv6Address | None] = set()

    def read(self, comment: list[str]) -> None:
        """One comment after the client's name."""
        if len(comment) >= 2 and comment[-2].upper() in ("HELO", "EHLO"):
            if len(comment) == 2 and (literal := LITERAL.fullmatch(comment[1])):
                self.beside_helo.add(_address(literal[1]))
            self._named(comment[-1])
            return
        for word in comment:
            key, equals, given = word.partition("=")
            if equals and key.lower() in ("helo", "ident"):
                if key.lower() == "helo":
                    self._named(given)
            elif word.startswith("["):
                found = LITERAL.fullmatch(word)
                self.addresses.add(_address(found[1]) if found else None)
        if len(comment) == 1 and (bare := _address(comment[0].rpartition("@")[2])):
            self.addresses.add(bare)

    def _named(self, helo: str) -> None:
        self.helo, self.helo_is_named = helo, True

    def hop(self) -> Hop | Malformed:
        if not self.addresses and self.helo_is_named:
            literal = LITERAL.fullmatch(self.name)
            self.addresses = {_address(literal[1])} if literal else set()
            # A client whose address has the name "helo" looks like that as well: then it is no HELO, or nobody can tell.
            if self.beside_helo:
                self.addresses |= self.beside_helo
                self.helo = self.name
        if len(self.addresses) != 1:
            return Malformed("several addresses" if self.addresses else "no address")
        (address,) = self.addresses
        if address is None:
            return Malformed("not an address")
        return Hop(address, self.helo[:MAX_HELO])


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address with or without `IPv6:` and scope; None if it is none."""
    bare = text.partition("%")[0]
    if bare[:5].lower() == "ipv6:":
        bare = bare[5:]
    try:
        found = ip_address(bare)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
