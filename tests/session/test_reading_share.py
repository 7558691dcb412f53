"""What a client sends is read at the cost of its network's share of the processor, whatever the
packets are (docs/design.md, Processes and loops)."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dmarc_milter.core.mail.message import IPAddress
from dmarc_milter.mta.macros import parse_address
from dmarc_milter.process.loop import Loop
from dmarc_milter.session import mta_connection
from dmarc_milter.session.mta_connection import MtaConnection

LONG = 64 * 1024
MANY = 250
TICK = 0.001
"""Seconds that the clock of a connection goes on each time that it is read."""


class Noted:
    """A session that notes who came to its turn."""

    in_message = True

    def __init__(self, order: list[str]) -> None:
        self._order, self.name = order, ""
        self.source: IPAddress | None = None

    def connect(self, address: str, _: object) -> None:
        self.name, self.source = address, parse_address(address)

    def rcpt(self, argument: bytes) -> None:
        if argument == b"<last@example.com>":
            self._order.append(f"{self.name} RCPT")

    def headers(self, _: object) -> None:
        pass

    def end_of_message(self, _: object) -> tuple[()]:
        self._order.append(f"{self.name} end")
        return ()

    helo = mail = end_of_headers = close = lambda *_: None


class Worker:
    """A loop, its connections, and the order in which what matters was done."""

    def __init__(self) -> None:
        self.loop, self.order = Loop(), list[str]()
        self._sockets: list[socket.socket] = []

    def connection(self) -> tuple[MtaConnection, socket.socket]:
        """One of an MTA that has said nothing yet, and the MTA's side of it."""
        ours, mta = socket.socketpair()
        ours.setblocking(False)
        self._sockets += [ours, mta]
        owner: Any = SimpleNamespace(
            negotiated=lambda _: Noted(self.order), ended=lambda _: None, complain=lambda *_: None
        )
        return MtaConnection(self.loop, ours, owner, quick=False), mta

    def client(self, address: str) -> socket.socket:
        """An MTA's connection for this client, in a message."""
        _, mta = self.connection()
        mta.sendall(NEGOTIATION)
        self.loop.turn(0)
        mta.sendall(packet(b"C", b"host\x004\0\0" + address.encode() + b"\0"))
        mta.sendall(packet(b"M", b"<a@sender.example>\0"))
        self.loop.turn(0)
        self.loop.turn(0)  # what the kernel thinks ready is asked for in the order of sending again
        return mta

    def flood(self, mta: socket.socket, octets: bytes, times: int) -> None:
        """Packets that are read at once."""
        for _ in range(times):
            mta.sendall(octets)
            self.loop.turn(0)
        self.loop.turn(0)

    def close(self) -> None:
        for each in self._sockets:
            each.close()
        self.loop.close()


def packet(command: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data) + 1) + command + data


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """Every reading takes TICK by its own clock, however loaded the machine is."""
    ticks = iter(range(1, 1_000_000))
    clock = SimpleNamespace(monotonic=lambda: next(ticks) * TICK)
    monkeypatch.setattr(mta_connection, "time", clock)
    worker = Worker()
    worker.loop._queue.rest = lambda _: None  # type: ignore[method-assign]
    yield worker
    worker.close()


