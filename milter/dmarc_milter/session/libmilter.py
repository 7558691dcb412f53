"""pymilter, adapted: libmilter's callbacks find their Connection, and libmilter is started.

The callbacks use pymilter's C module directly. They collect and wait, nothing else, and what they
collect is handed to the loop's thread (event_queue.py): Debian's libmilter moves a session between
its threads while pymilter keeps one interpreter state for each session, so anything that asks for
the interpreter by PyGILState (sqlite3, lxml, ctypes callbacks...) would crash on them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from Milter import milter  # the C module: by its own name mypy would find the source root

from dmarc_milter.process.shared_memory import WorkerSlot
from dmarc_milter.process.silent_connections import Identity, MilterConnections, Strangers
from dmarc_milter.process.sockets import never_ready
from dmarc_milter.process.spare_descriptors import SpareDescriptors
from dmarc_milter.session.choose_library import Serving
from dmarc_milter.session.connection import Connection
from dmarc_milter.session.event_queue import EventQueue
from dmarc_milter.session.guard import Report, guarded
from dmarc_milter.session.libmilter_start import start
from dmarc_milter.session.refusal import PATIENCE, Refusals
from dmarc_milter.session.unserved import Unserved

SHORT = "no descriptor is left"
_LEADING_SPACE, _SILENT_HEADER = int(milter.P_HDR_LEADSPC), int(milter.P_NR_HDR)
_NO_REPLY, _CONTINUE = int(milter.NOREPLY), int(milter.CONTINUE)


def _guarded(where: str, event: Callable[..., int], failing: int = milter.CONTINUE) -> Any:
    """The callback with the guard. Its first argument, pymilter's context, has the Connection."""

    def report(ctx: Any) -> Report:
        connection: Connection = ctx.getpriv()
        return connection.failed

    return guarded(report, int(failing), where)(event)


