"""The DMARC policy record: RFC 9989 4.7, 4.8, and the RFC 7489 tags that published records still
use."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.domain import parse as parse_domain
from dmarc_milter.core.text import visible

MAX_RECORD = 4096
"""Bytes; a longer record is ignored as syntactically bad (docs/design.md, Decisions)."""
MAX_URIS = 10
"""Addresses kept of rua and of ruf (SECURITY.md, Limits)."""
WSP = b" \t"
Value = TypeVar("Value")


class Policy(StrEnum):
    """p=, sp=, np=. Ordered by strictness through `strictness`."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"

    @property
    def strictness(self) -> int:
        return ("none", "quarantine", "reject").index(self.value)


class AlignmentMode(StrEnum):
    RELAXED = "r"
    STRICT = "s"


class ReportUri(NamedTuple):
    """One address of rua= or ruf=: only mailto, percent-decoded, dot-atom@domain (RFC 7489 6.2,
    docs/attacks.md RPT-03)."""

    address: str
    max_size: int | None = None
    """Bytes (!size of RFC 7489); None is no limit."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record that starts with v=DMARC1. None for p, sp, np: absent or not valid (`errors` tells
    which)."""

    text: str
    """The record as published, printable ASCII (other bytes as ?), at most 4 KiB."""
    p: Policy | None = None
    sp: Policy | None = None
    np: Policy | None = None
    adkim: AlignmentMode = AlignmentMode.RELAXED
    aspf: AlignmentMode = AlignmentMode.RELAXED
    testing: bool | None = None
    """t=; None when absent."""
    psd: str = "u"
    pct: int | None = None
    """None when absent or not valid."""
    fo: str = "0"
    rua: tuple[ReportUri, ...] = ()
    ruf: tuple[ReportUri, ...] = ()
    rua_valid: bool = False
    """rua has at least one syntactically valid URI, of whatever scheme (RFC 9989 4.10.1)."""
    ri: int | None = None
    invalid_policy: bool = False
    """A valid p is missing, or sp or np is there and not valid: RFC 9989 4.10.1 (none if rua has a
    valid URI, else no DMARC)."""
    errors: tuple[str, ...] = field(default=())
    """What is wrong with it, in a fixed vocabulary; for reports' error element and `domain`."""

    @property
    def applies(self) -> bool:
        """Whether there is a policy in it at all: without a valid p, or with a bad sp or np, only
        if rua is (RFC 9989 4.10.1)."""
        return self.rua_valid or not self.invalid_policy

    def __str__(self) -> str:
        """The record in canonical form: known tags that are not at their default. `parse` of it
        gives this record again."""
        tags = {
            "p": self.p,
            "sp": self.sp,
            "np": self.np,
            "adkim": self.adkim if self.adkim is AlignmentMode.STRICT else None,
            "aspf": self.aspf if self.aspf is AlignmentMode.STRICT else None,
            "t": None if self.testing is None else "ny"[self.testing],
            "psd": self.psd if self.psd != "u" else None,
            "pct": self.pct,
            "fo": self.fo if self.fo != "0" else None,
            "rua": ",".join(map(_uri_text, self.rua)) or None,
            "ruf": ",".join(map(_uri_text, self.ruf)) or None,
            "ri": self.ri,
        }
        return "; ".join(
            ["v=DMARC1", *(f"{name}={value}" for name, value in tags.items() if value is not None)]
        )


