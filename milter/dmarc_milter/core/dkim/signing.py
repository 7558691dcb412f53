"""The DKIM signature of report mail."""

from __future__ import annotations

from dataclasses import dataclass

import dkim


@dataclass(frozen=True, slots=True)
class SigningKey:
    """DKIM key of the report mail. `pem` is an unencrypted RSA private key."""

    domain: str
    selector: str
    pem: bytes


def sign(message: bytes, key: SigningKey) -> bytes:
    """The mail with a DKIM signature on top (RFC 6376; rsa-sha256, relaxed/relaxed). Raises
    ValueError for an unusable key."""
    names = [
        b"From",
        b"To",
        b"Subject",
        b"Date",
        b"Message-ID",
        b"MIME-Version",
        b"Content-Type",
        b"Auto-Submitted",
    ]
    try:
        field = dkim.sign(
            message,
            key.selector.encode("ascii"),
            key.domain.encode("ascii"),
            key.pem,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=names,
        )
    except Exception as error:  # dkimpy raises many kinds for a bad key
        raise ValueError(f"the report mail cannot be signed: {error}") from None
    return bytes(field) + message
