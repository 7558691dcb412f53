"""The spool's writer: the one thread of a process that touches its file, and what it is given."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolRow

LOG = logging.getLogger("dmarc_milter.ledger")

GROUP = 200
"""Messages in one commit at most."""
LOOK = 1.0
"""Seconds between looks at the file while no message comes."""


class Entry:
    """One message on its way. `settled` becomes true when its fate is known, `written` says which;
    these change under the spool's mutex. `refused`: it was not even taken, which is counted.
    `told`: for whoever waits for it."""

    __slots__ = ("abandoned", "refused", "row", "settled", "told", "written")

    def __init__(self, row: SpoolRow, told: Callable[[], None]) -> None:
        self.row, self.told = row, told
        self.settled = self.written = self.abandoned = self.refused = False


class Writer:
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
        self._ended = False
        """The word to stop has come."""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start its thread, or one that goes on with what the last one left. Raises RuntimeError
        where none can be had."""
        if not self.alive:
            thread = threading.Thread(target=self._run, name="spool", daemon=True)
            thread.start()
            self._thread = thread

    def stop(self, seconds: float) -> int:
        """How many messages are left unwritten."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(seconds)
        # One of the queue is the word to stop, if the thread has not come to it.
        return len(self._held) + max(self._queue.qsize() - (not self._ended), 0)

    def _run(self) -> None:
        """Until the end, whatever happens: want of memory passes."""
        while True:
            try:
                self._work()
            except Exception:
                with suppress(Exception):
                    LOG.exception("spool: the writer met a failure; it goes on")
                self._stopping.wait(self._retry)
                if self._stopping.is_set():
                    return
            else:
                return

    def _work(self) -> None:
        held = self._held
        while not self._ended or held:
            self._ended = self._ended or self._gather(held)
            has_some = bool(held)
            failed = has_some and self._write(held)
            self._tell()
            if failed:
                if self._stopping.is_set():
                    self._lose(held)
                    break
                self._stopping.wait(self._retry)
            elif not has_some:
                self._look()  # after a commit the file has just been looked at
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
        except MemoryError:  # also SQLite's, SQLITE_NOMEM
            self._settle(held, SpoolError("io", f"{self._file.path}: out of memory"), [])
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
