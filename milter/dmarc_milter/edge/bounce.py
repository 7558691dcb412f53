"""Bounces of report mail: a delivery status notification (RFC 3464) read from a pipe, and the address that it tells us to leave alone."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from email.message import Message
from typing import NamedTuple

from dmarc_milter.edge.ledger.store import Store
from dmarc_milter.report.facts import printable
from dmarc_milter.report.mail import from_verp, verp
from dmarc_milter.report.rows import DAY

MAX_OCTETS = 2 << 20
"""Of a notification; what is beyond is the returned message, and not read."""
ADDRESS_FIELDS = ("Delivered-To", "X-Original-To", "Envelope-To", "To")
MAX_PARTS = 100


class Bounce(NamedTuple):
    """What a notification says about one of our mails. `hard`: permanently failed (action failed, status 5.x.x)."""

    report_id: str
    tag: str
    hard: bool
    reason: str


class NotOurs(ValueError):
    """Not a bounce of a report; `str()` says why, in one line."""


def read(data: bytes, bounces: str, recipient: str = "") -> Bounce:
    """The bounce in `data`; `bounces` is our envelope sender without its tag, `recipient` the address it came to, if known.

    Raises NotOurs.
    """
    try:
        mail: Message = email.message_from_bytes(data[:MAX_OCTETS], policy=email.policy.compat32)
        tagged = _tag(mail, bounces, recipient)
        reports = list(_recipients(mail))
    except NotOurs:
        raise
    except Exception as error:  # the library has raised many kinds for damaged mail
        raise NotOurs(f"a mail that cannot be read: {type(error).__name__}") from None
    if not reports:
        raise NotOurs("no delivery status in it (RFC 3464)")
    failed = [each for each in reports if each[0] == "failed" and each[1].startswith("5.")]
    action, status, diagnostic = (failed or reports)[0]
    return Bounce(*tagged, bool(failed), printable(" ".join(f"{action} {status} {diagnostic}".split()), 300))


def _tag(mail: Message, bounces: str, recipient: str) -> tuple[str, str]:
    """Report and tag of the delivery, from the address that the notification was sent to."""
    for text in (recipient, *(str(value) for name in ADDRESS_FIELDS for value in mail.get_all(name, [])[:10])):
        address = text[:1000].lower()
        found = from_verp(address)
        if found and verp(bounces, *found).lower() in address:
            return found
    raise NotOurs("not sent to the envelope sender of one of our reports")


def _recipients(mail: Message) -> Iterator[tuple[str, str, str]]:
    """(action, status, diagnostic) of each recipient in each delivery-status part."""
    for _, part in zip(range(MAX_PARTS), mail.walk(), strict=False):
        payload = part.get_payload()
        if part.get_content_type() != "message/delivery-status" or not isinstance(payload, list):
            continue
        for block in payload[:MAX_PARTS]:
            if isinstance(block, Message) and block["Action"]:
                action = str(block["Action"]).partition("(")[0].strip().lower()
                yield action[:20], str(block["Status"] or "").strip()[:20], str(block["Diagnostic-Code"] or "")[:1000]


def note(bounce: Bounce, store: Store, suppress_days: float) -> str:
    """Suppress the address of a hard bounce; what was done, as a sentence. Raises StoreError."""
    address = next((each.address for each in store.deliveries.of(bounce.report_id) if each.tag == bounce.tag), "")
    if not address:
        return f"report {bounce.report_id} is not known, or has no such destination"
    if not bounce.hard:
        return f"{address}: not permanent, ignored: {bounce.reason}"
    store.deliveries.bounced(bounce.report_id, address, f"bounced: {bounce.reason}")
    store.destinations.suppress(address, int(store.clock() + suppress_days * DAY), f"bounced: {bounce.reason}", bounce.report_id)
    return f"{address}: left alone for {suppress_days:g} days: {bounce.reason}"