class Callbacks:
    """What libmilter calls; makes, finds and ends the Connection of each context."""

    def __init__(
        self,
        new_queue: Callable[[str], EventQueue],
        slot: WorkerSlot,
        max_connections: int,
        connections: MilterConnections,
        refusals: Refusals,
    ) -> None:
        self._new_queue = new_queue
        self._slot = slot
        self._max = max_connections
        self._kernel = connections
        self._refusals, self._spare = refusals, SpareDescriptors()
        self._unserved = Unserved(connections, refusals, max_connections)
        self._lock = threading.Lock()
        """Held while the table of connections changes, and while one is hung up: its descriptor is
        its own as long as it is there."""
        self._connections: dict[int, Connection] = {}
        self._strangers = Strangers(connections)
        self._blind = False
        """A session's descriptor could not be told: nobody is hung up on, for it might be somebody
        in a message."""
        self._turned_away: dict[int, tuple[Identity | None, int]] = {}
        """By descriptor: who was refused last, and what was agreed with it. After QUIT_NC it may
        come again, without a negotiation."""
        self._refused = 0
        """Of the connections: there is no room for them, and they are told so."""
        self._negotiated = 0
        """What the MTA agreed to last: holds too for a connection that follows QUIT_NC, which
        negotiates nothing."""
        self._local = (
            threading.local()
        )  # one for each session: pymilter gives every session an interpreter state of its own

    def register(self, name: str) -> None:
        """Hand the callbacks to pymilter.

        libmilter ignores an exception in a callback without a reply: the guard reports it to the
        session, for its end of message.
        """
        milter.set_connect_callback(
            _guarded("connect", lambda ctx, _host, _family, peer: self._of(ctx).connect(ctx, peer))
        )
        milter.set_helo_callback(_guarded("helo", lambda ctx, name: self._of(ctx).helo(name, ctx)))
        milter.set_envfrom_callback(
            _guarded("mail", lambda ctx, path, *esmtp: self._of(ctx).mail(ctx, path, esmtp))
        )
        milter.set_envrcpt_callback(
            _guarded("rcpt", lambda ctx, path, *_: self._of(ctx).rcpt(path))
        )
        milter.set_header_callback(self._header)
        milter.set_eoh_callback(
            _guarded("end_of_headers", lambda ctx: self._of(ctx).end_of_headers(ctx))
        )
        milter.set_body_callback(_guarded("body", lambda ctx, chunk: self._of(ctx).body(chunk)))
        milter.set_eom_callback(
            _guarded(
                "end_of_message", lambda ctx: self._of(ctx).end_of_message(ctx), milter.TEMPFAIL
            )
        )
        milter.set_abort_callback(_guarded("abort", self._abort))
        milter.set_close_callback(_guarded("close", self._close))
        milter.set_exception_policy(milter.CONTINUE)
        milter.register(
            name, negotiate=_guarded("negotiate", self._negotiate, failing=milter.REJECT)
        )
        sys.excepthook = self._excepthook

    def _negotiate(self, ctx: Any, options: list[int]) -> int:
        short = self._spare.short
        full = short or self._is_full()
        if full:
            self._refusals.note(SHORT if short else f"{self._max} connections are served")
            if self._refused >= self._refusals.most:
                return int(milter.REJECT)  # the MTA does as its default_action says
        connection = self._of(ctx)
        if full:
            self._refuse(connection)
        answer = connection.negotiate(ctx, options)
        if not connection.refused:
            self._negotiated = connection.protocol
        return answer

    def _is_full(self) -> bool:
        return self._total() >= self._max and not self._make_room()

    def _refuse(self, connection: Connection, *, refused: bool = True) -> None:
        with self._lock:
            self._refused += refused - connection.refused
            connection.refused = refused

    def _come_again(self, connection: Connection) -> None:
        """It may be one that was refused, after QUIT_NC: it is served if there is room now."""
        identity, protocol = self._turned_away.pop(connection.handle, (None, 0))
        if identity is not None and identity == self._kernel.identity(connection.handle):
            connection.protocol = protocol
            self._refuse(connection)  # it takes no room, and does not go for itself
            if self._is_full():
                self._refusals.note(f"{self._max} connections are served")
            else:
                self._refuse(connection, refused=False)

    def _of(self, ctx: Any) -> Connection:
        connection: Connection | None = ctx.getpriv()
        if connection is None:
            queue = self._new_queue("c" + secrets.token_hex(6))
            kernel = self._kernel
            handle = kernel.handle_of(ctx)
            connection = Connection(queue, self._negotiated, handle, quick=kernel.is_tcp)
            ctx.setpriv(connection)
            self._local.connection = connection
            self._blind |= connection.handle < 0
            with self._lock:
                self._connections[id(connection)] = connection
                self._slot.sessions = len(self._connections)
            if connection.handle in self._turned_away:
                self._come_again(connection)
        return connection

    def tend(self) -> None:
        """Several times a second, on the main thread: silent connections are counted, and the limit
        holds for them too. Where descriptors have run out the few that are kept back are
        libmilter's, for connections that are told so."""
        self._spare.look()
        if self._blind:
            self._strangers.since.clear()
            self._slot.silent = 0
            return
        with self._lock:
            known = {connection.handle for connection in self._connections.values()}
            busy = {each.handle for each in self._connections.values() if each.waits}
            late = time.monotonic() - PATIENCE
            for each in self._connections.values():
                if each.refused and each.heard < late:
                    self._kernel.hang_up(each.handle)
            progress = {each.handle: each.progress for each in self._connections.values()}
        full = self._strangers.count + len(known) > self._max
        looked = self._strangers.look(known, busy, at_once=full)
        self._slot.silent = self._strangers.count
        if looked:
            self._unserved.tend(self._strangers.waiting, busy, progress)
        for _ in range(self._total() - self._max):
            if not self._make_room():
                return

    @property
    def worn_out(self) -> str:
        """See choose_library.MilterServer."""
        return self._unserved.ended

    @property
    def forgotten(self) -> int:
        """See choose_library.MilterServer."""
        held = self._unserved.held
        if not held:
            return 0
        with self._lock:
            return sum(each.handle in held for each in self._connections.values())

    def _total(self) -> int:
        return len(self._connections) - self._refused + self._strangers.count

    def _make_room(self) -> bool:
        """Hang up on the connection that has been silent for longest, among those that are in no
        message; whether there was one."""
        if self._blind:
            return False
        with self._lock:
            idle = {
                connection.handle: connection.heard
                for connection in self._connections.values()
                if connection.handle >= 0
                and not (connection.in_message or connection.refused or connection.hung_up)
            }
            silent = self._strangers.since | idle
            for handle in sorted(silent, key=lambda number: silent[number]):
                self._strangers.since.pop(handle, None)
                for connection in self._connections.values():
                    if connection.handle == handle:
                        connection.hung_up = True  # never twice
                if self._kernel.hang_up(handle):
                    return True
        return False

    def _header(self, ctx: Any, name: str, value: bytes) -> int:
        """The most frequent callback: as few calls as can be."""
        connection = ctx.getpriv() or self._of(ctx)
        protocol = connection.protocol
        # Without LEADSPC the MTA took one space off.
        connection.header(name.encode(), value if protocol & _LEADING_SPACE else b" " + value)
        return _NO_REPLY if protocol & _SILENT_HEADER else _CONTINUE

    @staticmethod
    def _abort(ctx: Any) -> int:
        connection = ctx.getpriv()
        if connection is not None:
            connection.abort()
        return int(milter.CONTINUE)

    def _close(self, ctx: Any) -> int:
        connection = ctx.getpriv()
        if connection is not None:
            ctx.setpriv(None)
            self._local.__dict__.clear()
            if connection.refused:
                handle = connection.handle
                self._turned_away[handle] = (self._kernel.identity(handle), connection.protocol)
            with self._lock:
                connection.handle = -1
                self._connections.pop(id(connection), None)
                self._refused -= connection.refused
                self._slot.sessions = len(self._connections)
            connection.close()
        return int(milter.CONTINUE)

    def _excepthook(
        self, kind: type[BaseException], error: BaseException, _traceback: TracebackType | None
    ) -> None:
        """Called by pymilter, within the session's interpreter state, for what it could not even
        hand to a callback."""
        connection = getattr(self._local, "connection", None)
        with contextlib.suppress(Exception):
            if connection is not None and isinstance(error, UnicodeDecodeError):
                connection.undecodable(error.object)
            elif connection is not None:
                connection.failed("pymilter", error)
            else:
                os.write(2, f"event=failure level=error error={kind.__name__}\n".encode())


