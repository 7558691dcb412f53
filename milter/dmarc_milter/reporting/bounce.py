"""Bounces of report mail, read from a pipe: whose they are, by the tag of the address they came to,
and the address to leave alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dmarc_milter.core.report.mail import from_verp, verp
from dmarc_milter.core.report.mime import header
from dmarc_milter.core.report.notification import MAX_OCTETS, judge
from dmarc_milter.core.text import printable
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.reporting.silence import Failed, silence, subject

__all__ = ["MAX_OCTETS", "Bounce", "DeliveryTag", "NotOurs", "address_of", "note", "read", "tag_of"]

ADDRESS_FIELDS = ("delivered-to", "x-original-to", "envelope-to", "to")
MAX_HEAD = 32 << 10
"""Bytes of a mail in which the address that it came to is looked for."""
TEXT_DAYS = 7.0
"""Days that an address is left alone at most where only the text of a bounce says that it
failed."""


class DeliveryTag(NamedTuple):
    """Which delivery of which report."""

    report_id: str
    tag: str


class Bounce(NamedTuple):
    """What a notification says about one of our mails. `hard`: permanently failed; `text_only`: no
    delivery status says so (RFC 3464)."""

    report_id: str
    tag: str
    hard: bool
    reason: str
    text_only: bool = False
    remote: str = ""
    """The host that said 550 to RCPT, or ""."""


class NotOurs(ValueError):
    """Not a bounce of a report; `str()` says why, in one line."""


def tag_of(data: bytes, bounces: str | Sequence[str], recipient: str = "") -> DeliveryTag:
    """The delivery, from the address that the notification was sent to: `recipient` where the mail
    system told it, else the mail's fields.

    `bounces` is our envelope sender without its tag, or those of several identities. Raises
    NotOurs, before anything else of the mail is looked at.
    """
    known = [bounces] if isinstance(bounces, str) else bounces
    fields = header(data[:MAX_HEAD])
    for text in (
        recipient,
        *(value for name in ADDRESS_FIELDS for value in fields.get(name, [])[:10]),
    ):
        address = text[:1000].lower()
        verp_tag = from_verp(address)
        if verp_tag and any(_is_for(verp(own, *verp_tag), address) for own in known):
            return DeliveryTag(*verp_tag)
    raise NotOurs("not sent to the envelope sender of one of our reports")


def _is_for(sender: str, text: str) -> bool:
    """Whether a text in lower case holds that address and no longer one."""
    return re.search(rf"(?<![\w.+-]){re.escape(sender.lower())}(?![\w-]|\.\w)", text) is not None


def read(
    data: bytes,
    bounces: str | Sequence[str],
    recipient: str = "",
    *,
    address: str = "",
    sender: str | None = None,
) -> Bounce:
    """The bounce in `data`. `address` is where that report went, `sender` the bounce's envelope
    sender, where these are known.

    Raises NotOurs.
    """
    tag = tag_of(data, bounces, recipient)
    judgement = judge(data, address, sender)
    return Bounce(
        *tag,
        judgement.verdict == "permanent",
        printable(" ".join(judgement.reason.split()), 300),
        judgement.text_only,
        printable(judgement.remote, 253),
    )


def address_of(tag: DeliveryTag | Bounce, store: Store) -> str:
    """The address of that delivery, or "". Raises StoreError."""
    return next(
        (
            delivery.address
            for delivery in store.deliveries.of(tag.report_id)
            if delivery.tag == tag.tag
        ),
        "",
    )


def note(
    bounce: Bounce,
    store: Store,
    suppress_days: float,
    own_mx: Callable[[str, str], bool] = lambda _server, _address: False,
) -> str:
    """Leave the address of a hard bounce alone, with reports about that domain or altogether; what
    was done, as a sentence. `own_mx` says whether a host is an MX of an address. Raises
    StoreError."""
    address = address_of(bounce, store)
    if not address:
        return unknown(bounce.report_id)
    if not bounce.hard:
        return f"{address}: not permanent, ignored: {bounce.reason}"
    days = min(suppress_days, TEXT_DAYS) if bounce.text_only else suppress_days
    store.deliveries.bounced(bounce.report_id, address, f"bounced: {bounce.reason}")
    about = subject(bounce.report_id, store)
    own = bool(bounce.remote) and own_mx(bounce.remote, address)
    reason = f"bounced: {bounce.reason}"
    said = silence(Failed(address, about, reason, bounce.report_id, days, own), store)
    return said.replace(reason, bounce.reason)


def unknown(report_id: str) -> str:
    """The answer to a tag that belongs to no delivery."""
    return f"report {report_id} is not known, or has no such destination"
