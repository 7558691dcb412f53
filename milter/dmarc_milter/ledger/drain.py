"""The drain job: from this host's spool to the store, in batches that are applied exactly once."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from dmarc_milter.ledger.errors import SpoolError, StoreError
from dmarc_milter.ledger.spool.file import SpoolFile
from dmarc_milter.ledger.spool.journal import Journal
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.gaps import Gap
from dmarc_milter.ledger.store.store import Store

LOG = logging.getLogger("dmarc_milter.ledger")

BATCH = 2000
"""Messages in one transaction of the store."""


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
    messages = 0
    spool.check()  # only here: rows, identity and what is deleted belong to one file
    try:
        if not spool.last():
            return Drained(0)
        identity, last = _identity(spool, store)
        if last < (through := spool.drained()):
            messages += _again(spool, store, Gap(identity, last, through), batch)
        while rows := spool.batch(batch):
            messages += store.apply(Batch(identity, host_name(), rows))
            spool.delete(rows[-1][0])
            if time.monotonic() > latest and (waiting := spool.waiting()):
                return Drained(messages, f"{waiting} more wait in the spool")
    except (SpoolError, StoreError) as error:
        return Drained(messages, str(error))
    return Drained(messages)


def host_name() -> str:
    """As the store knows this host."""
    return socket.gethostname()


def _identity(spool: SpoolFile, store: Store) -> tuple[str, int]:
    """The spool's identity, and the last of its sequence numbers that the store has counted. A new
    identity where the store has counted further than this spool has ever been, or other messages
    under its numbers: it is an old copy, or a machine was copied with it and both go on."""
    identity = spool.identity()
    last = store.last_sequence(identity)
    if last <= spool.last() and not _counted_others(spool, store, last):
        return identity, last
    LOG.warning(
        "the store has counted other messages under the name of the spool %s than are in it: a"
        " restored copy, or the copy of a host? It gets a new identity, and nothing is lost",
        spool.path,
    )
    return spool.rename(), 0


def _counted_others(spool: SpoolFile, store: Store, last: int) -> bool:
    """Whether the store has not counted the message that waits here under the last number that it
    knows. (It has where a drain ended after it was counted and before the spool heard of it.)"""
    rows = spool.batch(1, after=last - 1) if last > spool.drained() else []
    return bool(rows) and rows[0][0] == last and not store.has(rows[0][1].id)


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
