"""Limits and choices of DKIM verification."""

from __future__ import annotations

from dataclasses import dataclass

from dmarc_milter.core import budget


@dataclass(frozen=True, slots=True)
class DkimOptions:
    max_signatures: int = budget.DKIM_SIGNATURES
    """Signatures examined in one message, the ones that could align first."""
    min_rsa_bits: int = budget.RSA_MIN_BITS
    """RFC 8301 3.2."""
    max_rsa_bits: int = budget.RSA_MAX_BITS
    max_key_record: int = budget.DKIM_KEY_RECORD
    """Bytes of a key record."""
    max_key_records: int = 4
    """Records tried when the name of a key has several (RFC 6376 6.1.2 leaves the choice)."""
    max_field: int = budget.DKIM_FIELD
    """Bytes of a signature field's value."""
    max_names: int = budget.DKIM_NAMES
    """Names in h=."""
    clock_skew: int = budget.CLOCK_SKEW
    """Seconds allowed for t= in the future and x= in the past."""
    require_signed: tuple[str, ...] = ()
    """Names of header fields, lower case: a signature that leaves one of them unsigned gets
    `policy`."""
    allow_body_length: bool = False
    """True: a signature whose l= leaves octets of the body unsigned may pass (RFC 6376 8.2 tells
    why not)."""
