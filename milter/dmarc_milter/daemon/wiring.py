"""Builds what a worker needs from the configuration."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.config import Config
from dmarc_milter.config import core_options as compiled
from dmarc_milter.config.checks import authserv_id, networks
from dmarc_milter.config.identities import reporting_addresses
from dmarc_milter.config.paths import spool_path
from dmarc_milter.core.dmarc.rewritten_from import Canonify
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.author import UNREAD
from dmarc_milter.core.mail.message import Headers
from dmarc_milter.core.report import failure
from dmarc_milter.daemon.jobs import Job
from dmarc_milter.daemon.worker import WorkerServices
from dmarc_milter.dns.resolver import CacheLimits, DnsResolver
from dmarc_milter.dns.suffix_list import Suffixes, latest_suffixes
from dmarc_milter.ledger.spool.file import SpoolOptions
from dmarc_milter.ledger.spool.spool import Spool, tell_at_once
from dmarc_milter.mta import sendmail_rewriting
from dmarc_milter.mta.sendmail_watch import Demanding, Watched
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import SharedMemory, WorkerSlot
from dmarc_milter.session.context import WorkerContext
from dmarc_milter.session.handler import SessionOptions
from dmarc_milter.session.recorder import LoopRecorder
from dmarc_milter.session.transaction import CoreHandler
from dmarc_milter.telemetry.counters import Meter
from dmarc_milter.telemetry.log import Log

FULL_HEADERS_A_MINUTE = 100
"""Messages a minute of which failure reports quote the whole header; a flood must not fill the
spool."""
REPORT_EVERY = 900.0
"""Seconds between looks for reports that are due."""


class Commands(NamedTuple):
    """The commands of this program. `run` takes a command line without the program's name and gives
    the exit code. `load` imports what the command of this name needs; raises ImportError."""

    run: Callable[[Sequence[str]], int]
    load: Callable[[str], object]


def build(
    config: Config, loop: Loop, slot: WorkerSlot, shared_memory: SharedMemory, log: Log
) -> WorkerServices:
    """What a worker serves with. Raises for what makes serving impossible."""
    suffixes, warning = latest_suffixes(config.dmarc.suffix_list, datetime.now(UTC).date())
    if warning:
        log.warning("suffix_list", text=warning)
    dns, sendmail = _resolver(config, loop, suffixes), watched_sendmail_cf(config)
    meter = Meter(slot)
    spool = Spool(
        spool_path(config),
        SpoolOptions(max_bytes=config.store.spool_max_bytes),
        tell=lambda entries: loop.call_from_thread(partial(tell_at_once, entries)),
    )
    spool.start()
    context = WorkerContext(
        loop=loop,
        options=compiled.options(config, suffixes),
        marking=compiled.marking(config),
        dns=dns,
        recorder=LoopRecorder(spool, loop),
        log=log,
        meter=meter,
        slot=slot,
        shared_memory=shared_memory,
        max_queries=config.limits.dns_queries,
        header_sample=header_samples(config),
        canonify=canonify(config, sendmail),
    )
    return WorkerServices(
        CoreHandler(context),
        session_options(config, sendmail),
        lambda: _follow(meter, dns, spool),
        spool.close,
    )


def _resolver(config: Config, loop: Loop, suffixes: Suffixes) -> DnsResolver:
    return DnsResolver(
        loop,
        config.dns.nameservers,
        timeout=compiled.look_up_seconds(config),
        memory=CacheLimits(
            config.dns.cache_entries,
            config.dns.cache_bytes,
            config.dns.stale_hours * 3600,
            suffixes.organization_of,
        ),
    )


def _follow(meter: Meter, dns: DnsResolver, spool: Spool) -> None:
    """Add to the shared counters what the resolver and the spool have counted meanwhile; the spool
    has a writer."""
    for name in ("queries", "retries", "tcp", "failures", "timeouts", "waits", "shortages"):
        meter.follow(f"dns_{name}", getattr(dns.counters, name))
    meter.follow("dns_cache_hits", dns.counters.hits)
    meter.follow("dns_stale_answers", dns.counters.stale)
    spool.tend()
    counts = spool.counts()
    for name in ("recorded", "unrecorded", "late", "lost"):
        meter.follow(f"spool_{name}", getattr(counts, name))


def jobs(path: Path, config: Config, commands: Commands) -> tuple[Job, ...]:
    """What runs beside the workers: the drain of the spool, and the reports where they are sent at
    all."""

    def job(name: str, words: Sequence[str], pause: float) -> Job:
        line = (*words, "--config", str(path))
        return Job(name, partial(commands.run, line), pause, partial(commands.load, words[0]))

    drain = job("drain", ("store", "drain", "--follow", "--parent", str(os.getpid())), 5.0)
    if not config.reporting.is_on:
        return (drain,)
    return drain, job("report", ("report", "send"), REPORT_EVERY)


def watched_sendmail_cf(config: Config) -> Watched:
    """The configured sendmail.cf; one for all that asks."""
    return Watched(Path(config.authentication.sendmail_cf))


def canonify(config: Config, sendmail: Watched | None = None) -> Callable[[str], Canonify | None]:
    """How the MTA of a message, named as in Envelope.mta, changes From after us ([authentication]
    sendmail_expands_aliases)."""
    held = sendmail or watched_sendmail_cf(config)
    match config.authentication.sendmail_expands_aliases:
        case "no":
            return lambda _mta: None
        case "yes":
            how = _written_here(config, sendmail_rewriting.how(None))
            return lambda mta: None if mta == "postfix" else how
        case _:
            return lambda mta: _written_here(config, held.canonify()) if mta == "sendmail" else None


def _written_here(config: Config, how: Canonify | None) -> Canonify:
    """What the DNS has to say, if anything, and what every Sendmail writes for localhost."""
    own = authserv_id(config)
    return replace(how or Canonify(aliases=False), own=own if "." in own else "")


def header_samples(config: Config) -> Callable[[Evaluation, Headers], bytes | None]:
    """What is kept for failure reports: nothing unless they are switched on. Replacements of local
    parts are this process's own."""
    options = config.reporting
    if not (options.failure_reports and options.is_on):
        return lambda _evaluation, _headers: None
    key = secrets.token_bytes(32)
    minute, full = 0, 0

    def sample(evaluation: Evaluation, headers: Headers) -> bytes | None:
        nonlocal minute, full
        try:
            now = int(time.monotonic() // 60)
            minute, full = now, full if now == minute else 0
            found = failure.header_sample(
                evaluation, headers, key, brief=full >= FULL_HEADERS_A_MINUTE
            )
            full += found is not None
        except Exception:  # a bug in a failure report must not defer mail
            logging.getLogger("dmarc_milter.report").exception("no failure report for this message")
            return None
        return found

    return sample


def authenticating_daemons(config: Config, sendmail: Watched | None = None) -> Collection[str]:
    """Those of trusted_daemons whose name stands for a login: a port of that name may ask for none,
    as Sendmail's own MSA does."""
    trust = config.authentication
    match trust.sendmail_daemons_authenticate:
        case "yes":
            return frozenset(trust.trusted_daemons)
        case "no":
            return frozenset()
    return Demanding(sendmail or watched_sendmail_cf(config), trust.trusted_daemons)


def session_options(config: Config, sendmail: Watched | None = None) -> SessionOptions:
    """What sessions need of the configuration."""
    trust, own = config.authentication, reporting_addresses(config.reporting)
    return SessionOptions(
        trusted_networks=networks(trust.trusted_networks),
        trusted_relays=networks(trust.trusted_relays),
        trusted_daemons=authenticating_daemons(config, sendmail),
        daemons_of_sendmail=trust.sendmail_daemons_authenticate == "auto",
        keep_results_from=networks(trust.keep_results_from),
        on_error=config.milter.on_error,
        enforce=config.policy.enforce,
        header_bytes=config.limits.header_bytes,
        header_fields=config.limits.header_fields,
        stand_ins={
            b"from": UNREAD,
            b"authentication-results": b" " + authserv_id(config).encode() + b"; none",
        },
        own_addresses=frozenset(address.lower().encode() for address in own),
    )
