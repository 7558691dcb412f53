"""Limits and choices of DKIM verification (docs/design.md, Decisions; the limits that other
verifiers lack)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DkimOptions:
    max_signatures: int = 10
    """Signatures examined in one message, the ones that could align first."""
    min_rsa_bits: int = 1024
    """RFC 8301 3.2."""
    max_rsa_bits: int = 8192
    max_key_record: int = 4096
    """Octets of a key record."""
    max_key_records: int = 4
    """Records tried when the name of a key has several (RFC 6376 6.1.2 leaves the choice)."""
    max_field: int = 16384
    """Octets of a signature field's value."""
    max_names: int = 256
    """Names in h=."""
    clock_skew: int = 300
    """Seconds allowed for t= in the future and x= in the past."""
    require_signed: tuple[str, ...] = ()
    """Names of header fields, lower case: a signature that leaves one of them unsigned gets
    `policy`."""
    allow_body_length: bool = False
    """True: a signature whose l= leaves octets of the body unsigned may pass (RFC 6376 8.2 tells
    why not)."""
