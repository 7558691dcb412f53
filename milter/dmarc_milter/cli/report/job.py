"""The report job as the commands run it: its context from the configuration, a progress bar on a
terminal, and the preview."""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from dmarc_milter.config import Config
from dmarc_milter.config.checks import authserv_id, host_and_port
from dmarc_milter.config.paths import spool_path
from dmarc_milter.config.secrets import identity_keys, signing_key, smtp_password
from dmarc_milter.core.dmarc.discovery import Discovery, DmarcOptions, PublicSuffixes
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.resolver import Resolver
from dmarc_milter.dns.resolver import DnsResolver
from dmarc_milter.dns.suffix_list import load_suffixes
from dmarc_milter.ledger.clock import believe
from dmarc_milter.ledger.sent_log import SentLog, beside
from dmarc_milter.ledger.store.reports import Report, ReportState
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.process.loop import Loop
from dmarc_milter.reporting.build import recipients_of, why_nothing
from dmarc_milter.reporting.context import GRACE
from dmarc_milter.reporting.destinations import ReportRecipients
from dmarc_milter.reporting.restored import tell_what_was_sent
from dmarc_milter.reporting.run import FOR_EVER, Asked, Progress, ReportContext, Run, run
from dmarc_milter.reporting.silence import is_own_mx
from dmarc_milter.reporting.smtp import Mailer, Submission

if TYPE_CHECKING:  # loaded where a bar is drawn
    from rich.progress import Progress as Bar

OFF = "reporting is off: set [reporting] org_name and email"
DNS_SECONDS, DNS_QUERIES = 60.0, 400
"""For the destinations of one report."""


NOBODY = ReportRecipients((), (), ())


class Previewed(NamedTuple):
    """What would become of a due report: a reason why nothing is sent, or where it goes."""

    report: Report
    nothing: str
    recipients: ReportRecipients


@contextmanager
def context_of(config: Config, store: Store) -> Iterator[ReportContext]:
    """Raises ConfigError, SuffixListError."""
    suffixes = load_suffixes(config.dmarc.suffix_list)
    mailer = Mailer(submission_of(config))
    dns = DnsResolver(Loop(), config.dns.nameservers, timeout=config.dns.timeout)
    try:
        yield ReportContext(
            store=store,
            options=config.reporting,
            ask=lambda: _ask(dns),
            organization=organizations(config, suffixes),
            mailer=mailer,
            owner=f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}",
            rng=random.SystemRandom(),
            authserv_id=authserv_id(config),
            sent_log=SentLog(beside(spool_path(config))),
        )
    finally:
        mailer.close()
        dns.close()


def _ask(dns: DnsResolver) -> Asked:
    resolver = dns.for_message(DNS_SECONDS, DNS_QUERIES)
    return Asked(resolver, lambda: resolver.expires - time.monotonic())


def own_mx(config: Config, server: str, address: str) -> bool:
    """Whether the DNS names that host as an MX of the address."""
    dns = DnsResolver(Loop(), config.dns.nameservers, timeout=config.dns.timeout)
    try:
        return is_own_mx(server, address, dns.for_message(DNS_SECONDS, DNS_QUERIES))
    finally:
        dns.close()


def organizations(
    config: Config, suffixes: PublicSuffixes
) -> Callable[[Resolver], Callable[[Domain], Domain | None]]:
    """Organizational domains as messages are judged by: the tree walk, or the public suffix
    list."""
    options = DmarcOptions(discovery=config.dmarc.discovery, psl_guard=config.dmarc.psl_guard)

    def make(resolver: Resolver) -> Callable[[Domain], Domain | None]:
        discovery = Discovery(resolver, options, suffixes)
        if options.discovery == "psl":
            return discovery.listed_organization
        return lambda domain: discovery.walk(domain).organizational_domain()

    return make


def submission_of(config: Config) -> Submission:
    """Raises ConfigError for a password or key that cannot be read."""
    options = config.reporting
    host, port = host_and_port(options.smtp, 25)
    return Submission(
        host,
        port,
        options.smtp_tls,
        options.smtp_user,
        smtp_password(config),
        signing_key(config),
        identity_keys(config),
    )


def sending(config: Config, store: Store, *, now: bool) -> Run:
    """`report send`. Raises StoreError, ConfigError, SuffixListError.

    It believes no clock that has jumped: a period would be closed too early, a report given up as
    too old.
    """
    believe(store.database, int(store.clock()))
    tell_what_was_sent(store, SentLog(beside(spool_path(config))), wait=not now)
    with context_of(config, store) as context, _progress(context, now=now) as progress:
        return run(context, now=now, progress=progress)


def preview(config: Config, store: Store, policy_domain: str, limit: int) -> Iterator[Previewed]:
    """What the next run, or the end of the period, would do; nothing is changed. Raises
    StoreError."""
    with context_of(config, store) as context:
        for report in store.reports.find(
            [ReportState.DUE], policy_domain=policy_domain, limit=limit
        ):
            nothing = why_nothing(report, context)
            yield Previewed(
                report,
                nothing,
                NOBODY if nothing else recipients_of(report, context),
            )


class _Apart(logging.Handler):
    """Takes the bar away for each line of the log."""

    def __init__(self, bar: Bar, inner: Sequence[logging.Handler]) -> None:
        super().__init__()
        self._bar, self._inner = bar, inner

    def emit(self, record: logging.LogRecord) -> None:
        self._bar.stop()
        for handler in self._inner:
            handler.handle(record)
        self._bar.start()


@contextmanager
def _apart(bar: Bar) -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers[:] = [_Apart(bar, before)]
    try:
        yield
    finally:
        root.handlers[:] = before


@contextmanager
def _progress(context: ReportContext, *, now: bool) -> Iterator[Progress]:
    """A bar where a person looks at both streams; nothing in a job of the daemon, whose standard
    error is its log. What is logged meanwhile stands above the bar."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield lambda _what, _number: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar, _apart(bar):
        due = context.store.reports.waiting(FOR_EVER if now else context.now - GRACE)
        tasks = {
            "build": bar.add_task("building", total=due),
            "send": bar.add_task("sending", total=None),
        }

        def advance(what: str, number: int) -> None:
            if what == "send" and bar.tasks[tasks["send"]].total is None:
                bar.update(tasks["send"], total=context.store.deliveries.waiting() + 1)
            bar.advance(tasks[what], number)

        yield advance
