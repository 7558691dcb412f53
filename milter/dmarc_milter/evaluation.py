"""All that was found and decided about one message, frozen: the input of the reply, the log and the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from dmarc_milter.address import Author
from dmarc_milter.arc import ArcResult
from dmarc_milter.disposition import Verdict
from dmarc_milter.dkim.result import DkimResult
from dmarc_milter.dmarc.result import DmarcResult
from dmarc_milter.iprev import IprevResult
from dmarc_milter.message import Envelope
from dmarc_milter.spf import SpfResult


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """What the message says of itself, kept for loop protection and `why`. Nothing here is printed unvalidated."""

    message_id: str = ""
    """Printable ASCII without angle brackets, at most 250 octets; "" when missing or odd."""
    auto_submitted: bool = False
    """RFC 3834 Auto-Submitted other than "no"."""
    is_dsn: bool = False
    """Null sender, or multipart/report."""
    is_report: bool = False
    """Looks like a DMARC aggregate or failure report (Subject of RFC 9990 3.5.3, or feedback-report)."""
    to_reporting: bool = False
    """A recipient is our own reporting or bounce address: such mail is never counted for reports (DESIGN.md, Reports)."""
    from_reporting: bool = False
    """MAIL FROM is our own reporting or bounce address."""
    list_id: str = ""
    """The List-Id's name, validated as a domain name, for `impact`: evidence of nothing."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    id: str
    """Unique to this delivery attempt."""
    at: datetime
    """UTC, aware."""
    envelope: Envelope
    author: Author
    facts: MessageFacts
    spf: SpfResult
    dkim: tuple[DkimResult, ...]
    arc: ArcResult | None
    iprev: IprevResult | None
    dmarc: DmarcResult
    verdict: Verdict
