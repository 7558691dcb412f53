"""A domain name as mail authentication compares it: lower-case A-labels, no trailing dot."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import idna

MAX_NAME = 253
"""Bytes of a name without its root dot (RFC 1035 2.3.4, in presentation form)."""
MAX_LABEL = 63
MAX_U_LABEL = MAX_LABEL - len("xn--")
"""Characters of a label that is not ASCII: each takes at least one byte of Punycode (RFC 3492)."""
LABEL_OCTETS = "abcdefghijklmnopqrstuvwxyz0123456789-_"
DIGITS = "0123456789"
SCRIPTS_THAT_LOOK_ALIKE = ("LATIN ", "GREEK ", "CYRILLIC ", "ARMENIAN ", "CHEROKEE ")
COMBINING_DOT_ABOVE = "\u0307"


@dataclass(frozen=True, slots=True)
class Malformed:
    """The sender's mistake, as a value. `reason` is from a fixed vocabulary, never the sender's
    bytes."""

    reason: str


class Domain(NamedTuple):
    """A syntactically valid domain name; build it with `parse`, never from unchecked text.

    `name` is ASCII, lower case, A-labels, LDH and underscore, at most 253 bytes, no trailing dot.
    A tuple, because names are compared and looked up all the time.
    """

    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, left-most first."""
        return tuple(self.name.split("."))

    def is_at_or_below(self, other: Domain) -> bool:
        """Whether this name is `other` or a subdomain of it."""
        return self.name == other.name or self.name.endswith("." + other.name)

    def right_most(self, count: int) -> Domain:
        """The name made of the `count` right-most labels (1 <= count <= number of labels)."""
        return Domain(".".join(self.labels[-count:]))


SPECIAL_USE = (
    "localhost",
    "local",
    "localdomain",
    "invalid",
    "test",
    "onion",
    "home.arpa",
    "internal",
)
"""Names that the DNS of the Internet does not hold (RFC 6761, 6762, 7686, 8375; ICANN keeps
`internal` for private use)."""
SPECIAL_ENDINGS = tuple(f".{name}" for name in SPECIAL_USE)


def is_special_use(name: str) -> bool:
    """Whether a name (lower case, without trailing dot) is, or is below, one that must not be asked
    for in the DNS."""
    return name in SPECIAL_USE or name.endswith(SPECIAL_ENDINGS)


def parse(text: str | bytes) -> Domain | Malformed:
    """The name that `text` spells, in lower-case A-labels; one root dot at the end is dropped.
    Never raises.

    Labels are LDH and underscore, neither beginning nor ending with a hyphen (RFC 1035 2.3.1, RFC
    8552); an A-label is taken literally, even one that decodes to nothing. Non-ASCII labels are
    U-labels of IDNA2008 (RFC 5891 5; no mapping but lower case). Bytes are UTF-8. Address literals
    and dotted quads are malformed; a single label is a name.
    """
    # Every code point costs at least one byte of its A-label, so nothing longer can fit: bounds
    # the work that follows.
    if len(text) > 4 * (MAX_NAME + 1):
        return Malformed("domain too long")
    return _parse(text)


@lru_cache(maxsize=2048)
def _parse(text: str | bytes) -> Domain | Malformed:
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError:
            return Malformed("domain not UTF-8")
    if len(text) > MAX_NAME + 1:
        return Malformed("domain too long")
    labels = text.removesuffix(".").split(".")
    if not text.isascii():
        return _from_u_labels(labels)
    return _from_ascii([label.lower() for label in labels])


def unicode_form(domain: Domain) -> str:
    """The name with its genuine A-labels as U-labels (RFC 5891 5.4); any other label as it
    stands."""
    if "xn--" not in domain.name:
        return domain.name
    return ".".join(_u_label(label) for label in domain.labels)


def _from_ascii(labels: list[str]) -> Domain | Malformed:
    """The name of lower-cased ASCII labels, or what is wrong with it."""
    for label in labels:
        if not label:
            return Malformed("empty label")
        if len(label) > MAX_LABEL:
            return Malformed("label too long")
        if label.strip(LABEL_OCTETS):
            return Malformed(
                "address literal"
                if labels[0].startswith("[")
                else "character not allowed in a domain"
            )
        if label[0] == "-" or label[-1] == "-":
            return Malformed("label begins or ends with a hyphen")
    if len(labels) == 4 and not any(label.strip(DIGITS) for label in labels):
        return Malformed("address literal")
    name = ".".join(labels)
    return Domain(name) if len(name) <= MAX_NAME else Malformed("domain too long")


def _from_u_labels(labels: list[str]) -> Domain | Malformed:
    """The name when at least one label is not ASCII."""
    converted = []
    for label in labels:
        if label.isascii():
            converted.append(label.lower())
            continue
        try:
            converted.append(_a_label(label))
        except (UnicodeError, ValueError):  # idna.IDNAError is a UnicodeError
            return Malformed("not an IDNA2008 label")
    return _from_ascii(converted)


def _a_label(label: str) -> str:
    """The A-label of one U-label; raises UnicodeError.

    Case is the only mapping, and only of text that is already in NFC: U+212A (Kelvin) must not
    become `k`. Letter by letter, so that a capital sigma does not depend on its place.
    """
    if not unicodedata.is_normalized("NFC", label):
        raise UnicodeError("not in NFC")
    lowered = "".join(character.lower() for character in label)
    if len(lowered) > MAX_U_LABEL:
        raise UnicodeError("too long")
    if COMBINING_DOT_ABOVE in lowered or _mixes_alphabets(lowered):
        raise UnicodeError("deceptive")
    return idna.alabel(lowered).decode("ascii")


def _mixes_alphabets(label: str) -> bool:
    """Whether a U-label mixes alphabets whose letters look alike, which no registry sells (UTS 39
    5.2).

    The same label written as an A-label is taken as it is: nobody reads that as Latin.
    """
    names = [unicodedata.name(character, "") for character in label]
    return (
        sum(any(name.startswith(script) for name in names) for script in SCRIPTS_THAT_LOOK_ALIKE)
        > 1
    )


def _u_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        return idna.ulabel(label)
    except (UnicodeError, ValueError):
        return label


def as_stored(text: str) -> str:
    """A domain that somebody typed, as it is stored (`Domain.name`). What is none only becomes
    lower case, and so is found nowhere."""
    found = parse(text)
    return found.name if isinstance(found, Domain) else text.lower()
