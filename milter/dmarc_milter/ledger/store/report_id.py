"""The identity of aggregate reports: the same for a report that has to be built again, and known to
nobody in advance.

It is an HMAC (RFC 2104) of what makes the report, under a secret of the installation that the first
spool gives to a new store. The document's format (RFC 9990's or RFC 7489's) is none of that: it is
chosen for each destination when the report is sent, and may be another one when it is sent again.
Its readers tell by the id that it is the same report, and count it once.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256

from dmarc_milter.ledger.store.database import Transaction

DIGITS = 32
"""Hexadecimal ones: report_id, subject, file name and Message-ID have room for them."""


def found(transaction: Transaction, identity: str) -> None:
    """Give a store that has no secret yet the one that this spool makes. The spool's identity is
    random and stands in files for the service's group only."""
    secret = sha256(b"secret of report ids\0" + identity.encode()).hexdigest()
    transaction.run(
        "INSERT INTO installation (only_row, secret) VALUES (1, ?) ON CONFLICT (only_row) DO"
        " NOTHING",
        (secret,),
    )


def secret_of(transaction: Transaction) -> bytes:
    """The installation's secret, which `found` has made."""
    row = transaction.one("SELECT secret FROM installation WHERE only_row = 1")
    return str(row[0] if row else "").encode()


def report_id(secret: bytes, parts: Iterable[object]) -> str:
    """The id of the report that `parts` make: policy domain, configuration, begin, end, number of
    the part."""
    text = "\0".join(str(part) for part in parts)
    return hmac.new(secret, text.encode("utf-8", "surrogatepass"), sha256).hexdigest()[:DIGITS]
