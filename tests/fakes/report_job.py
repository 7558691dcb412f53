"""The report job over a store, a scripted DNS and an SMTP sink, with a clock that the test
moves."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from dmarc_milter.config.schema_reporting import Reporting
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.resolver import Resolver
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.reporting.run import Asked, ReportContext, Run, run
from dmarc_milter.reporting.smtp import Mailer, Submission
from fakes.dns_zone import Zone
from fakes.evaluations import NOON
from fakes.stores import batch

NOW = int(NOON.timestamp())
DAY = 86400
TOMORROW = NOW // DAY * DAY + DAY


@dataclass
class Clock:
    """Seconds since 1970, moved by the test."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def organization(_resolver: Resolver) -> Callable[[Domain], Domain | None]:
    """The last two labels."""
    return lambda name: name.right_most(2)


def reporting(**changes: Any) -> Reporting:
    settings = {
        "org_name": "Example Receiver",
        "email": "dmarc@mx.example",
        "spread_minutes": 0.0,
    } | changes
    return Reporting(**settings)


@dataclass
class Job:
    """One host's report job."""

    store: Store
    zone: Zone
    clock: Clock
    port: int
    options: Reporting = field(default_factory=reporting)
    owner: str = "me"
    sequence: int = 0

    def see(self, *evaluations: Evaluation, identity: str = "spool-a") -> None:
        """Messages that this host has answered."""
        self.store.apply(batch(*evaluations, first=self.sequence + 1, identity=identity))
        self.sequence += len(evaluations)

    def set(self, **changes: Any) -> None:
        self.options = reporting(**changes)

    def run(self, *, now: bool = False, mailer: Any = None) -> Run:
        real = Mailer(Submission("127.0.0.1", self.port, timeout=5.0, helo="mx.example"))
        tools = ReportContext(
            store=self.store,
            options=self.options,
            ask=lambda: Asked(self.zone, lambda: 3600.0),
            organization=organization,
            mailer=mailer or real,
            owner=self.owner,
            rng=random.Random(1),
        )
        try:
            return run(tools, now=now)
        finally:
            real.close()

    def another(self, store: Store, owner: str) -> Job:
        return replace(self, store=store, owner=owner)
