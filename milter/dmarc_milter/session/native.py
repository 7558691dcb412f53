"""The milter protocol served by the worker's own loop: MTAs are accepted, counted, and hung up on
where they are too many or too silent.

session/mta_connection.py is one connection, session/protocol.py the protocol.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import WorkerSlot
from dmarc_milter.session.mta_connection import MtaConnection
from dmarc_milter.session.session import Session
from dmarc_milter.telemetry.log import Log

ACCEPT_AT_ONCE: Final = 8
"""Connections taken in one turn: the others are for the workers beside this one."""
REST: Final = 0.25
"""Seconds without accepting after descriptors or memory ran out."""
LOOK: Final = 1.0
"""Seconds between looks for those that are silent for too long."""

MakeSession = Callable[[str], Session]
"""Makes the session of a new connection from the connection's name."""


class Limits(NamedTuple):
    """What MTAs may ask of one worker."""

    connections: int = 1000
    silence: float = 300.0
    """Seconds without a whole packet, or with an answer that is not read."""


class NativeServer:
    """All MTA connections of one worker. Everything happens in the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        listening: socket.socket,
        make_session: MakeSession,
        slot: WorkerSlot,
        log: Log,
        limits: Limits,
    ) -> None:
        """Begins to accept. The socket is the server's from now on."""
        self._loop, self._make_session, self._slot, self._log = loop, make_session, slot, log
        self._limits = limits
        self._listening: socket.socket | None = listening
        self._tcp = listening.family != socket.AF_UNIX
        self._connections: dict[MtaConnection, str] = {}
        """With their names: "" before the negotiation."""
        self._negotiated = 0
        self._complained: set[MtaConnection] = set()
        self._draining = False
        listening.setblocking(False)
        loop.watch(listening.fileno(), select.EPOLLIN, self._accept)
        loop.call_later(LOOK, self._look)

    @property
    def count(self) -> int:
        """Open connections."""
        return len(self._connections)

    def drain(self) -> None:
        """Take no more connections: they wait in the shared queue for another worker. Those that
        have no client behind them end; the others are served until they end."""
        self._draining = True
        self._stop_accepting()
        for connection in list(self._connections):
            if connection.session is not None and not connection.has_client and connection.is_idle:
                connection.close()

    def close(self) -> None:
        """End everything, messages too."""
        self._stop_accepting()
        for connection in list(self._connections):
            connection.close()

    def _stop_accepting(self) -> None:
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

    def _show(self) -> None:
        self._slot.sessions = self._negotiated
        self._slot.silent = len(self._connections) - self._negotiated

    # Accepting.

    def _accept(self, _events: int) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            if self._listening is None:
                return
            try:
                sock, _ = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                self._rest(error)
                return
            self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        """One more, if there is room or somebody can go; else the MTA does as its default_action
        says."""
        if len(self._connections) >= self._limits.connections and not self._make_room():
            sock.close()
            return
        try:
            sock.setblocking(False)
            if self._tcp:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = MtaConnection(self._loop, sock, self, quick=self._tcp)
        except OSError:
            sock.close()
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
        self._log.warning("mta_accept", failure=error.strerror or str(error))
        self._make_room()
        if self._listening is not None:
            self._loop.change(self._listening.fileno(), 0)
            self._loop.call_later(REST, self._go_on_accepting)

    def _go_on_accepting(self) -> None:
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._loop.change(self._listening.fileno(), select.EPOLLIN)

    def _look(self) -> None:
        """Hang up on those that have been silent for too long, in a message too."""
        self._loop.call_later(LOOK, self._look)
        since = time.monotonic() - self._limits.silence
        for connection in list(self._connections):
            silent_since = connection.silent_since
            if silent_since is not None and silent_since < since:
                connection.close()
