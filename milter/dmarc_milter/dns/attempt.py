"""One try at one server: a UDP socket of its own with a random port and identifier, or a TCP
connection after truncation."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from typing import Any

from dmarc_milter.dns.answer import Answer, Key
from dmarc_milter.dns.nameservers import Server
from dmarc_milter.dns.waiting import LoopTimer
from dmarc_milter.dns.wire import encode_query, is_answer_to

UDP_SIZE = 4096  # octets; no server may send more than the 1232 that were offered
TCP_CHUNK = 16384


class Broken(Exception):
    """The server closed the connection or garbled its answer."""


class Pending:
    """A question in flight: everything about sending it, until it has an answer or nobody wants
    one.

    `begun` is the moment (seconds, monotonic) of its sending, `give_up` that at which the client
    will settle it in any case. `short`: something was not sent for want of descriptors or memory.
    `timer` is the client's, for the next retry.
    """

    __slots__ = (
        "answer",
        "attempts",
        "begun",
        "give_up",
        "inquiry",
        "key",
        "question",
        "servers",
        "short",
        "timer",
        "tried",
    )

    def __init__(
        self, key: Key, question: bytes, begun: float, timeout: float, inquiry: Any = None
    ) -> None:
        self.key, self.question, self.begun, self.give_up = key, question, begun, begun + timeout
        self.inquiry = inquiry
        """The resolver's own."""
        self.servers: tuple[Server, ...] = ()
        self.tried = 0
        self.attempts: list[Attempt] = []
        self.answer: Answer | None = None
        self.short = False
        self.timer: LoopTimer | None = None

    def is_asked_plainly(self, server: Server) -> bool:
        """Whether a query without OPT is on its way to this server."""
        return any(attempt.server is server and not attempt.edns for attempt in self.attempts)


class Attempt:
    """A socket with one query on it. `events` is what the loop is to watch, `ignored` counts
    packets that answer something else. `edns`: the query has an OPT record; `instead`: it has none
    because one with OPT came to nothing."""

    __slots__ = (
        "_identifier",
        "_query",
        "_socket",
        "begun",
        "edns",
        "events",
        "events_changed",
        "handle",
        "ignored",
        "instead",
        "pending",
        "server",
    )
    kind = socket.SOCK_DGRAM

    def __init__(
        self, pending: Pending, server: Server, *, edns: bool, instead: bool = False
    ) -> None:
        self.pending, self.server, self.edns, self.instead = pending, server, edns, instead
        self.begun = time.monotonic()
        self._identifier = os.urandom(2)
        self._query = encode_query(self._identifier, pending.question, edns=edns)
        self.events, self.events_changed, self.ignored = select.EPOLLIN, False, 0
        self._socket = socket.socket(
            server.family, self.kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self.handle = self._socket.fileno()
        try:
            self._open()
        except OSError:
            self._socket.close()
            raise
        pending.attempts.append(self)

    def _open(self) -> None:
        raise NotImplementedError

    def is_answered_by(self, packet: bytes) -> bool:
        """Whether the packet answers this very query."""
        return is_answer_to(packet, self._identifier, self.pending.question)

    def receive(self) -> bytes | None:
        """A packet that answers the query, or None if it is not there yet. Raises OSError or
        Broken."""
        raise NotImplementedError

    def send_again(self) -> bool:
        """Repeat the query in case it was lost; whether that was done."""
        return False

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class UdpAttempt(Attempt):
    """A fresh connected socket: the kernel picks a random port and lets only this server's packets
    through (RFC 5452)."""

    __slots__ = ()

    def _open(self) -> None:
        self._socket.connect(self.server.address)
        self._socket.send(self._query)

    def receive(self) -> bytes | None:
        try:
            packet = self._socket.recv(UDP_SIZE)
        except BlockingIOError:
            return None
        if self.is_answered_by(packet):
            return packet
        self.ignored += 1
        return None

    def send_again(self) -> bool:
        try:
            self._socket.send(self._query)
        except OSError:
            return False
        return True


class TcpAttempt(Attempt):
    """A connection for one question: connect, send, then the length and the message, all without
    waiting."""

    __slots__ = ("_connected", "_received", "_unsent")
    kind = socket.SOCK_STREAM

    def _open(self) -> None:
        self._unsent = len(self._query).to_bytes(2, "big") + self._query
        self._received = bytearray()
        self._connected = False
        self.events = select.EPOLLOUT
        status = self._socket.connect_ex(self.server.address)
        if status not in (0, errno.EINPROGRESS):
            raise OSError(status, os.strerror(status))

    def receive(self) -> bytes | None:
        self.events_changed = False
        if not self._connected:
            self._finish_connecting()
        if self._unsent:
            with contextlib.suppress(BlockingIOError):
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            if not self._unsent:
                self.events, self.events_changed = select.EPOLLIN, True
            return None
        try:
            chunk = self._socket.recv(TCP_CHUNK)
        except BlockingIOError:
            return None
        if not chunk:
            raise Broken("closed early")
        self._received += chunk
        if len(self._received) < 2 or len(self._received) < 2 + int.from_bytes(
            self._received[:2], "big"
        ):
            return None
        packet = bytes(self._received[2 : 2 + int.from_bytes(self._received[:2], "big")])
        if not self.is_answered_by(packet):
            raise Broken("answers something else")
        return packet

    def _finish_connecting(self) -> None:
        status = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise OSError(status, os.strerror(status))
        self._connected = True
