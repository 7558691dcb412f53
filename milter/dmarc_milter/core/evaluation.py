"""All that was found and decided about one message, frozen: the input of the reply, the log and the
ledger."""

from __future__ import annotations

from datetime import datetime

from dmarc_milter.core.arc import ArcResult
from dmarc_milter.core.dkim.result import DkimResult
from dmarc_milter.core.dmarc.result import DmarcResult
from dmarc_milter.core.iprev import IprevResult
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.policy.decide import Verdict
from dmarc_milter.core.quick_dataclass import quick_dataclass
from dmarc_milter.core.resolver import StaleAnswer
from dmarc_milter.core.spf.check import SpfResult


@quick_dataclass(frozen=True, slots=True)
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
    stale: tuple[StaleAnswer, ...] = ()
    """Answers of the DNS that were used past their time."""
