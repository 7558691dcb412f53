"""Connections that say something and that libmilter does not hear: where it can have no thread for
one it forgets it, and the MTA would wait for ever.

They are answered 451, or hung up on where they are in the middle of something. Those that libmilter
holds even then it will never close: once threads can be had again its worker is replaced.

Nobody is given up on one sighting: it is the same connection at every look (not only the same
number), with the same octets unread, and nothing of it was heard in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from dmarc_milter.process.silent_connections import Identity, MilterConnections
from dmarc_milter.session.refusal import Refusals

PATIENCE: Final = 3.0
"""Seconds that the same octets wait to be read, with no thread to be had at any look, before the
connection counts as forgotten."""
SLOW: Final = 15.0
"""The same where one can be had: libmilter may still come to it."""
HELD: Final = 5.0
"""Seconds after which libmilter should have closed what was hung up on."""
STEP: Final = 1.5
"""Seconds at most that count from one look to the next: when the whole process stood still,
nobody could have read anything."""
NO_THREAD: Final = "no thread can be had"
NOT_READ: Final = "libmilter reads nothing from it"


class _Sighting(NamedTuple):
    mark: tuple[Identity, int, object]
    """The connection, how much of it is unread, and how far it has come."""
    seconds: float
    """For so long all that has stayed the same."""
    short: float
    """For so long of it, until now, no thread could be had."""


@dataclass(slots=True)
class _GivenUp:
    identity: Identity
    hung_up: bool = False
    seconds: float = 0.0
    """So long libmilter has held it since."""


def _thread_can_be_had() -> bool:
    thread = threading.Thread(target=lambda: None, name="limit")
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        return False
    thread.join()
    return True


class Unserved:
    """Looks after them. In the loop's thread."""

    def __init__(
        self,
        kernel: MilterConnections,
        refusals: Refusals,
        most: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        thread_can_be_had: Callable[[], bool] = _thread_can_be_had,
    ) -> None:
        self._kernel, self._refusals, self._most = kernel, refusals, most
        self._clock, self._thread_can_be_had = clock, thread_can_be_had
        self._looked = clock()
        self._seen: dict[int, _Sighting] = {}
        self._given_up: dict[int, _GivenUp] = {}
        self.held: set[int] = set()
        """Descriptors that libmilter will never close, as of the last look."""
        self.ended = ""
        """See choose_library.MilterServer.worn_out."""

    def tend(self, waiting: Iterable[int], busy: set[int], progress: Mapping[int, object]) -> None:
        """After each look. `waiting`: whose octets wait to be read, by that look; `busy`: whom a
        thread of libmilter's is at work for; `progress`: of whom has negotiated, something that
        changes with whatever is heard of it."""
        now = self._clock()
        passed, self._looked = min(now - self._looked, STEP), now
        self._look_at_unread(waiting, busy, progress, passed)
        self._look_at_given_up(busy, passed)

    def _look_at_unread(
        self, waiting: Iterable[int], busy: set[int], progress: Mapping[int, object], passed: float
    ) -> None:
        given_up = {each.identity for each in self._given_up.values()}
        marks: dict[int, tuple[Identity, int, object]] = {}
        for handle in waiting:
            identity, unread = self._kernel.identity(handle), self._kernel.unread(handle)
            if identity and unread and identity not in given_up and handle not in busy:
                marks[handle] = (identity, unread, progress.get(handle))
        before = {
            handle: self._seen[handle]
            for handle, mark in marks.items()
            if handle in self._seen and self._seen[handle].mark == mark
        }
        short = bool(before) and not self._thread_can_be_had()
        self._seen = {handle: _Sighting(mark, 0.0, 0.0) for handle, mark in marks.items()}
        for handle, (mark, seconds, without) in before.items():
            self._seen[handle] = seen = _Sighting(
                mark, seconds + passed, without + passed if short else 0.0
            )
            if seen.short >= PATIENCE or seen.seconds >= SLOW:
                why = NO_THREAD if seen.short >= PATIENCE else NOT_READ
                self._give_up(handle, mark[0], why, stranger=handle not in progress)

    def _give_up(self, handle: int, identity: Identity, why: str, *, stranger: bool) -> None:
        self._seen.pop(handle)
        mine = self._kernel.duplicate(handle, identity) if stranger else None
        if mine is not None:
            self._given_up[handle] = _GivenUp(identity)
            self._refusals.refuse(mine, why, lambda: self._hang_up(handle, identity))
        elif self._hang_up(handle, identity):
            self._refusals.note(why)

    def _hang_up(self, handle: int, identity: Identity) -> bool:
        """Whether it was still that connection."""
        if self._kernel.hang_up(handle, identity):
            self._given_up[handle] = _GivenUp(identity, hung_up=True)
            return True
        if handle in self._given_up and self._given_up[handle].identity == identity:
            del self._given_up[handle]
        return False

    def _look_at_given_up(self, busy: set[int], passed: float) -> None:
        for handle, each in list(self._given_up.items()):
            if self._kernel.identity(handle) != each.identity:
                del self._given_up[handle]  # libmilter has closed it
            elif each.hung_up:
                each.seconds = 0.0 if handle in busy else each.seconds + passed
        self.held = {handle for handle, each in self._given_up.items() if each.seconds > HELD}
        held = len(self.held)
        if held and (held >= self._most or self._thread_can_be_had()):
            self.ended = f"libmilter holds {held} connections that it does not serve"
