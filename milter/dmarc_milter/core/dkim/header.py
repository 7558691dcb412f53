"""The header fields that a signature covers, canonicalized by dkimpy, and their hash (RFC 6376 3.7,
5.4.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from dkim.canonicalization import CanonicalizationPolicy

from dmarc_milter.core.mail.message import HeaderField, Headers

Mode = Literal["simple", "relaxed"]
POLICY = {
    mode: CanonicalizationPolicy.from_c_value(mode.encode("ascii"))
    for mode in ("simple", "relaxed")
}
MAY_CHANGE_MEANING = (
    b"from",
    b"sender",
    b"reply-to",
    b"subject",
    b"date",
    b"message-id",
    b"to",
    b"cc",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
)
"""Fields whose addition or change a reader would see (RFC 6376 5.4.1, 8.15)."""


class SignedHeaders:
    """The header of one message, for any number of signatures: each field is canonicalized at most
    once each way.

    dkimpy is not asked to select them: it canonicalizes every field of the message for each
    signature and compares every name in h= with every field.
    """

    def __init__(self, headers: Headers) -> None:
        self._headers = headers
        self._canonical: dict[Mode, dict[int, bytes]] = {"simple": {}, "relaxed": {}}

    def digest(self, names: Sequence[bytes], mode: Mode, position: int, unsigned: bytes) -> bytes:
        """SHA-256 of the fields that `names` (h=, lower case) selects and then of the signature
        field at `position`.

        `unsigned` is that field's value with b= emptied. The signature field is never selected by
        h= (RFC 6376 5.4).
        """
        signed = [self.canonical(selected, mode) for selected in self._select(names, position)]
        signed.append(self.emptied(position, unsigned, mode))
        return hashlib.sha256(b"".join(signed)).digest()

    def emptied(self, position: int, unsigned: bytes, mode: Mode) -> bytes:
        """The signature field at `position` with b= emptied, as it is signed: without CRLF.

        Not dkim.hash_headers: its search for b= is quadratic, and it strips white space that
        "simple" keeps.
        """
        field = HeaderField(self._headers.fields[position].name, unsigned)
        return b":".join(canonicalize(field, mode)).removesuffix(b"\r\n")

    def canonical(self, position: int, mode: Mode) -> bytes:
        """The field at `position`, with CRLF."""
        known = self._canonical[mode]
        if position not in known:
            known[position] = b":".join(canonicalize(self._headers.fields[position], mode))
        return known[position]

    def unsigned(self, names: Sequence[bytes], wanted: Sequence[bytes]) -> tuple[bytes, ...]:
        """Those of `wanted` of which `names` leaves at least one field unsigned."""
        by_name = self._headers.by_name
        return tuple(
            [name for name in wanted if name in by_name and len(by_name[name]) > names.count(name)]
        )

    def uncovered(self, names: Sequence[bytes], name: bytes) -> int:
        """How many fields called `name` the list `names` leaves unsigned."""
        return max(0, len(self._headers.positions(name)) - names.count(name))

    def _select(self, names: Sequence[bytes], position: int) -> list[int]:
        """Where the fields stand that `names` selects, of one name the lowest first (RFC 6376
        5.4.2)."""
        left: dict[bytes, list[int]] = {}
        selected: list[int] = []
        for name in names:
            if name not in left:
                left[name] = [at for at in self._headers.by_name.get(name, ()) if at != position]
            if left[name]:
                selected.append(left[name].pop())
        return selected


def canonicalize(header: HeaderField, mode: Mode) -> tuple[bytes, bytes]:
    """Name and value, with CRLF, of one field (RFC 6376 3.4.1, 3.4.2).

    Most fields are one line with single spaces: for these there is less to do than dkimpy does.
    """
    name, value = header
    if mode == "relaxed" and not (b"  " in value or b"\t" in value or b"\n" in value):
        return name.lower().rstrip(), value.strip() + b"\r\n"
    ((name, value),) = POLICY[mode].canonicalize_headers([(name, value + b"\r\n")])
    return name, value
