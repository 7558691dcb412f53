"""The spool as a worker's messages see it: all that ended in one turn of the loop are handed over
together, and each waits for its own record."""

from __future__ import annotations

from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.ledger.spool.spool import PATIENCE, Spool
from dmarc_milter.ledger.spool.writer import Entry
from dmarc_milter.process.loop import Loop


class LoopRecorder:
    """A Recorder (session/context.py). The spool must tell through `tell`."""

    def __init__(self, spool: Spool, loop: Loop, patience: float = PATIENCE) -> None:
        self._spool, self._loop, self._patience = spool, loop, patience
        self._turn: list[Entry] = []
        loop.at_end_of_turn(self._hand_over)

    def record(self, evaluation: Evaluation, sample: bytes | None = None) -> bool:
        """True once it will outlive this process; False when that is not known within a second."""
        spool, loop = self._spool, self._loop
        entry = spool.prepare(evaluation, sample, loop.current.wake)
        if entry is None:
            return False
        self._turn.append(entry)
        if spool.failing:
            return spool.abandon(entry)
        loop.park(self._patience)
        return entry.written or (not entry.refused and spool.abandon(entry))

    def _hand_over(self) -> None:
        """At the end of each turn."""
        if self._turn:
            entries, self._turn = self._turn, []
            if not self._spool.hand_over(entries):
                for entry in entries:
                    entry.told()
