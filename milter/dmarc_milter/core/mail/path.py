"""SMTP paths: MAIL FROM's and RCPT TO's arguments (RFC 5321 4.1.2)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from dmarc_milter.core.mail.domain import Domain, Malformed, parse
from dmarc_milter.core.quick_dataclass import quick_dataclass

MAX_PATH = 4096
"""Bytes of a path that are looked at; RFC 5321 4.5.3.1.3 gives it 256."""
MAX_LITERAL = len("[IPv6:ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]")
ADDRESS_V6 = re.compile(r"[0-9A-Fa-f:.]+")
"""No zone: it means nothing beyond its host (RFC 4007 11.2)."""


@quick_dataclass(frozen=True, slots=True)
class ReversePath:
    """MAIL FROM (RFC 5321 4.1.2). Null: both parts empty/None and `malformed` empty.

    `local_part` is the text as given (unquoted form kept as is; undecodable bytes as surrogate
    escapes), "" when missing. `domain` is None when null, missing, an address literal or not a
    domain name; `malformed` then says why.
    """

    local_part: str = ""
    domain: Domain | None = None
    malformed: str = ""
    literal: str = ""
    """The address literal that stands in the domain's place, in canonical form; "" for none."""

    @property
    def is_null(self) -> bool:
        return self.domain is None and not self.malformed


class NotStrict(Exception):
    """Inside core/mail only: the text left the grammar, for this reason of the fixed vocabulary."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def reverse_path(argument: bytes) -> ReversePath:
    """MAIL FROM's argument, with or without angle brackets. Source routes are ignored (RFC 5321
    appendix C)."""
    try:
        local_part, domain = _split_path(argument)
    except NotStrict as error:
        return ReversePath("", None, error.reason)
    if not local_part and not domain:
        return ReversePath()
    text = local_part.decode("utf-8", "surrogateescape")
    found = parse(domain)
    return (
        ReversePath(text, None, found.reason, address_literal(domain))
        if isinstance(found, Malformed)
        else ReversePath(text, found)
    )


def address_literal(text: str | bytes) -> str:
    """An address literal (RFC 5321 4.1.3) in canonical form: `[192.0.2.1]`, or `[IPv6:2001:db8::1]`
    as RFC 5952 writes it; an IPv4-mapped address is IPv4. "" for anything else. Never raises."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if len(text) > MAX_LITERAL or not (text.startswith("[") and text.endswith("]")):
        return ""
    inner = text[1:-1]
    try:
        if inner[:5].lower() != "ipv6:":
            return f"[{IPv4Address(inner)}]"
        if not ADDRESS_V6.fullmatch(inner[5:]):
            return ""
        address = IPv6Address(inner[5:])
    except ValueError:
        return ""
    return f"[{address.ipv4_mapped}]" if address.ipv4_mapped else f"[IPv6:{address}]"


ROUTING = frozenset(b"%!@")
"""In an unquoted or quoted local part these may send the mail on to another domain (sendmail's and
Postfix's old habits)."""

QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
SPECIAL = re.compile(rb"[<>()\[\],:;\\\s]")
"""Outside quotation marks these cannot stand in a local part (RFC 5321 4.1.2), and Sendmail cuts at
some of them."""


def recipient_domain(argument: bytes) -> Domain | Malformed:
    """The domain that a RCPT TO argument's mail surely goes to. Malformed too for a source route,
    for `user%other@domain`, and where the local part could be cut."""
    if argument.lstrip(b" \t<").startswith(b"@"):
        return Malformed("source route")
    try:
        local, domain = _split_path(argument)
    except NotStrict as error:
        return Malformed(error.reason)
    if ROUTING.intersection(local) or SPECIAL.search(QUOTED.sub(b"", local)):
        return Malformed("routing in the local part")
    return parse(domain)


CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
# Either one byte outside quotes, or a whole quoted-string. Possessive, so a missing end quote
# costs one scan and then fails.
PATH_PIECE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[^"]', re.DOTALL)


def _split_path(argument: bytes) -> tuple[bytes, bytes]:
    """Local part, which may be missing (RFC 7208 4.3), and domain around the last unquoted @; both
    empty for the null path.

    Raises NotStrict.
    """
    if len(argument) > MAX_PATH:
        raise NotStrict("path too long")
    path = argument.strip(b" \t\r\n")
    if path.startswith(b"<") != path.endswith(b">"):
        raise NotStrict("unbalanced angle brackets")
    if path.startswith(b"<"):
        path = path[1:-1].strip(b" ")
    if not path:
        return b"", b""
    if CONTROL.search(path):
        raise NotStrict("control character")
    if path.startswith(b"@"):
        # A-d-l ":" : the route is accepted and ignored (RFC 5321 4.1.1.3, appendix C)
        _, colon, mailbox = path.partition(b":")
        path = mailbox if colon else path
    at = _last_unquoted_at(path)
    if at < 0:
        raise NotStrict("no domain")
    if path == b"@" or (at > 0 and path.startswith(b"@")):
        raise NotStrict("no mailbox")
    return path[:at], path[at + 1 :]


def _last_unquoted_at(path: bytes) -> int:
    """Where the last @ outside quoted strings stands; -1 if nowhere. Raises NotStrict when a quote
    is left open."""
    if b'"' not in path:
        return path.rfind(b"@")
    position, found = 0, -1
    while position < len(path):
        piece = PATH_PIECE.match(path, position)
        if piece is None:
            raise NotStrict("open quotation")
        if piece.group() == b"@":
            found = position
        position = piece.end()
    return found
