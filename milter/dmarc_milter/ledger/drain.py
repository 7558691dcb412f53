"""The drain job: from this host's spool to the store, in batches that are applied exactly once."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from dmarc_milter.ledger.errors import SpoolError, StoreError
from dmarc_milter.ledger.spool.file import SpoolFile
from dmarc_milter.ledger.spool.journal import Journal
from dmarc_milter.ledger.store.apply_batch import Batch, Moved
from dmarc_milter.ledger.store.gaps import Gap
from dmarc_milter.ledger.store.store import Store

LOG = logging.getLogger("dmarc_milter.ledger")

BATCH = 2000
"""Messages in one transaction of the store."""
LOOKS = 5
"""How often a drain looks again whose messages the store has counted."""


class Drained(NamedTuple):
    """`messages` were counted now; `problem` is why it stopped early, or ""."""

    messages: int
    problem: str = ""


def drain(
    spool: SpoolFile, store: Store, *, batch: int = BATCH, seconds: float = math.inf
) -> Drained:
    """Until the spool is empty, spool or store fail, or the time is over. Never raises; what is not
    applied stays. What the store has lost meanwhile comes first."""
    latest = time.monotonic() + seconds
    counted: list[int] = []
    spool.check()  # only here: rows, identity and what is deleted belong to one file
    try:
        for _ in range(LOOKS):
            with suppress(Moved):
                problem = _hand_over(spool, store, batch, latest, counted)
                return Drained(sum(counted), problem)
        problem = f"{store.database.name}: other spools of this name are drained at the same time"
    except (SpoolError, StoreError) as error:
        problem = str(error)
    return Drained(sum(counted), problem)


def _hand_over(
    spool: SpoolFile, store: Store, batch: int, latest: float, counted: list[int]
) -> str:
    """How many were new in each batch goes to `counted`; why it stopped early, or "". Nothing is
    deleted that the store may not hold. Raises Moved: somebody else was counted under this name
    meanwhile; SpoolError, StoreError."""
    if not spool.last():
        return ""
    identity, last = _identity(spool, store)
    if last < (through := spool.drained()):
        counted.append(_again(spool, store, Gap(identity, last, through), batch))
        last = through
    while rows := spool.batch(batch):
        counted.append(store.apply(Batch(identity, host_name(), rows, after=last)))
        last = max(last, rows[-1][0])
        spool.delete(rows[-1][0])
        if time.monotonic() > latest and (waiting := spool.waiting()):
            return f"{waiting} more wait in the spool"
    return ""


def host_name() -> str:
    """As the store knows this host."""
    return socket.gethostname()


def _identity(spool: SpoolFile, store: Store) -> tuple[str, int]:
    """The spool's identity, and the last of its sequence numbers that the store has counted. A new
    identity where the store has counted further than this spool has ever been, or other messages
    under its numbers: it is an old copy, or a machine was copied with it and both go on."""
    identity = spool.identity()
    last, last_id = store.last_counted(identity)
    if last <= spool.last() and not _is_another(spool, last, last_id):
        return identity, last
    LOG.warning(
        "the store has counted other messages under the name of the spool %s than are in it: a"
        " restored copy, or the copy of a host? It gets a new identity, and nothing is lost",
        spool.path,
    )
    return spool.rename(), 0


def _is_another(spool: SpoolFile, last: int, last_id: str) -> bool:
    """Whether another message waits here under the last number that the store knows than the one
    that it counted. (The same does where a drain ended before the spool heard of it.)"""
    if not last_id or last <= spool.drained():
        return False
    rows = spool.batch(1, after=last - 1)
    return bool(rows) and rows[0][0] == last and rows[0][1].id != last_id


def _again(spool: SpoolFile, store: Store, gap: Gap, batch: int) -> int:
    """The store had these messages and has lost them (a restored backup, a failover, another file):
    those that are still kept are applied again; how many were new to it."""
    kept = spool.kept(gap.last)
    if store.note_gap(gap, host_name(), kept):
        LOG.error(
            "drain: the store %s has lost %d messages of this host (sequence %d to %d): %d are"
            " still kept and are applied again, %d are lost",
            store.database.name,
            gap.size,
            gap.last + 1,
            gap.through,
            kept,
            max(gap.size - kept, 0),
        )
    messages, last = 0, gap.last
    while rows := spool.kept_batch(last, batch):
        messages += store.apply(Batch(gap.identity, host_name(), rows))
        last = rows[-1][0]
    store.close_gap(gap)
    return messages


def keep_draining(
    spool: SpoolFile,
    store: Store,
    stop: Callable[[float], bool],
    *,
    interval: float = 5.0,
    longest: float = 60.0,
) -> None:
    """`drain` every `interval` seconds until `stop(seconds)`, which waits, returns true; while it
    fails less often.

    The spool's journal is moved into its file meanwhile, so that the mail path never has to, which
    would wait for the disk.
    """
    wait, problem, journal = interval, "", Journal(spool.path, spool.max_bytes)
    while True:
        started = time.monotonic()
        drained = drain(spool, store)
        _log_change(spool, problem, drained, time.monotonic() - started)
        problem = drained.problem
        wait = min(wait * 2, longest) if problem else interval
        waited = 0.0
        while waited < wait:
            if stop(min(interval, wait - waited)):
                journal.close()
                return
            waited += interval
            journal.tend()


def _log_change(spool: SpoolFile, before: str, drained: Drained, seconds: float) -> None:
    """Log a new problem once, and its end once. `before`: the problem of the last time, or ""."""
    if drained.problem and drained.problem != before:
        # Every SpoolError names its file.
        of_spool = drained.problem.startswith(f"{spool.path}: ")
        waits = "nothing can be read from the spool" if of_spool else "messages wait in the spool"
        LOG.error("drain: %s; %s", drained.problem, waits)
    elif before and not drained.problem:
        LOG.warning("drain: works again, %d messages in %.1f s", drained.messages, seconds)
