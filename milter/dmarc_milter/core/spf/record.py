"""An SPF record as text (RFC 7208 4.5, 4.6, 7.1, 12): selected among TXT records and checked whole,
in linear time.

Nothing is looked up or evaluated here. The check comes before any other code sees the record, so
that what follows may trust its size, its characters, its numbers and its macros.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, NamedTuple

from dmarc_milter.core.mail.domain import Malformed, is_special_use

VERSION = b"v=spf1"
RECORDS_KEPT = 512
"""How many parsed records are kept, for speed; each at most 4 KiB of text."""
PRINTABLE = bytes(range(0x20, 0x7F))
MAX_MACRO_DIGITS = 9
"""RFC 7208 7.3 asks for 0 to 127 at least; nothing has more labels than that, and longer numbers
are only an attack."""

QUALIFIERS: dict[str, Literal["pass", "fail", "softfail", "neutral"]] = {
    "+": "pass",
    "-": "fail",
    "~": "softfail",
    "?": "neutral",
}
LOOKS_UP = frozenset({"include", "a", "mx", "ptr", "exists"})
"""Mechanisms that count against the ten (RFC 7208 4.6.4)."""
MACRO_LETTERS = frozenset("slodiphv")
"""Allowed in a domain-spec; c, r and t are for explanations alone (RFC 7208 7.2)."""

TOPLABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
DIGITS = frozenset("0123456789")

# name = ALPHA *( ALPHA / DIGIT / "-" / "_" / "." )                                   RFC 7208 12
MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)

# macro-expand = ( "%{" macro-letter transformers *delimiter "}" ) / "%%" / "%_" / "%-";
# transformers = *DIGIT [ "r" ] macro-literal = %x21-24 / %x26-7E The alternatives differ in their
# first two characters, the parts in their classes.
TOKEN = re.compile(r"%(?:\{([A-Za-z])([0-9]*)([rR]?)([-.+,/_=]*)\}|([%_-]))|[^%]+")
ESCAPES = {"%": "%", "_": " ", "-": "%20"}


class BadRecord(ValueError):
    """A syntax error on the way through a record; the text is from a fixed vocabulary. Never leaves
    this module."""


class SpfMacro(NamedTuple):
    """%{letter transformers delimiters}."""

    letter: str
    """Lower case."""
    transformers: str
    """Digits, r, delimiters, as `2r-`."""
    escaped: bool
    """The letter was upper case: the expansion is URL-escaped (RFC 7208 7.3)."""


Token = str | SpfMacro

MAX_EXPANDED = 253
"""Bytes of an expanded domain-spec; labels are dropped from the left beyond (RFC 7208 7.3)."""


@dataclass(frozen=True, slots=True)
class Directive:
    """One mechanism with its qualifier, valid by its ABNF."""

    text: str
    """As published."""
    result: Literal["pass", "fail", "softfail", "neutral"]
    """What a match gives."""
    mechanism: str
    target: str = ""
    """The domain-spec, unexpanded; "" is the current domain (or none: all, ip4, ip6)."""
    network: IPv4Network | IPv6Network | None = None
    prefix4: int = 32
    prefix6: int = 128

    @property
    def plain(self) -> str:
        """The mechanism alone, its name in lower case, without qualifier; the implied domain is
        written out."""
        if self.mechanism in ("ip4", "ip6", "all"):
            return self.text.lstrip("+-~?").lower()
        target = f":{self.target or '%{d}'}"
        if self.mechanism in ("a", "mx"):
            return f"{self.mechanism}{target}/{self.prefix4}//{self.prefix6}"
        return self.mechanism + target


@dataclass(frozen=True, slots=True)
class SpfRecord:
    """A valid record. What cannot be reached is gone: terms after `all`, and redirect= beside it
    (RFC 7208 5.1, 6.1)."""

    directives: tuple[Directive, ...]
    redirect: str = ""
    """The domain-spec, unexpanded."""


def select(texts: Iterable[bytes]) -> tuple[bytes, ...]:
    """The TXT records that are SPF records (RFC 7208 4.5): v=spf1 in any case, then a space or the
    end."""
    return tuple(text for text in texts if text[:6].lower() == VERSION and text[6:7] in (b"", b" "))


@lru_cache(maxsize=RECORDS_KEPT)
def parse(text: bytes, max_term: int) -> SpfRecord | Malformed:
    """A record that `select` chose, with every term checked before any is evaluated (RFC 7208 4.6);
    `max_term` in octets."""
    try:
        return _record(text, max_term)
    except BadRecord as bad:
        return Malformed(str(bad))


def tokens(spec: str) -> tuple[Token, ...]:
    """The literal parts and macros of a macro-string, escapes done; raises BadRecord. Linear."""
    found: list[Token] = []
    for match in _scan(spec):
        letter, digits, reverse, delimiters, escape = match.groups()
        if letter:
            found.append(_macro(letter, digits, reverse + delimiters))
        else:
            found.append(ESCAPES[escape] if escape else match.group())
    return tuple(found)


def _scan(spec: str) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(spec):
        match = TOKEN.match(spec, at)
        if match is None:
            raise BadRecord("macro not valid")
        yield match
        at = match.end()


def _macro(letter: str, digits: str, rest: str) -> SpfMacro:
    if letter.lower() not in MACRO_LETTERS:
        raise BadRecord("macro letter not allowed here")
    # A DIGIT must be nonzero (RFC 7208 7.3).
    if digits and (len(digits) > MAX_MACRO_DIGITS or not digits.strip("0")):
        raise BadRecord("macro digits out of range")
    return SpfMacro(letter.lower(), digits + rest.lower(), letter.isupper())


def _record(text: bytes, max_term: int) -> SpfRecord:
    if text.translate(None, PRINTABLE):
        raise BadRecord("character outside printable ASCII")
    directives: list[Directive] = []
    modifiers: dict[str, str] = {}
    for term in text.decode("ascii")[len(VERSION) :].split(" "):
        if len(term) > max_term:
            raise BadRecord("term too long")
        if modifier := MODIFIER.fullmatch(term):
            _add_modifier(modifiers, modifier.group(1).lower(), modifier.group(2))
        elif term:
            directives.append(_directive(term))
    for position, directive in enumerate(directives):
        if directive.mechanism == "all":
            return SpfRecord(tuple(directives[: position + 1]))
    return SpfRecord(tuple(directives), modifiers.get("redirect", ""))


def _add_modifier(modifiers: dict[str, str], name: str, value: str) -> None:
    """redirect= and exp= at most once (RFC 7208 6); unknown ones any number of times, with valid
    macros."""
    if name not in ("redirect", "exp"):
        tokens(value)
        return
    if name in modifiers:
        raise BadRecord(f"{name}= appears twice")
    modifiers[name] = _domain_spec(value)


def _directive(term: str) -> Directive:
    qualifier, rest = (term[0], term[1:]) if term[0] in QUALIFIERS else ("+", term)
    end = min((at for at in (rest.find(":"), rest.find("/")) if at >= 0), default=len(rest))
    name, rest = rest[:end].lower(), rest[end:]
    result = QUALIFIERS[qualifier]
    match name:
        case "all" if not rest:
            return Directive(term, result, name)
        case "include" | "exists" if rest.startswith(":"):
            return Directive(term, result, name, _domain_spec(rest[1:]))
        case "ptr" if not rest or rest.startswith(":"):
            return Directive(term, result, name, _domain_spec(rest[1:]) if rest else "")
        case "a" | "mx":
            target, prefix4, prefix6 = _dual_cidr(rest)
            return Directive(term, result, name, target, None, prefix4, prefix6)
        case "ip4" | "ip6" if rest.startswith(":"):
            return Directive(term, result, name, "", _network(name, rest[1:]))
    raise BadRecord("mechanism unknown or out of form")


def _dual_cidr(rest: str) -> tuple[str, int, int]:
    """[ ":" domain-spec ] [ ip4-cidr-length ] [ "/" ip6-cidr-length ]: read from the right, since a
    domain-spec may hold slashes."""
    prefix4, prefix6 = 32, 128
    head, slashes, digits = rest.rpartition("//")
    if slashes and digits and DIGITS.issuperset(digits):
        rest, prefix6 = head, _prefix(digits, 128)
    head, slashes, digits = rest.rpartition("/")
    if slashes and digits and DIGITS.issuperset(digits):
        rest, prefix4 = head, _prefix(digits, 32)
    if not rest:
        return "", prefix4, prefix6
    if not rest.startswith(":"):
        raise BadRecord("mechanism unknown or out of form")
    return _domain_spec(rest[1:]), prefix4, prefix6


def _prefix(digits: str, most: int) -> int:
    """ "0" / %x31-39 0*2DIGIT, in range."""
    if (
        not 1 <= len(digits) <= 3
        or not DIGITS.issuperset(digits)
        or (digits[0] == "0" and digits != "0")
        or int(digits) > most
    ):
        raise BadRecord("prefix length not valid")
    return int(digits)


def _network(name: str, text: str) -> IPv4Network | IPv6Network:
    address, slash, digits = text.partition("/")
    most = 32 if name == "ip4" else 128
    prefix = _prefix(digits, most) if slash else most
    try:
        if "%" in address:  # a zone id, which ipaddress takes
            raise ValueError
        parsed = IPv4Address(address) if name == "ip4" else IPv6Address(address)
    except ValueError:
        raise BadRecord(f"{name} address not valid") from None
    network = IPv4Network if isinstance(parsed, IPv4Address) else IPv6Network
    return network((int(parsed), prefix), strict=False)


def _domain_spec(spec: str) -> str:
    """macro-string domain-end; domain-end = ( "." toplabel [ "." ] ) / macro-expand."""
    if not spec:
        raise BadRecord("domain missing")
    tokens(spec)
    *_, last = _scan(spec)
    if last.group().startswith("%"):
        return spec
    _, dot, toplabel = last.group().removesuffix(".").rpartition(".")
    # toplabel = LDH, alphanumeric at both ends, not digits alone
    if (
        not dot
        or not TOPLABEL.fullmatch(toplabel)
        or toplabel[-1] == "-"
        or DIGITS.issuperset(toplabel)
    ):
        raise BadRecord("domain does not end in a top-level label")
    return spec


def is_askable(name: str) -> bool:
    """Printable ASCII (RFC 7208 7.1 allows %_, a space), labels of 1 to 63 octets, 253 in all; none
    of the special-use names."""
    fits = (
        len(name) <= MAX_EXPANDED
        and name.isascii()
        and name.isprintable()
        and all(0 < len(label) <= 63 for label in name.split("."))
    )
    return fits and not is_special_use(name.lower())


def is_multi_label(name: str) -> bool:
    """RFC 7208 4.3: a name of at least two labels, well formed."""
    return "." in name and is_askable(name)
