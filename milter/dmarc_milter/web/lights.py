"""Lights for the overview and the health page: each a level and a sentence, from what the store,
the spool and the files of this host say. Nothing is asked over the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.core.check_finding import Finding, Level
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.decisions import Filter
from dmarc_milter.ledger.store.status import REMEDIES, SpoolStatus, spool_status
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web import queries
from dmarc_milter.web.words import clipped

HOUR = 3600
MANY = 0.1
"""A share of the last hour's messages without an answer of the DNS that is a fault of ours, or of
the resolver's, rather than of one sender."""
FEW = 5
"""Messages below which a share says nothing."""
QUIET = 900
"""Seconds for which messages may wait in the spool; the drain comes several times a minute."""


class Light(NamedTuple):
    """`name`: what it is about. `text`: sentences. `remedy`: what to do, or ""."""

    level: Level
    name: str
    text: str
    remedy: str = ""


def of_finding(finding: Finding) -> Light:
    """A finding of `config check` as a light."""
    return Light(finding.level, finding.where, finding.text, finding.remedy)


def lights(store: Store, spool: Path, off: str, now: float, spool_bound: int = 0) -> list[Light]:
    """DNS, spool, store, reports. `off`: why no reports are sent, or ""; `spool_bound`: the spool's
    limit in bytes, where it is known. Never raises."""
    found = spool_status(spool, spool_bound)
    try:
        drained = queries.last_drained(store.database)
        return [
            dns_light(store, now),
            spool_light(found, drained, now),
            _store_light(drained, now),
            reports_light(store, off, now),
        ]
    except StoreError as error:
        return without_store(found, error, now)


def without_store(found: SpoolStatus, error: StoreError, now: float) -> list[Light]:
    """What is known while the store does not answer."""
    remedy = REMEDIES[error.kind]
    problem = Light("error", "Store", f"{error}.", f"{remedy[:1].upper()}{remedy[1:]}.")
    return [problem, spool_light(found, None, now)]


def _store_light(drained: int, now: float) -> Light:
    written = f"last written to {_ago(now, drained)}" if drained else "nothing is in it yet"
    return Light("ok", "Store", f"Answers; {written}.")


def dns_light(store: Store, now: float) -> Light:
    """By the mail of the last hour: whether answers came."""
    since = int(now) - HOUR
    messages = store.decisions.count(Filter(since=since))
    if not messages:
        return Light("note", "DNS", "No mail in the last hour, so nothing is known about it.")
    waiting = [each for each in store.decisions.waiting(since) if each.reason == "dns"]
    failed = sum(each.attempts for each in waiting)
    if not failed:
        for_all = "the only message" if messages == 1 else f"all {messages:,} messages"
        return Light("ok", "DNS", f"Answered for {for_all} of the last hour.")
    text = f"Gave no answer for {failed:,} of the last hour's {messages:,} delivery attempts"
    name = waiting[0].failing_name
    text += f", most often about {clipped(name)}." if name else "."
    if failed >= FEW and failed >= MANY * messages:
        return Light("error", "DNS", text, "dmarc-milter doctor asks each name server.")
    return Light("warning", "DNS", text, "Nothing, if those domains' own servers are down.")


def spool_light(found: SpoolStatus, drained: int | None, now: float) -> Light:
    """`drained`: when the store was last written to, None while it does not answer."""
    if found.problem:
        level: Level = "error" if found.remedy else "note"
        text = f"{found.problem[:1].upper()}{found.problem[1:]}."
        return Light(level, "Spool", text, found.remedy)
    if not found.waiting:
        return Light("ok", "Spool", "Empty: all that was recorded is in the store.")
    who = "One message waits" if found.waiting == 1 else f"{found.waiting:,} messages wait"
    text = f"{who} to be written to the store"
    if drained is None:
        return Light("note", "Spool", f"{text}, until it answers.")
    if now - drained > QUIET:
        remedy = "Look whether the daemon runs, and why it does not write: its log says."
        return Light("warning", "Spool", f"{text}, which was {_ago(now, drained)}.", remedy)
    return Light("ok", "Spool", f"{text}, as usual.")


def reports_light(store: Store, off: str, now: float) -> Light:
    if off:
        remedy = "Set it in the configuration file, if domains shall get aggregate reports."
        return Light("note", "Reports", f"None are sent: {off}.", remedy)
    states = queries.report_states(store.database)
    late = store.reports.waiting(int(now) - DAY)
    parts = ", ".join(f"{states[name]:,} {name}" for name in states)
    if late:
        remedy = "dmarc-milter report list shows them and why they wait."
        return Light("warning", "Reports", f"{late:,} are a day late; {parts}.", remedy)
    return Light("ok", "Reports", f"{parts}." if parts else "None are due yet.")


def worst(found: Iterator[Light] | list[Light]) -> Level:
    """The level that a reader should know first."""
    order: tuple[Level, ...] = ("error", "warning", "unknown", "note", "ok")
    levels = {light.level for light in found}
    return next((level for level in order if level in levels), "ok")


def _ago(now: float, at: int) -> str:
    if not at:
        return "never"
    seconds = max(0, int(now) - at)
    for unit, length in (("day", DAY), ("hour", HOUR), ("minute", 60)):
        if seconds >= length:
            number = seconds // length
            return f"{number:,} {unit}{'' if number == 1 else 's'} ago"
    return "less than a minute ago"
