"""A DKIM-Signature field as a value (RFC 6376 3.5), and the reader of tags that ARC's fields
share."""

from __future__ import annotations

from dataclasses import field
from functools import lru_cache
from typing import Literal, NamedTuple

from dmarc_milter.core.dkim import tags
from dmarc_milter.core.dkim.options import DkimOptions
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain, Malformed
from dmarc_milter.core.mail.message import BodyHash
from dmarc_milter.core.quick_dataclass import quick_dataclass

ALGORITHMS = (b"rsa-sha256", b"ed25519-sha256", b"rsa-sha1")
MODES: dict[bytes, Literal["simple", "relaxed"]] = {b"simple": "simple", b"relaxed": "relaxed"}
HEADER_NAME = bytes(octet for octet in range(0x21, 0x7F) if octet not in b":;")
MAX_TIME = 10**12
"""RFC 6376 3.5, t= and x=: a longer number may be taken for infinity."""
MAX_DIGITS = 76
CONSTANT = (b"v", b"a", b"d", b"s", b"h", b"i", b"c", b"q")
"""The tags that a signer writes the same in all of its mail."""
MAX_REMEMBERED = 512
"""Bytes of their values up to which what they say is remembered."""


@quick_dataclass(frozen=True, slots=True)
class Signature:
    """What a signature field says, as far as it could be read; `error` is the reason of its
    permerror, "" when there is none."""

    error: str = ""
    domain: Domain | None = None
    selector: str = ""
    algorithm: str = ""
    text: str = ""
    """b= without white space."""
    octets: bytes = field(default=b"", repr=False)
    """b= decoded."""
    unsigned: bytes = field(default=b"", repr=False)
    """The field's value with b= emptied: what is hashed (RFC 6376 3.7)."""
    identifier: Domain | None = None
    """The domain of i=, or d=."""
    identifier_given: bool = False
    body_hash: bytes = field(default=b"", repr=False)
    names: tuple[bytes, ...] = ()
    """h=, lower case, in order."""
    header_mode: Literal["simple", "relaxed"] = "simple"
    body: BodyHash = BodyHash("simple", "sha256", None)
    signed_at: int | None = None
    """Seconds since 1970."""
    expires: int | None = None

    @property
    def key_name(self) -> str:
        """Where the key stands (RFC 6376 3.6.2.1); "" when d= or s= is missing or not valid."""
        return (
            f"{self.selector}._domainkey.{self.domain.name}"
            if self.domain and self.selector
            else ""
        )


class TagReader:
    """Reads the tags of one signature field; the first thing that is wrong stands in `error`
    afterwards.

    Each method gives a harmless value after an error, so that a field with one bad tag still shows
    its d= and s=. dkimpy's validate_signature_fields is not used: it reads the clock, looks at b=
    where it means bh=, raises IndexError and ValueError on some input, takes any octets in s= and
    d=, and is quadratic in the length of a run of spaces.
    """

    def __init__(self, listed: tags.TagList, options: DkimOptions) -> None:
        self.values = listed.values
        self.options = options
        self.error = ""

    def refuse(self, reason: str) -> None:
        """Note what is wrong, unless something was already."""
        self.error = self.error or reason

    def text(self, name: bytes) -> bytes:
        """A required tag."""
        value = self.values.get(name)
        if value is None:
            self.refuse(f"{name.decode('ascii')}= missing")
        return value or b""

    def version(self) -> None:
        if self.text(b"v") != b"1":
            self.refuse("v= is not 1")

    def algorithm(self) -> str:
        value = self.text(b"a")
        if value not in ALGORITHMS:
            self.refuse("a= not known")
            return ""
        if value == b"rsa-sha1":
            self.refuse("rsa-sha1")  # RFC 8301 3.1: MUST NOT be verified
        return value.decode("ascii")

    def domain(self) -> Domain | None:
        value = self.text(b"d")
        parsed = domain.parse(value)
        # The root dot that domain.parse takes away is not part of domain-name (RFC 6376 3.5).
        if isinstance(parsed, Malformed) or value.endswith(b"."):
            self.refuse("d= is not a domain")
            return None
        return parsed

    def selector(self, signing_domain: Domain | None) -> str:
        """s=, judged as part of the whole name to be asked: sub-domain *( "." sub-domain ), RFC
        6376 3.1."""
        value = self.text(b"s")
        under = f"._domainkey.{signing_domain.name if signing_domain else 'example'}"
        parsed = domain.parse(value + under.encode("ascii"))
        if isinstance(parsed, Malformed):
            self.refuse("s= is not a selector")
            return ""
        return parsed.name.removesuffix(under)

    def base64(self, name: bytes) -> bytes:
        decoded = tags.decode_base64(self.text(name))
        if decoded is None:
            self.refuse(f"{name.decode('ascii')}= is not base64")
        return decoded or b""

    def identifier(self, signing_domain: Domain | None) -> Domain | None:
        """The domain of i=, at or below d= (RFC 6376 3.5); d= when there is no i=."""
        value = self.values.get(b"i")
        if value is None:
            return signing_domain
        _, at, host = tags.unquoted(value).rpartition(b"@")
        parsed = domain.parse(host)
        if not at or isinstance(parsed, Malformed) or host.endswith(b"."):
            self.refuse("i= is not an identifier")
            return None
        if signing_domain and not parsed.is_at_or_below(signing_domain):
            self.refuse("i= is outside d=")
        return parsed

    def names(self) -> tuple[bytes, ...]:
        """h=: names of header fields in lower case, From among them (RFC 6376 5.4, 6.1.1).

        A name left blank is passed over: some signers write one, and no field can have it.
        """
        listed = tuple(filter(None, tags.items(self.text(b"h").lower())))
        if b"".join(listed).translate(None, HEADER_NAME):
            self.refuse("h= is not a list of names")
            return ()
        if len(listed) > self.options.max_names:
            self.refuse("too many names in h=")
            return ()
        if b"from" not in listed:
            self.refuse("From not signed")
        return listed

    def modes(self) -> tuple[Literal["simple", "relaxed"], Literal["simple", "relaxed"]]:
        """c=: how the header and the body are canonicalized; one word leaves the body simple."""
        header, slash, body = self.values.get(b"c", b"simple").partition(b"/")
        body = body if slash else b"simple"
        if header not in MODES or body not in MODES:
            self.refuse("c= not known")
            return "simple", "simple"
        return MODES[header], MODES[body]

    def length(self) -> int | None:
        """l=: 1*76DIGIT octets."""
        return self._number(b"l", infinity=10**MAX_DIGITS)

    def methods(self) -> None:
        if b"dns/txt" not in tags.items(self.values.get(b"q", b"dns/txt")):
            self.refuse("q= not known")

    def times(self) -> tuple[int | None, int | None]:
        """t= and x=; an endless x= is no x=."""
        signed_at = self._number(b"t", infinity=MAX_TIME)
        expires = self._number(b"x", infinity=MAX_TIME)
        if signed_at is not None and expires is not None and expires <= signed_at:
            self.refuse("x= is not after t=")
        return signed_at, None if expires == MAX_TIME else expires

    def _number(self, name: bytes, *, infinity: int) -> int | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not value or len(value) > MAX_DIGITS or value.translate(None, tags.DIGITS):
            self.refuse(f"{name.decode('ascii')}= is not a number")
            return None
        return min(int(value), infinity)


