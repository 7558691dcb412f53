"""Connections that say something and that libmilter does not hear: where it can have no thread for
one it forgets it, and the MTA would wait for ever.

They are answered 451, or hung up on where they are in the middle of something. Those that libmilter
holds even then it will never close: once threads can be had again its worker is replaced.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Final

from dmarc_milter.process.silent_connections import MilterConnections, hang_up
from dmarc_milter.session.refusal import Refusals

PATIENCE: Final = 3.0
"""Seconds that something waits to be read before its connection counts as forgotten, where no
thread can be had."""
SLOW: Final = 15.0
"""The same where one can: libmilter may still come to it."""
HELD: Final = 5.0
"""Seconds after which libmilter should have closed what was hung up on."""
WHY: Final = "no thread can be had"


class Unserved:
    """Looks after them. In the loop's thread."""

    def __init__(self, kernel: MilterConnections, refusals: Refusals, most: int) -> None:
        self._kernel, self._refusals, self._most = kernel, refusals, most
        self._given_up: dict[int, tuple[int, float]] = {}
        """Inode of the connection, and when it was hung up on."""
        self._next = 0.0
        self.ended = ""
        """See library.MilterServer."""

    def tend(self, waiting: Mapping[int, float], busy: set[int], known: set[int]) -> None:
        """`waiting`: since when something waits to be read from whom; `busy`: whom a thread of
        libmilter's is at work for; `known`: who has negotiated."""
        now = time.monotonic()
        late = {
            handle: now - since
            for handle, since in waiting.items()
            if now - since >= PATIENCE and handle not in busy and not self._is_given_up(handle)
        }
        patience = SLOW if late and _thread_can_be_had() else PATIENCE
        for handle, seconds in late.items():
            if seconds >= patience:
                self._give_up(handle, stranger=handle not in known)
        if self._given_up and now >= self._next:
            self._next = now + 1.0
            self._look_at_given_up(now)

    def _give_up(self, handle: int, *, stranger: bool) -> None:
        self._given_up[handle] = (_inode(handle), math.inf)
        with contextlib.suppress(OSError):
            if stranger:
                mine = socket.socket(fileno=os.dup(handle))
                if self._kernel.is_ours(mine.fileno()):
                    self._refusals.refuse(mine, WHY, lambda: self._shut(handle))
                    return
                mine.close()
        self._refusals.note(WHY)
        self._shut(handle)

    def _shut(self, handle: int) -> None:
        given_up = self._given_up.get(handle)
        if given_up is not None and given_up[0] == _inode(handle):
            self._given_up[handle] = (given_up[0], time.monotonic())
            hang_up(handle, self._kernel)

    def _is_given_up(self, handle: int) -> bool:
        given_up = self._given_up.get(handle)
        return given_up is not None and given_up[0] == _inode(handle)

    def _look_at_given_up(self, now: float) -> None:
        for handle in [each for each in self._given_up if not self._is_given_up(each)]:
            del self._given_up[handle]
        held = sum(now - since > HELD for _, since in self._given_up.values())
        if held and (held > self._most // 2 or _thread_can_be_had()):
            self.ended = f"libmilter holds {held} connections that it does not serve"


def _inode(handle: int) -> int:
    try:
        return os.fstat(handle).st_ino
    except OSError:
        return 0


def _thread_can_be_had() -> bool:
    thread = threading.Thread(target=lambda: None, name="limit")
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True
