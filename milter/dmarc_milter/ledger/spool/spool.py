"""Recorded before answered: the hand-over of evaluations to the local spool through one writer,
which has a thread of its own because a commit may take long.

The mail path waits for a commit for one second at most. While the spool fails it does not wait at
all: what could not be written is kept in memory, within a bound, and written when the spool works
again; the writer tries again every few seconds by itself.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.stored import encode
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.core.text import printable
from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolOptions, SpoolRow
from dmarc_milter.ledger.spool.writer import Entry, Writer

LOG = logging.getLogger("dmarc_milter.ledger")

PATIENCE = 1.0
"""Seconds that an answer waits for the commit (docs/design.md, The ledger)."""
MAX_HELD = 1000
"""Messages kept in memory while the spool fails, for each worker."""
RETRY = 2.0
"""Seconds between attempts while the spool fails."""
STOP_WAIT = 5.0
CHECKPOINT = 250_000
"""Pages of journal (1 GB). Moving it into the file waits for the disk, which is the drain's work;
this is only for a host on which no drain runs at all."""


class SpoolCounts(NamedTuple):
    """Messages of this process. `late` were answered as unrecorded and written afterwards; `lost`
    never will be."""

    recorded: int
    unrecorded: int
    late: int
    lost: int
    failing: bool


Tell = Callable[[list[Entry]], None]
"""Calls what each entry has for whoever waits; runs in the writer's thread."""


def tell_at_once(entries: list[Entry]) -> None:
    """A Tell where threads wait."""
    for entry in entries:
        entry.told()