def emptied(value: bytes, listed: tags.TagList) -> bytes:
    """The field's value without the value of b= and the white space around it (RFC 6376 3.5, b=).

    dkimpy's RE_BTAG is quadratic in folds, matches a "b=" inside z=, and leaves white space that
    follows the value.
    """
    if b"b" not in listed.spans:
        return value
    start, end = listed.spans[b"b"]
    return value[:start] + value[end:]


class Constant(NamedTuple):
    """What the tags say that a signer writes the same in all of its mail. What is wrong with them
    stands beside: of v=, a=, d= and s=, of h=, i= and c=, and of q=; "" each where nothing is."""

    algorithm: str
    domain: Domain | None
    selector: str
    names: tuple[bytes, ...]
    identifier: Domain | None
    modes: tuple[Literal["simple", "relaxed"], Literal["simple", "relaxed"]]
    errors: tuple[str, str, str]


def _read_constant(
    values: tuple[bytes | None, ...], options: DkimOptions, of_arc: bool
) -> Constant:
    """From the values of CONSTANT."""
    given = {name: value for name, value in zip(CONSTANT, values, strict=True) if value is not None}

    def reader() -> TagReader:
        return TagReader(tags.TagList(given, {}), options)

    who, what, how = reader(), reader(), reader()
    if not of_arc:
        who.version()
    algorithm = who.algorithm()
    signing_domain = who.domain()
    selector = who.selector(signing_domain)
    names = what.names()
    identifier = signing_domain if of_arc else what.identifier(signing_domain)
    modes = what.modes()
    how.methods()
    errors = who.error, what.error, how.error
    return Constant(algorithm, signing_domain, selector, names, identifier, modes, errors)


_remembered = lru_cache(maxsize=512)(_read_constant)


def _constant(listed: tags.TagList, options: DkimOptions, of_arc: bool) -> Constant:
    values = tuple([listed.values.get(name) for name in CONSTANT])
    usual = sum([len(value) for value in values if value]) <= MAX_REMEMBERED
    return (_remembered if usual else _read_constant)(values, options, of_arc)


def parse(value: bytes, options: DkimOptions = DkimOptions(), *, of_arc: bool = False) -> Signature:
    """One DKIM-Signature field from its value as received. Never raises.

    `of_arc`: an ARC-Message-Signature, which has no v= and whose i= is not an identifier (RFC 8617
    4.1.2).
    """
    if len(value) > options.max_field:
        return Signature(error="field too long")
    listed = tags.parse(value)
    if isinstance(listed, Malformed):
        return Signature(error=listed.reason)
    reader = TagReader(listed, options)
    constant = _constant(listed, options, of_arc)
    who_is_wrong, what_is_wrong, how_is_wrong = constant.errors
    reader.refuse(who_is_wrong)
    octets = reader.base64(b"b")
    body_hash = reader.base64(b"bh")
    reader.refuse(what_is_wrong)
    length = reader.length()
    reader.refuse(how_is_wrong)
    signed_at, expires = reader.times()
    header_mode, body_mode = constant.modes
    return Signature(
        error=reader.error,
        domain=constant.domain,
        selector=constant.selector,
        algorithm=constant.algorithm,
        text=tags.compact(listed.values.get(b"b", b"")).decode("ascii") if octets else "",
        octets=octets,
        unsigned=emptied(value, listed),
        identifier=constant.identifier,
        identifier_given=b"i" in listed.values and not of_arc,
        body_hash=body_hash,
        names=constant.names,
        header_mode=header_mode,
        body=BodyHash(body_mode, "sha256", length),
        signed_at=signed_at,
        expires=expires,
    )
