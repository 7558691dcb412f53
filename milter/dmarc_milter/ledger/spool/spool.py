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
from queue import Empty, SimpleQueue
from typing import NamedTuple

from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.stored import encode, from_evaluation
from dmarc_milter.core.text import printable
from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolOptions, SpoolRow

LOG = logging.getLogger("dmarc_milter.ledger")

PATIENCE = 1.0
"""Seconds that an answer waits for the commit (docs/design.md, The ledger)."""
GROUP = 200
"""Messages in one commit at most."""
MAX_HELD = 1000
"""Messages kept in memory while the spool fails, for each worker."""
RETRY = 2.0
"""Seconds between attempts while the spool fails."""
LOOK = 1.0
"""Seconds between looks at the file while no message comes."""
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


class Entry:
    """One message on its way. `settled` becomes true when its fate is known, `written` says which;
    these change under the spool's mutex. `refused`: it was not even taken, which is counted.
    `told`: for whoever waits for it."""

    __slots__ = ("abandoned", "refused", "row", "settled", "told", "written")

    def __init__(self, row: SpoolRow, told: Callable[[], None]) -> None:
        self.row, self.told = row, told
        self.settled = self.written = self.abandoned = self.refused = False


Tell = Callable[[list[Entry]], None]
"""Calls what each entry has for whoever waits; runs in the writer's thread."""


def tell_at_once(entries: list[Entry]) -> None:
    """A Tell where threads wait."""
    for entry in entries:
        entry.told()


class Spool:
    """The ledger as the mail path sees it. Nothing is opened and no thread is started before the
    first record in this process.

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
        self._writer: _Writer | None = None
        self._recorded = self._unrecorded = self._late = self._lost = 0
        self._failing = False
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
        """To the writer. False: not even that could be done; they are refused, and counted."""
        try:
            self._start()
        except RuntimeError as error:  # no thread to be had
            LOG.error("spool: %s", error)
            return self._refuse(entries)
        if self._queue.qsize() + len(entries) > MAX_HELD:
            return self._refuse(entries)
        failing = self._failing
        for entry in entries:
            if failing:
                entry.row = entry.row._replace(sample=None)
            self._queue.put(entry)
        return True

    def counts(self) -> SpoolCounts:
        with self._mutex:
            return SpoolCounts(
                self._recorded, self._unrecorded, self._late, self._lost, self._failing
            )

    def close(self) -> None:
        """Write what is waiting, for five seconds at most, and stop. Safe to call when nothing was
        ever recorded."""
        writer = self._writer
        if writer is None or self._process != os.getpid():
            return
        self._queue.put(None)
        if unwritten := writer.stop(STOP_WAIT):
            LOG.error("spool: stopped with %d messages unwritten", unwritten)
        self._writer = None

    def _start(self) -> None:
        if self._writer is not None and self._process == os.getpid():
            return
        with self._mutex:
            if self._process != os.getpid():
                self._reset()  # forked: threads, queue and connection stayed with the parent
            if self._writer is None:
                self._writer = _Writer(
                    SpoolFile(self.path, self._options),
                    self._queue,
                    self._settle,
                    self._doubt,
                    self._retry,
                )

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


class _Writer:
    """The one thread of this process that touches the spool file."""

    def __init__(
        self,
        file: SpoolFile,
        queue: SimpleQueue[Entry | None],
        settle: Callable[[list[Entry], SpoolError | None, list[Entry]], None],
        doubt: Callable[[int, int], None],
        retry: float,
    ) -> None:
        self._file, self._queue, self._settle, self._doubt, self._retry = (
            file,
            queue,
            settle,
            doubt,
            retry,
        )
        self._held: list[Entry] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> int:
        """How many messages are left unwritten."""
        self._stopping.set()
        self._thread.join(seconds)
        # The last of the queue is the word to stop, if the thread has not come to it.
        return len(self._held) + max(self._queue.qsize() - self._thread.is_alive(), 0)

    def _run(self) -> None:
        held, ended = self._held, False
        while not ended or held:
            ended |= self._gather(held)
            failed = bool(held) and self._write(held)
            self._tell()
            if failed:
                if self._stopping.is_set():
                    self._lose(held)
                    break
                self._stopping.wait(self._retry)
            elif not held:
                self._look()
        self._look()
        self._file.close()

    def _look(self) -> None:
        """Nothing waits: see whether the file is still the one that was opened."""
        try:
            self._file.check()
        except Exception:
            LOG.exception("spool: checking the file failed")
        self._tell()

    def _tell(self) -> None:
        found = self._file.doubts()
        if found != (0, 0):
            self._doubt(*found)

    def _lose(self, held: list[Entry]) -> None:
        """Stopping, and the last attempt failed too: what waits goes with the process."""
        while True:
            try:
                entry = self._queue.get_nowait()
            except Empty:
                break
            if entry is not None:
                held.append(entry)
        self._settle(held, SpoolError("io", "stopped while failing"), held)

    def _gather(self, held: list[Entry]) -> bool:
        """Everything that waits, up to a group; waits only when nothing is held, and not for long.
        True when the end was met."""
        try:
            while len(held) < GROUP:
                entry = self._queue.get(block=not held, timeout=LOOK)
                if entry is None:
                    return True
                held.append(entry)
        except Empty:
            pass
        return False

    def _write(self, held: list[Entry]) -> bool:
        """Write and forget what is held; on failure keep it, tell the waiters, and return True."""
        try:
            self._file.write([entry.row for entry in held])
        except SpoolError as failure:
            self._settle(held, failure, [])
            return True
        except Exception as error:
            # A defect of ours: this group would fail forever, and the next ones must not wait
            # behind it.
            LOG.exception("spool: a group of %d messages could not be written", len(held))
            self._settle(held, SpoolError("io", repr(error)), held)
            held.clear()
            return False
        self._settle(held, None, [])
        held.clear()
        return False