@lru_cache(maxsize=1024)
def parse(text: bytes) -> Record | None:
    """The record in one TXT record's text, or None if it is not a DMARC record (RFC 9989 4.7, 4.8)
    or longer than MAX_RECORD.

    `v` comes first and is DMARC1 exactly; tag names and all other values are case-insensitive; WSP
    may surround `=` and `;`. Unknown tags are ignored, bad values of known ones are as if absent:
    they never switch a policy off (RFC 7489 6.4, RFC 9989 4.7). Never raises.
    """
    if len(text) > MAX_RECORD:
        return None
    # dmarc-record = dmarc-version *(dmarc-sep dmarc-tag) [dmarc-sep] *WSP          RFC 9989 4.8
    # dmarc-version = "v" *WSP "=" *WSP %s"DMARC1"      dmarc-sep = *WSP ";" *WSP
    version, *items = text.split(b";")
    name, _, value = version.partition(b"=")
    if name.rstrip(WSP).lower() != b"v" or value.strip(WSP) != b"DMARC1":
        return None
    reading = _Reading(_tags(items))
    p, sp, np = (reading.policy(tag) for tag in ("p", "sp", "np"))
    if "p" not in reading.tags:
        reading.errors.append("p: missing")
    rua, rua_valid = reading.uris("rua")
    ruf, _ = reading.uris("ruf")
    return Record(
        text=visible(text),
        p=p,
        sp=sp,
        np=np,
        adkim=reading.value("adkim", AlignmentMode) or AlignmentMode.RELAXED,
        aspf=reading.value("aspf", AlignmentMode) or AlignmentMode.RELAXED,
        testing=reading.value("t", _yes_or_no),
        psd=reading.value("psd", _psd) or "u",
        pct=reading.value("pct", _percentage),
        fo=reading.value("fo", _failure_options) or "0",
        rua=rua,
        ruf=ruf,
        rua_valid=rua_valid,
        ri=reading.value("ri", _uint32),
        invalid_policy=p is None
        or any(tag in reading.tags and value is None for tag, value in (("sp", sp), ("np", np))),
        errors=tuple(dict.fromkeys(reading.errors)),
    )


KNOWN = frozenset(
    {"p", "sp", "np", "adkim", "aspf", "t", "psd", "pct", "fo", "rua", "ruf", "ri", "rf", "v"}
)
LISTS = frozenset({"rua", "ruf"})
"""Tags whose items are judged one by one: bytes that no URI has spoil theirs alone (RFC 9989
4.8)."""


def _tags(items: list[bytes]) -> list[tuple[str, bytes | None]]:
    """(name in lower case, value without surrounding WSP) of each item; value None where `=` is
    missing. Empty items are dropped."""
    found: list[tuple[str, bytes | None]] = []
    for item in items:
        name, equals, value = item.partition(b"=")
        if stripped := name.strip(WSP):
            found.append((stripped.decode("latin-1").lower(), value.strip(WSP) if equals else None))
        elif equals:
            found.append(("", value))
    return found


TAG_NAME = re.compile(r"[a-z0-9_]{1,20}")
"""What a name must be to be repeated in an error, which reports print."""


def _named(name: str, problem: str) -> str:
    return f"{name}: {problem}" if TAG_NAME.fullmatch(name) else problem


class _Reading:
    """The tags of one record while their values are read; collects what is wrong with them."""

    def __init__(self, tags: list[tuple[str, bytes | None]]) -> None:
        self.tags: dict[str, str | None] = {}
        """Known tags; None for a value that no tag can have: repeated (docs/design.md, Decisions),
        control or non-ASCII bytes."""
        self.errors: list[str] = []
        for name, value in tags:
            if value is None:
                self.errors.append(_named(name, "tag without value"))
            elif name not in KNOWN:
                self.errors.append(_named(name, "unknown tag"))
            elif name in self.tags or name == "v":
                self.errors.append(f"{name}: repeated")
                self.tags[name] = None
            elif name not in LISTS and not all(
                0x20 <= octet < 0x7F or octet == 0x09 for octet in value
            ):
                self.errors.append(f"{name}: not printable ASCII")
                self.tags[name] = None
            else:
                self.tags[name] = value.decode("latin-1")

    def value(self, name: str, read: Callable[[str], Value]) -> Value | None:
        """The tag's value in lower case through `read`, which raises ValueError; None when absent
        or not valid."""
        text = self.tags.get(name)
        if text is None:
            return None
        try:
            return read(text.lower())
        except ValueError:
            self.errors.append(f"{name}: not valid")
            return None

    def policy(self, name: str) -> Policy | None:
        return self.value(name, Policy)

    def uris(self, name: str) -> tuple[tuple[ReportUri, ...], bool]:
        """The addresses of rua or ruf, at most MAX_URIS, each once; and whether any URI was
        syntactically valid."""
        text = self.tags.get(name)
        if text is None:
            return (), False
        found: dict[str, ReportUri] = {}
        valid = False
        for item in text.split(","):
            uri = report_uri(item.strip(" \t"))
            if isinstance(uri, ReportUri):
                found.setdefault(uri.address, uri)
                valid = True
            else:
                self.errors.append(f"{name}: {uri}")
                valid = valid or uri == OTHER_SCHEME
            if len(found) > MAX_URIS:
                self.errors.append(f"{name}: more than {MAX_URIS} addresses")
                break
        return tuple(found.values())[:MAX_URIS], valid


