"""What the report job has at hand: the store, the DNS, the mailer, chance, and the [reporting]
options."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from dmarc_milter.config.checks import in_a_labels
from dmarc_milter.config.identities import by_address
from dmarc_milter.config.schema_reporting import Reporting
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.report.aggregate import Reporter
from dmarc_milter.core.resolver import Resolver
from dmarc_milter.ledger.sent_log import SentLog
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.reporting.smtp import Outcome

LOG = logging.getLogger("dmarc_milter.report")

GRACE = 600
"""Seconds after its end that a period stays open: other hosts' spools drain, and clocks may differ
by a minute."""
PATIENT_TRIES = 4
"""How often a report that could go to some addresses waits for the DNS to say something about the
others."""
FIRST_RETRY, LONGEST_RETRY = 600, 6 * 3600


class Asked(NamedTuple):
    """The DNS for one report; `holds` gives the seconds for which its answers may be remembered."""

    resolver: Resolver
    holds: Callable[[], float]


class Submitter(Protocol):
    """reporting/smtp.py."""

    def send(self, sender: str, recipient: str, message: bytes) -> Outcome: ...


def reporter_of(options: Reporting, identity: str = "") -> Reporter:
    """Who reports: the organization, or the identity with that reporting address. The same on all
    hosts that share a configuration: its domain is that of the reporting address."""
    who = by_address(options, identity) or options
    email = in_a_labels(who.email)
    return Reporter(who.org_name, email, email.rpartition("@")[2], who.extra_contact_info)


@dataclass(frozen=True, slots=True)
class ReportContext:
    """`owner` names this run and no other. `organization` makes, from a resolver, the function that
    gives organizational domains."""

    store: Store
    options: Reporting
    ask: Callable[[], Asked]
    organization: Callable[[Resolver], Callable[[Domain], Domain | None]]
    mailer: Submitter
    owner: str
    rng: random.Random
    sent_log: SentLog | None = None
    """This host's; None where nobody will ever ask."""
    authserv_id: str = ""
    """Names us in failure reports; empty: the reporting address's domain."""

    @property
    def now(self) -> int:
        return int(self.store.clock())

    @property
    def reporter(self) -> Reporter:
        """The same on all hosts that share a configuration: its domain is that of the reporting
        address."""
        return reporter_of(self.options)

    def reporter_for(self, identity: str) -> Reporter:
        """Who reports in the name of that reporting address."""
        return reporter_of(self.options, identity)

    def bounces_for(self, identity: str) -> str:
        """The envelope sender of an identity's reports, before it gets its tag."""
        own = "" if self.options.bounce_address else self.reporter_for(identity).email
        return own or self.bounces

    @property
    def bounces(self) -> str:
        """The envelope sender before it gets its tag."""
        return in_a_labels(self.options.bounce_address or self.options.email)

    def pause(self, attempts: int) -> int:
        """Seconds before the next try: doubling from ten minutes to six hours, a quarter more or
        less by chance."""
        return int(
            min(FIRST_RETRY * 2 ** min(attempts, 10), LONGEST_RETRY) * self.rng.uniform(0.75, 1.25)
        )

    def spread(self) -> int:
        """A moment within spread_minutes."""
        return int(self.rng.uniform(0, self.options.spread_minutes * 60))