class PymilterServer:
    """libmilter as a MilterServer (choose_library.py)."""

    def __init__(self, serving: Serving) -> None:
        """Raises CannotServe."""
        loop, make_session, limits = serving.loop, serving.make_session, serving.limits
        self._family = serving.listening.family
        self._refusals = Refusals(loop, serving.slot, serving.log, limits.connections)
        self._callbacks = Callbacks(
            lambda name: EventQueue(loop, make_session, name),
            serving.slot,
            limits.connections,
            MilterConnections(serving.listening),
            self._refusals,
        )
        self._callbacks.register("dmarc-milter")
        self._listening, self._main = start(serving.listening, limits.silence)

    @property
    def failure(self) -> str:
        """See choose_library.MilterServer."""
        return self._main.ended

    @property
    def worn_out(self) -> str:
        """See choose_library.MilterServer."""
        return self._callbacks.worn_out

    @property
    def forgotten(self) -> int:
        """See choose_library.MilterServer."""
        return self._callbacks.forgotten

    def tend(self) -> None:
        """See choose_library.MilterServer."""
        self._callbacks.tend()
        self._refusals.tend()

    def drain(self) -> None:
        """See choose_library.MilterServer.

        A poll of libmilter's that is under way keeps the old socket for up to 5 s; its accept then
        finds the new one empty.
        """
        never = never_ready(self._family)
        os.dup2(never.fileno(), self._listening)
        never.close()
