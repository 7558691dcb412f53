"""One connection of an MTA in the worker's loop: packets become a Session's events, its actions the
answer.

Steps that cost next to nothing are taken where the bytes are read, at the cost of the client
network's share. From the end of the header on (or where very many packets come at once, or the
network has had more than its share) a task goes on, for the client's network; it may wait, and is
ended at once when the MTA goes away.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Hashable
from typing import Protocol

from dmarc_milter.core.actions.plan import Action
from dmarc_milter.core.fair_sharing import client_network
from dmarc_milter.process.loop import Loop, Task
from dmarc_milter.session.handler import TRY_LATER
from dmarc_milter.session.packets import (
    Abort,
    Body,
    Connect,
    EndOfHeaders,
    EndOfMessage,
    Header,
    Helo,
    Macro,
    Mail,
    OptNeg,
    Packet,
    ProtocolError,
    Quit,
    QuitNewConnection,
    Rcpt,
    Unrecognized,
)
from dmarc_milter.session.protocol import (
    CONTINUE,
    NOT_ENOUGH,
    SKIP,
    TEMPFAIL,
    Agreement,
    Decoder,
    MacroTable,
    Step,
    answer,
    negotiate,
)
from dmarc_milter.session.session import Session

READ = 128 * 1024
"""Bytes that are read at once."""
AT_ONCE = 200
"""Packets of one read that are handled without a task."""
_LONG = frozenset((EndOfHeaders, Body, EndOfMessage))
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
LONGEST_READ = 0.01
"""Seconds that one reading is charged at most: more is what other processes took meanwhile."""
_LISTEN, _DEAF = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLRDHUP
_UNREAD = select.EPOLLOUT | select.EPOLLRDHUP


class Owner(Protocol):
    """Whoever has accepted the connection (session/native.py)."""

    def negotiated(self, connection: MtaConnection) -> Session:
        """The MTA has made its offer: a session for it."""
        ...

    def client_gone(self, connection: MtaConnection) -> None:
        """The SMTP client has gone; the MTA keeps the connection for another."""
        ...

    def complain(self, connection: MtaConnection, what: str) -> None:
        """The MTA's packets are not as they must be; `what` is one plain line."""
        ...

    def ended(self, connection: MtaConnection) -> None:
        """The connection is closed."""
        ...


