"""The milter protocol served by the worker's own loop: MTAs are accepted, counted, and hung up on
where they are too many or too silent.

session/mta_connection.py is one connection, session/protocol.py the protocol.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import time
from typing import Final

from dmarc_milter.process.timers import Timer
from dmarc_milter.session.choose_library import Serving
from dmarc_milter.session.mta_connection import MtaConnection
from dmarc_milter.session.refusal import EVERY, Refusals
from dmarc_milter.session.session import Session

ACCEPT_AT_ONCE: Final = 8
"""Connections taken in one turn: the others are for the workers beside this one."""
PATIENCE: Final = 0.005
"""Seconds that connections are left to the worker beside this one whose they are, before one that
is still there is taken here."""
LONGEST_PATIENCE: Final = 0.04
"""The same, after there was nothing left a few times: this worker is not needed, and need not
wake."""
REST: Final = 0.25
"""Seconds without accepting after descriptors or memory ran out."""
SPARE: Final = 4
"""Descriptors kept back: with them an MTA can be told that there are no others."""
LOOK: Final = 1.0
"""Seconds between looks for those that have been silent for too long."""


class NativeServer:
    """All MTA connections of one worker. Everything happens in the loop's thread."""

    def __init__(self, serving: Serving) -> None:
        """Begins to accept."""
        self._loop, self._log, self._limits = serving.loop, serving.log, serving.limits
        self._make_session, self._slot = serving.make_session, serving.slot
        self._takes_next, self._patience = serving.takes_next, PATIENCE
        self._later: Timer | None = None
        """Stepped back for another worker until then."""
        self._listening: socket.socket | None = serving.listening
        self._tcp = serving.listening.family != socket.AF_UNIX
        self._connections: dict[MtaConnection, str] = {}
        """With their names: "" before the negotiation."""
        self._negotiated = 0
        self._complained: set[MtaConnection] = set()
        self._draining = False
        self._refusals = Refusals(
            serving.loop, serving.slot, serving.log, serving.limits.connections
        )
        self._spare: list[int] = []
        self._keep_spare()
        self._next_look = self._say_after = 0.0
        serving.listening.setblocking(False)
        self._loop.watch(serving.listening.fileno(), select.EPOLLIN, self._somebody_calls)
        self._slot.accepting = True

    @property
    def count(self) -> int:
        """Open connections."""
        return len(self._connections)

    @property
    def failure(self) -> str:
        """See choose_library.MilterServer: it has no threads that could end."""
        return ""

    @property
    def worn_out(self) -> str:
        """See choose_library.MilterServer."""
        return ""

    @property
    def forgotten(self) -> int:
        """See choose_library.MilterServer."""
        return 0

    def tend(self) -> None:
        """See choose_library.MilterServer."""
        self._refusals.tend()
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK
        self._keep_spare()
        for connection in list(self._connections):
            silent_since = connection.silent_since
            if silent_since is not None and now - silent_since > self._limits.silence:
                connection.close()

    def drain(self) -> None:
        """See choose_library.MilterServer. Those that the MTA keeps for a client to come end."""
        self._draining = True
        self._stop_accepting()
        for connection in list(self._connections):
            if connection.is_spare:
                connection.close()

    def close(self) -> None:
        """End everything, messages too."""
        self._stop_accepting()
        self._refusals.close()
        for connection in list(self._connections):
            connection.close()

    def _stop_accepting(self) -> None:
        self._slot.accepting = False
        if self._listening is not None:
            self._loop.forget(self._listening.fileno())
            self._listening.close()
            self._listening = None

    # What a connection asks of its owner.

    def negotiated(self, connection: MtaConnection) -> Session:
        """See mta_connection.Owner."""
        name = "c" + secrets.token_hex(6)
        session = self._make_session(name)
        self._connections[connection] = name
        self._negotiated += 1
        self._show()
        return session

    def client_gone(self, connection: MtaConnection) -> None:
        """See mta_connection.Owner."""
        if self._draining:
            connection.close()

    def complain(self, connection: MtaConnection, what: str) -> None:
        """See mta_connection.Owner. One line for each connection."""
        if connection not in self._complained:
            self._complained.add(connection)
            self._log.warning("mta_packet", id=self._connections.get(connection, ""), reason=what)

    def ended(self, connection: MtaConnection) -> None:
        """See mta_connection.Owner."""
        self._complained.discard(connection)
        if self._connections.pop(connection, ""):
            self._negotiated -= 1
        self._show()
        self._look_again()

    def _show(self) -> None:
        self._slot.sessions = self._negotiated
        self._slot.silent = len(self._connections) - self._negotiated

    # Accepting.

    def _somebody_calls(self, _events: int) -> None:
        """The kernel wakes all workers that wait, whoever's the connection is."""
        if self._takes_next():
            self._patience = PATIENCE
            self._accept()
        elif self._listening is not None:
            self._loop.change(self._listening.fileno(), 0)
            self._later = self._loop.call_later(self._patience, self._take_what_is_left)
            self._patience = min(2 * self._patience, LONGEST_PATIENCE)

    def _look_again(self) -> None:
        """One connection less: the next may be ours now, and its MTA waits."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
            self._patience = PATIENCE
            self._go_on_accepting()

    def _take_what_is_left(self) -> None:
        self._later = None
        self._go_on_accepting()
        if self._accept():
            self._patience = PATIENCE

    def _accept(self) -> bool:
        """Whether there was one."""
        found = False
        for _ in range(ACCEPT_AT_ONCE):
            if self._listening is None:
                break
            try:
                sock, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                break
            except OSError as error:
                self._rest(error)
                break
            self._take(sock)
            found = True
        return found

    def _take(self, sock: socket.socket) -> None:
        """One more, if there is room or somebody can go; else the MTA is told to come back."""
        if len(self._connections) >= self._limits.connections and not self._make_room():
            self._refusals.refuse(sock, f"{self._limits.connections} connections are served")
            return
        try:
            sock.setblocking(False)
            if self._tcp:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = MtaConnection(self._loop, sock, self, quick=self._tcp)
        except OSError as error:
            self._refusals.refuse(sock, error.strerror or str(error))
            return
        self._connections[connection] = ""
        self._show()

    def _make_room(self) -> bool:
        """Hang up on the connection that has been silent for longest, among those that are in no
        message; whether there was one."""
        idle = [connection for connection in self._connections if connection.is_idle]
        if not idle:
            return False
        min(idle, key=lambda connection: connection.heard).close()
        return True

    def _rest(self, error: OSError) -> None:
        """Out of descriptors or memory: a listener that stays ready would keep the loop busy with
        nothing."""
        now = time.monotonic()
        if now >= self._say_after:
            self._say_after = now + EVERY
            self._log.warning("mta_accept", failure=error.strerror or str(error))
        if not self._make_room() and self._spare and self._listening is not None:
            os.close(self._spare.pop())
            with contextlib.suppress(OSError):
                sock, _ = self._listening.accept()
                self._refusals.refuse(sock, error.strerror or str(error))
        if self._listening is not None:
            self._loop.change(self._listening.fileno(), 0)
            self._loop.call_later(REST, self._go_on_accepting)

    def _keep_spare(self) -> None:
        """Have so many descriptors kept back, if they can be had."""
        with contextlib.suppress(OSError):
            while len(self._spare) < SPARE:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _go_on_accepting(self) -> None:
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._loop.change(self._listening.fileno(), select.EPOLLIN)