RCPT = packet(b"R", b"<" + b"x" * LONG + b"@example.com>\0")
HEADERS = packet(b"L", b"X-A\0 " + b"x" * 1000 + b"\0") * 60
MACROS = packet(b"D", b"Ri\0" + b"x" * LONG + b"\0")
MACRO = packet(b"D", b"Ri\0x\0")
NEGOTIATION = packet(b"O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF))
HALF = b"\0\x0f\0\0L"
END = packet(b"N") + packet(b"E")
LAST = packet(b"R", b"<last@example.com>\0")


@pytest.mark.parametrize("octets", [RCPT, HEADERS, MACROS], ids=["RCPT", "header", "macros"])
def test_whoever_has_sent_much_has_the_later_turn(worker: Worker, octets: bytes) -> None:
    """DOS-44: of two messages that end at one moment the one whose client sent less goes first."""
    talker = worker.client("192.0.2.1")
    worker.flood(talker, octets, MANY)
    honest = worker.client("198.51.100.1")
    talker.sendall(END)
    honest.sendall(END)
    worker.loop.turn(0)
    worker.loop.turn(0)
    assert worker.order == ["198.51.100.1 end", "192.0.2.1 end"]


def test_the_network_is_charged_and_not_the_connection(worker: Worker) -> None:
    """A connection for each piece brings nothing."""
    talker, honest = worker.client("192.0.2.200"), worker.client("198.51.100.1")
    for host in range(1, 26):
        worker.flood(worker.client(f"192.0.2.{host}"), RCPT, 10)
    talker.sendall(END)
    honest.sendall(END)
    worker.loop.turn(0)
    worker.loop.turn(0)
    assert worker.order == ["198.51.100.1 end", "192.0.2.200 end"]


def test_packets_of_whoever_has_sent_much_wait_for_others(worker: Worker) -> None:
    """DOS-44: they are read when it is the network's turn; those of others at once."""
    talker = worker.client("192.0.2.1")
    honest, third = worker.client("198.51.100.1"), worker.client("203.0.113.1")
    worker.flood(talker, RCPT, MANY)
    honest.sendall(END)
    talker.sendall(LAST)
    third.sendall(LAST)
    worker.loop.turn(0)
    assert worker.order == ["203.0.113.1 RCPT", "198.51.100.1 end", "192.0.2.1 RCPT"]
    talker.sendall(LAST)
    worker.loop.turn(0)
    assert worker.order[3:] == ["192.0.2.1 RCPT"]


def test_a_packet_whose_end_has_not_come_costs_too(worker: Worker) -> None:
    """Pieces of one long packet."""
    talker, honest = worker.client("192.0.2.1"), worker.client("198.51.100.1")
    talker.sendall(HALF)
    worker.flood(talker, b"x", MANY)
    honest.sendall(END)
    worker.loop.turn(0)
    other = worker.client("192.0.2.2")
    honest.sendall(packet(b"M", b"<a@sender.example>\0") + END)
    other.sendall(LAST)
    worker.loop.turn(0)
    assert worker.order == ["198.51.100.1 end", "198.51.100.1 end", "192.0.2.2 RCPT"]


def test_newcomers_do_not_wait_for_each_other(worker: Worker) -> None:
    """Whose a connection is stands in CONNECT: until then it has no network's share to wait for."""
    worker.loop.charge(None, 10)
    waits = worker.client("198.51.100.1")
    waits.sendall(END)
    _, mta = worker.connection()
    mta.sendall(NEGOTIATION + packet(b"C", b"host\x004\0\x00203.0.113.1\0") + LAST)
    worker.loop.turn(0)
    assert worker.order == ["203.0.113.1 RCPT", "198.51.100.1 end"]


def test_what_a_task_does_after_connect_is_the_client_s(worker: Worker) -> None:
    """An MTA that sends more at once than is read in a row has a task before it has a client."""
    connection, mta = worker.connection()
    mta.sendall(NEGOTIATION + MACRO * mta_connection.AT_ONCE)
    mta.sendall(packet(b"C", b"host\x004\0\x00203.0.113.1\0") + LAST)
    networks = []
    connection_belongs = connection._belongs_to

    def note(network: object) -> None:
        connection_belongs(network)
        assert connection._task is not None
        networks.append(connection._task.network == network)

    connection._belongs_to = note  # type: ignore[assignment, method-assign]
    for _ in range(3):
        worker.loop.turn(0)
    assert networks == [True]
    assert worker.order == ["203.0.113.1 RCPT"]


def test_an_answer_that_was_not_taken_whole_is_sent_on_when_the_task_has_ended(
    worker: Worker,
) -> None:
    """While a task runs, an MTA that can be written to again is not listened to."""
    connection, mta = worker.connection()
    task = connection._task = worker.loop.spawn(lambda: None)
    connection._unsent = memoryview(b"rest")
    connection._event(select.EPOLLOUT)
    assert connection._task is task
    connection._run()
    worker.loop.turn(0)
    mta.setblocking(False)
    assert mta.recv(10) == b"rest"