class MtaConnection:
    """One connection. All of its methods run in the loop's thread."""

    def __init__(self, loop: Loop, sock: socket.socket, owner: Owner, *, quick: bool) -> None:
        self._loop, self._socket, self._owner, self._quick = loop, sock, owner, quick
        self._fd = sock.fileno()
        self._decoder = Decoder()
        self._macros = MacroTable()
        self._agreement: Agreement | None = None
        self._keeps_space = self._silent_headers = False
        self.session: Session | None = None
        """None before the negotiation."""
        self._network: Hashable = None
        self.is_spare = False
        """The MTA keeps it, and has no client for it now (QUIT_NC)."""
        self._task: Task | None = None
        self._waiting: Packet | None = None
        """What the task begins with."""
        self._replies: list[bytes] = []
        self._unsent = memoryview(b"")
        """What the MTA has not read: nothing more is read from it meanwhile."""
        self._events = _LISTEN
        self._closed = False
        self.heard = self._alive = time.monotonic()
        """`heard`: when it last said something outside a message."""
        loop.watch(self._fd, _LISTEN, self._event)

    @property
    def is_idle(self) -> bool:
        """Whether it is in no message."""
        return self._task is None and (self.session is None or not self.session.in_message)

    @property
    def silent_since(self) -> float | None:
        """When anything whole last came or went; None while the MTA waits for us."""
        return None if self._task is not None else self._alive

    def close(self) -> None:
        """End it at once, the task and message included. May be repeated."""
        if self._closed:
            return
        self._closed = True
        self._loop.forget(self._fd)
        self._socket.close()
        task, self._task = self._task, None
        if task is not None and task is not self._loop.task:
            task.end()
        if self.session is not None:
            self.session.close()
        self._owner.ended(self)

    # Events of the loop.

    def _event(self, events: int) -> None:
        try:
            if self._task is not None:
                self._event_while_busy(events)
            elif self._unsent:
                self._write_on(events)
            else:
                self._read()
        except OSError:
            self.close()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """The connection ends: the MTA then does as its default_action says."""
        if isinstance(error, ProtocolError):
            self._owner.complain(self, str(error))
        elif self.session is not None:
            self.session.failed("connection", error)
        self.close()

    def _event_while_busy(self, events: int) -> None:
        """The message waits or has its turn: only the MTA's end matters, what it says waits."""
        if events & _GONE:
            self.close()
        else:
            self._listen_for(_DEAF)

    def _read(self) -> None:
        began = time.monotonic()
        try:
            octets = self._socket.recv(READ)
        except BlockingIOError:
            return
        if not octets:
            self.close()
            return
        self._decoder.feed(octets)
        self._go_on(began)
        if self._quick and not self._closed and not self._unsent:
            self._acknowledge()

    def _acknowledge(self) -> None:
        """An MTA whose packets get no answer holds the next small one back until these are
        acknowledged (Nagle), which the kernel would put off for 40 ms."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _listen_for(self, events: int) -> None:
        if events != self._events and not self._closed:
            self._events = events
            self._loop.change(self._fd, events)

    # Packets.

    def _go_on(self, began: float) -> None:
        """With the packets that have come, since `began`, and at whose cost. Before a connection
        says whose it is, it is nobody's: newcomers do not wait for each other."""
        if self._network is not None and self._loop.is_behind(self._network):
            self._begin_task(None)
        else:
            self._take_packets(began)
        self._loop.charge(self._network, min(time.monotonic() - began, LONGEST_READ))

    def _begin_task(self, packet: Packet | None) -> None:
        self._waiting = packet
        self._task = self._loop.spawn(self._run, self._network)

    def _take_packets(self, now: float) -> None:
        """Those that cost little, here; a task for the rest."""
        packet, decoder = None, self._decoder
        for _ in range(AT_ONCE):
            if decoder.is_at_header and self._take_headers() == AT_ONCE:
                break
            packet = None if self._closed else decoder.next_packet()
            if packet is None:
                self._send_replies()
                return
            self._alive = now
            if type(packet) in _LONG:
                break
            self._handle(packet)
            packet = None
        self._send_replies()
        if not self._closed:
            self._begin_task(packet)

    def _take_headers(self) -> int:
        """Header fields are most of the packets, and cost little: as few steps as can be. How many
        there were."""
        session, agreement = self.session, self._agreement
        if self._closed or session is None or agreement is None or not session.in_message:
            return 0
        fields, macros = self._decoder.next_headers(AT_ONCE)
        if not fields:
            return 0
        if macros is not None:
            self._macros.add(macros)
        if not self._keeps_space:
            fields = [(name, agreement.value(value)) for name, value in fields]
        session.headers(fields)
        if not self._silent_headers:
            self._replies += [CONTINUE] * len(fields)
        return len(fields)

    def _run(self) -> None:
        """The task: one packet after the other as long as there are any and their answers are
        read."""
        try:
            packet, self._waiting = self._waiting, None
            if packet is None:  # an EndOfHeaders is empty, and so false
                packet = self._decoder.next_packet()
            while packet is not None and not self._closed:
                self._handle(packet)
                self._alive = time.monotonic()
                self._loop.pause()
                packet = None if self._unsent or self._closed else self._decoder.next_packet()
            self._send_replies()
        except Exception as error:
            self._fail(error)
        self._task = None
        self._listen_for(_UNREAD if self._unsent else _LISTEN)

    def _handle(self, packet: Packet) -> None:
        if isinstance(packet, Macro):
            self._macros.add(packet)
            return
        self._macros.follow(packet)
        session, agreement = self.session, self._agreement
        if session is None or agreement is None:
            self._before_session(packet)
            return
        if isinstance(packet, Header):
            session.header(packet.name, agreement.value(packet.value))
        elif isinstance(packet, Body):
            self._replies.append(self._body(session, packet.chunk))
            self._send_replies()
            return
        elif isinstance(packet, EndOfMessage):
            self._end_of_message(session, packet)
            return
        else:
            self._step(session, packet)
        if type(packet) not in agreement.silent:
            self._replies.append(CONTINUE)

    def _before_session(self, packet: Packet) -> None:
        if isinstance(packet, OptNeg):
            self._agreement, reply = negotiate(packet)
            self._keeps_space = bool(self._agreement.steps & Step.LEADING_SPACE)
            self._silent_headers = Header in self._agreement.silent
            self._replies.append(reply)
            self.heard = time.monotonic()
            self.session = self._owner.negotiated(self)
            if not self._agreement.is_enough:
                self.session.failed("negotiate", ConnectionError(NOT_ENOUGH))
        else:
            self.close()

    def _step(self, session: Session, packet: Packet) -> None:
        """What comes before the body."""
        match packet:
            case Connect(_, address):
                self.heard = time.monotonic()
                self.is_spare = False
                session.connect(address, self._macros)
                self._belongs_to(client_network(session.source))
            case Helo(name):
                self.heard = time.monotonic()
                session.helo(name, self._macros)
            case Mail(argument, parameters):
                session.mail(argument, parameters, self._macros)
                self._belongs_to(client_network(session.source))
            case Rcpt(argument, _):
                session.rcpt(argument)
            case EndOfHeaders():
                session.end_of_headers(self._macros)
            case Abort():
                self.heard = time.monotonic()
                session.abort()
            case _:
                self._step_outside(session, packet)

    def _belongs_to(self, network: Hashable) -> None:
        self._network = network
        if self._task is not None:
            self._task.network = network

    def _step_outside(self, session: Session, packet: Packet) -> None:
        """DATA and unknown SMTP commands need only their answer."""
        match packet:
            case Quit():
                self.close()
            case QuitNewConnection():
                session.abort()
                self.heard = time.monotonic()
                self.is_spare = True
                self._belongs_to(None)
                self._owner.client_gone(self)
            case OptNeg():
                raise ProtocolError("a second negotiation")
            case Unrecognized(command):
                self._owner.complain(self, f"command {command[0]} is unknown: skipped")

    def _body(self, session: Session, chunk: bytes) -> bytes:
        assert self._agreement is not None
        wanted = session.body(chunk)
        return CONTINUE if wanted or not self._agreement.steps & Step.SKIP else SKIP

    def _end_of_message(self, session: Session, packet: EndOfMessage) -> None:
        self._send_replies()
        if packet.last:
            session.body(packet.last)
        actions = session.end_of_message(self._macros)
        self._macros.end_message()
        self.heard = time.monotonic()
        self._replies.append(self._answer(session, actions))
        self._send_replies()

    def _answer(self, session: Session, actions: tuple[Action, ...]) -> bytes:
        assert self._agreement is not None
        try:
            return answer(actions, self._agreement)
        except Exception as error:
            # The MTA does not allow a change: a message half marked must not be accepted.
            session.failed("play", error)
        with contextlib.suppress(Exception):
            return answer((TRY_LATER,), self._agreement)
        return TEMPFAIL

    # Answers.

    def _send_replies(self) -> None:
        if not self._replies or self._closed:
            return
        octets = b"".join((self._unsent, *self._replies))
        self._replies.clear()
        self._write(memoryview(octets))

    def _write(self, octets: memoryview) -> None:
        sent = 0
        try:
            sent = self._socket.send(octets)
            self._alive = time.monotonic()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._unsent = octets[sent:]
        if self._unsent:
            self._listen_for(_UNREAD)

    def _write_on(self, events: int) -> None:
        """The MTA reads again, or has gone."""
        if events & _GONE:
            self.close()
            return
        self._write(self._unsent)
        if not self._unsent and not self._closed:
            self._listen_for(_LISTEN)
            self._go_on(time.monotonic())