def _yes_or_no(text: str) -> bool:
    if text not in ("y", "n"):
        raise ValueError
    return text == "y"


def _psd(text: str) -> str:
    if text not in ("y", "n", "u"):
        raise ValueError
    return text


def _number(text: str, digits: int, most: int) -> int:
    """1*DIGIT with at most `digits` digits and not above `most` (int() alone would take "+1", "1_0"
    and any script's digits)."""
    if (
        not (0 < len(text) <= digits and all("0" <= char <= "9" for char in text))
        or int(text) > most
    ):
        raise ValueError
    return int(text)


def _percentage(text: str) -> int:
    return _number(text, 3, 100)


def _uint32(text: str) -> int:
    return _number(text, 10, 2**32 - 1)


def _failure_options(text: str) -> str:
    """fo: at most one of 0 and 1, d and s at most once each, in any order (RFC 9989 4.8)."""
    options = [option.strip(" \t") for option in text.split(":")]
    if (
        len(set(options)) != len(options)
        or not set(options) <= set("01ds")
        or {"0", "1"} <= set(options)
    ):
        raise ValueError
    return ":".join(options)


# dmarc-uri = URI [ "!" 1*DIGIT [ "k" / "m" / "g" / "t" ] ] RFC 7489 6.4 A literal "," or "!" inside
# the URI is percent-encoded.
OTHER_SCHEME = "scheme not supported"
MALFORMED_URI = "URI not valid"
MALFORMED_ADDRESS = "address not valid"
UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
SIZE = re.compile(r"([0-9]{1,20})([kmgt]?)", re.IGNORECASE)
URI_CHARACTERS = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@$&'()*+;=-]|%[0-9A-Fa-f]{2})+")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
ATOM_TEXT = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+")


def report_uri(text: str) -> ReportUri | str:
    """One DMARC URI, or what is wrong with it."""
    uri, bang, size = text.rpartition("!")
    matched = SIZE.fullmatch(size) if bang else None
    if not bang:
        uri = text
    elif not matched:
        return MALFORMED_URI
    scheme, colon, rest = uri.partition(":")
    if not colon or not SCHEME.fullmatch(scheme) or not URI_CHARACTERS.fullmatch(rest):
        return MALFORMED_URI
    if scheme.lower() != "mailto":
        return OTHER_SCHEME
    address = _address(rest.partition("?")[0])
    if address is None:
        return MALFORMED_ADDRESS
    octets = int(matched[1]) << UNITS[matched[2].lower()] if matched else None
    return ReportUri(address, octets if octets is None or octets < 2**64 else None)


def _address(encoded: str) -> str | None:
    """The mailbox of a mailto URI: percent-decoded, then dot-atom@domain and nothing else
    (docs/attacks.md RPT-03)."""
    if any(char in encoded for char in "/#[]"):  # RFC 6068 2: only percent-encoded there
        return None
    decoded = unquote_to_bytes(encoded).decode("latin-1")
    local_part, at, name = decoded.rpartition("@")
    if (
        not at
        or not 0 < len(local_part) <= 64
        or not all(ATOM_TEXT.fullmatch(atom) for atom in local_part.split("."))
    ):
        return None
    domain = parse_domain(name) if name.isascii() else None
    if not isinstance(domain, Domain) or name.endswith("."):
        return None
    return f"{local_part}@{domain}" if "." in domain.name and "_" not in domain.name else None


def _uri_text(uri: ReportUri) -> str:
    """The URI as a record spells it, with every character encoded that means something there."""
    local_part, _, name = uri.address.rpartition("@")
    encoded = "".join(
        char if char.isalnum() or char in "._~+-$'*" else f"%{ord(char):02X}" for char in local_part
    )
    return f"mailto:{encoded}@{name}" + ("" if uri.max_size is None else f"!{uri.max_size}")