class Spool:
    """The ledger as the mail path sees it. Nothing is opened before the first record in this
    process, and no thread is started before that or `start`.

    `record` and `put` wait. Who must not wait uses `prepare`, `hand_over` and `abandon`, and is
    told through `tell`.
    """

    def __init__(
        self,
        path: Path,
        options: SpoolOptions = SpoolOptions(),
        *,
        patience: float = PATIENCE,
        retry: float = RETRY,
        tell: Tell = tell_at_once,
    ) -> None:
        self.path = path
        self._tell = tell
        self._options = replace(options, checkpoint=CHECKPOINT)
        self._patience = patience
        self._retry = retry
        self._mutex = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._queue: SimpleQueue[Entry | None] = SimpleQueue()
        self._writer: Writer | None = None
        self._recorded = self._unrecorded = self._late = self._lost = 0
        self._failing = self._no_writer = False
        self._problem = ""

    @property
    def failing(self) -> bool:
        """Whether nothing is waited for: the last attempt to write failed, or took too long."""
        return self._failing

    def record(self, evaluation: Evaluation, sample: bytes | None = None) -> bool:
        """True once the evaluation will outlive this process. False: not known to within a second;
        it is counted, and the mail goes on.

        `sample` are header fields for a failure report, redacted. Never raises.
        """
        waiter = threading.Semaphore(0)
        entry = self.prepare(evaluation, sample, waiter.release)
        return entry is not None and self._wait(entry, waiter)

    def put(self, row: SpoolRow) -> bool:
        """`record` for facts that are encoded already."""
        waiter = threading.Semaphore(0)
        return self._wait(Entry(row, waiter.release), waiter)

    def _wait(self, entry: Entry, waiter: threading.Semaphore) -> bool:
        failing = self._failing
        if not self.hand_over([entry]):
            return False
        if not failing and waiter.acquire(timeout=self._patience) and entry.written:
            return True
        return self.abandon(entry)

    def prepare(
        self, evaluation: Evaluation, sample: bytes | None, told: Callable[[], None]
    ) -> Entry | None:
        """What is to be handed over; None if that is impossible, which is counted."""
        try:
            row = SpoolRow(evaluation.id, encode(from_evaluation(evaluation)), sample)
        except Exception:
            # A defect of ours in what is only book-keeping: it must not refuse mail.
            LOG.exception(
                "%s: the evaluation could not be turned into facts",
                printable(evaluation.envelope.queue_id, 64),
            )
            self._give_up(1)
            return None
        return Entry(row, told)

    def hand_over(self, entries: list[Entry]) -> bool:
        """To the writer. False: not even that could be done; they are refused, and counted.

        Where no thread can be had they wait in memory, as for any other failure.
        """
        self.tend()
        if self._queue.qsize() + len(entries) > MAX_HELD:
            return self._refuse(entries)
        failing = self._failing
        for entry in entries:
            if failing:
                entry.row = entry.row._replace(sample=None)
            self._queue.put(entry)
        return True

    def start(self) -> None:
        """Start the writer now. Raises RuntimeError where no thread can be had."""
        with self._mutex:
            if self._process != os.getpid():
                self._reset()  # forked: threads, queue and connection stayed with the parent
            if self._writer is None:
                self._writer = Writer(
                    SpoolFile(self.path, self._options),
                    self._queue,
                    self._settle,
                    self._doubt,
                    self._retry,
                )
            self._writer.start()

    def tend(self) -> None:
        """Start the writer where it does not run: it never began, or it met its end. Cheap where it
        does. One thread at a time may call this or hand over."""
        writer = self._writer
        if writer is not None and writer.alive and self._process == os.getpid():
            return
        try:
            self.start()
        except (RuntimeError, MemoryError) as error:
            with self._mutex:
                said, self._no_writer, self._failing = self._no_writer, True, True
            if not said:
                LOG.error("spool: no writer: %s; messages wait in memory", error)
            return
        with self._mutex:
            said, self._no_writer = self._no_writer, False
            if said and not self._problem and not self._queue.qsize():
                self._failing = False  # nothing waits whose writing would tell
        if said:
            LOG.warning("spool: the writer runs again")

    def counts(self) -> SpoolCounts:
        with self._mutex:
            return SpoolCounts(
                self._recorded, self._unrecorded, self._late, self._lost, self._failing
            )

    def close(self) -> None:
        """Write what is waiting, for five seconds at most, and stop. Safe to call when nothing was
        ever recorded."""
        if self._process != os.getpid():
            return
        unwritten = self._queue.qsize()
        if self._writer is not None:
            self._queue.put(None)
            unwritten = self._writer.stop(STOP_WAIT)
        if unwritten:
            LOG.error("spool: stopped with %d messages unwritten", unwritten)
        self._writer = None

    def _refuse(self, entries: list[Entry]) -> bool:
        for entry in entries:
            entry.refused = True
        self._give_up(len(entries))
        return False

    def _give_up(self, count: int) -> None:
        with self._mutex:
            self._unrecorded += count
            self._lost += count

    def abandon(self, entry: Entry) -> bool:
        """The second is over, or was not given: unless the commit came just now, the message counts
        as unrecorded. Whether it is written."""
        with self._mutex:
            if entry.written:
                return True
            entry.abandoned = True
            self._unrecorded += 1
            stalled = not self._failing
            self._failing = True
        if stalled:
            LOG.error(
                "spool: no commit within %.1f s; mail goes on, messages are counted as unrecorded",
                self._patience,
            )
        return False

    def _settle(
        self, entries: list[Entry], failure: SpoolError | None, dropped: list[Entry]
    ) -> None:
        """The writer's news about a group: written (`failure` is None) or not; `dropped` are given
        up for good."""
        with self._mutex:
            was, self._failing = self._failing, failure is not None
            before, self._problem = self._problem, str(failure or "")
            if failure is None:
                self._recorded += len(entries)
                for entry in entries:
                    entry.written = True
                    self._late += entry.abandoned
            self._lost += len(dropped)
            waiting = [entry for entry in entries if not entry.abandoned and not entry.settled]
            for entry in waiting:
                entry.settled = True
        if waiting:
            self._tell(waiting)
        if failure is not None and str(failure) != before:
            LOG.error("spool: %s; mail goes on, messages are counted as unrecorded", failure)
        elif failure is None and was:
            LOG.warning("spool works again")

    def _doubt(self, doubted: int, restored: int) -> None:
        """Messages whose record stood in a file that was damaged count as unrecorded, and as late
        once they are written again."""
        with self._mutex:
            self._unrecorded += doubted
            self._late += restored
