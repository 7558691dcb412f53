"""An MTA's connection that cannot be served: told so in the milter protocol, counted and logged.

An MTA that is hung up on does as its default_action says, which need not be 451.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import WorkerSlot
from dmarc_milter.session.packets import (
    Abort,
    Macro,
    OptNeg,
    Packet,
    ProtocolError,
    Quit,
    QuitNewConnection,
    Unrecognized,
)
from dmarc_milter.session.protocol import Decoder, Step, answer, negotiate
from dmarc_milter.session.session import OVERLOADED
from dmarc_milter.telemetry.counters import Meter
from dmarc_milter.telemetry.log import Log

READ: Final = 16 * 1024
PATIENCE: Final = 10.0
"""Seconds that an MTA has to hear its refusal."""
EVERY: Final = 10.0
"""Seconds between lines about connections that were not served."""
AT_ONCE: Final = 64
"""Refusals under way; others are hung up on."""
_SILENT: Final = (
    Step.SILENT_CONNECT
    | Step.SILENT_HELO
    | Step.SILENT_MAIL
    | Step.SILENT_RCPT
    | Step.SILENT_HEADER
    | Step.SILENT_END_OF_HEADERS
)
_READABLE: Final = 1
"""select.EPOLLIN"""


class Refusals:
    """All of one worker. In the loop's thread, but for `note`."""

    def __init__(self, loop: Loop, slot: WorkerSlot, log: Log, connections: int) -> None:
        """`connections`: how many the worker serves at once."""
        self._loop, self._log, self._meter = loop, log, Meter(slot)
        self.most = min(AT_ONCE, max(4, connections // 4))
        """How many are told so at once."""
        self._open: set[Refusal] = set()
        self._unsaid: Counter[str] = Counter()
        self._say_after = 0.0

    def refuse(
        self, sock: socket.socket, why: str, then: Callable[[], object] | None = None
    ) -> None:
        """Answer everything with 451 4.3.2, and close it within PATIENCE; then call back."""
        self.note(why)
        if len(self._open) < self.most:
            with contextlib.suppress(OSError):
                refusal = Refusal(self._loop, sock, self._open.discard, then)
                self._open.add(refusal)
                return
        _end(sock, then)

    def note(self, why: str) -> None:
        """Count one that is not served, and have it logged."""
        self._unsaid[why] += 1

    def tend(self) -> None:
        """Now and then: close what has had its time, count, and log one line for many."""
        now = time.monotonic()
        for refusal in list(self._open):
            refusal.tend(now)
        if not self._unsaid or now < self._say_after:
            return
        self._say_after = now + EVERY
        for why in list(self._unsaid):
            number = self._unsaid.pop(why)
            self._meter.count("connections_refused", number)
            self._log.warning("connections_refused", number=number, reason=why)

    def close(self) -> None:
        for refusal in list(self._open):
            refusal.close()


class Refusal:
    """One connection that is answered 451 whatever it says."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        done: Callable[[Refusal], None],
        then: Callable[[], object] | None,
    ) -> None:
        """Raises OSError; the socket is the caller's then."""
        self._loop, self._socket, self._done, self._then = loop, sock, done, then
        self._decoder = Decoder()
        self._until = time.monotonic() + PATIENCE
        self._answer = b""
        sock.setblocking(False)
        loop.watch(sock.fileno(), _READABLE, self._read)

    def tend(self, now: float) -> None:
        """Close it when its time is over."""
        if now > self._until:
            self.close()

    def close(self) -> None:
        """End it. May be repeated."""
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            _end(self._socket, self._then)
            self._done(self)

    def _read(self, _events: int) -> None:
        try:
            octets = self._socket.recv(READ)
            if not octets:
                self.close()
                return
            self._decoder.feed(octets)
            while (packet := self._decoder.next_packet()) is not None:
                self._hear(packet)
        except BlockingIOError:
            return
        except (OSError, ProtocolError, MemoryError):
            self.close()

    def _hear(self, packet: Packet) -> None:
        """Any step is answered with the refusal: all of them were asked to wait for an answer."""
        match packet:
            case OptNeg(version, changes, steps):
                agreement, reply = negotiate(OptNeg(version, changes, steps & ~_SILENT))
                self._answer = answer((OVERLOADED,), agreement)
                self._socket.send(reply)
            case Quit():
                self.close()
            case Macro() | Abort() | QuitNewConnection() | Unrecognized():
                pass
            case _:
                self._socket.send(self._answer)


def _end(sock: socket.socket, then: Callable[[], object] | None) -> None:
    sock.close()
    if then is not None:
        then()
