"""Connections that say nothing: counted, and at the limit the first to go; nobody who is in a
message goes for another."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.daemon import Daemon, free_port, wait_for
from fakes.milter_client import Gone, MilterClient

LIMIT = 8


@pytest.fixture(scope="module", params=["inet", "unix"])
def running(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Daemon]:
    """One worker that takes eight connections."""
    tmp_path = tmp_path_factory.mktemp("silence")
    milter: dict[str, object] = {"workers": 1, "max_connections": LIMIT}
    if request.param == "unix":
        milter["socket"] = f"unix:{tmp_path}/s"
    tables = {"milter": milter, "metrics": {"listen": f"127.0.0.1:{free_port()}"}}
    with Daemon(tmp_path, tables, command=("-m", "fakes.scripted_service")) as running:
        running.metrics = tables["metrics"]["listen"]  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def daemon(running: Daemon) -> Iterator[Daemon]:
    """All connections of a test end with it."""
    yield running
    for each in running.clients:
        each.close()
    running.clients.clear()
    assert wait_for(lambda: sessions(running) == 0, 10)


def silent(daemon: Daemon) -> MilterClient:
    """It connects and says not a word."""
    client = MilterClient(daemon.address, timeout=10)
    daemon.clients.append(client)
    return client


def negotiated(daemon: Daemon) -> MilterClient:
    return daemon.client()


def greeted(daemon: Daemon) -> MilterClient:
    """As Postfix holds it for an SMTP client that says nothing after EHLO."""
    mta = daemon.client()
    answer = mta.connect("client.example", "192.0.2.1")
    if answer is not None and answer.code == 451:
        raise Gone("there is no room")
    mta.helo("client.example")
    return mta


def after_a_message(daemon: Daemon) -> MilterClient:
    mta = greeted(daemon)
    assert delivered(mta)
    return mta


def after_a_reset(daemon: Daemon) -> MilterClient:
    mta = in_message(daemon)
    mta.abort()
    return mta


def another_client(daemon: Daemon) -> MilterClient:
    """Kept over QUIT_NC: no negotiation tells of it."""
    mta = after_a_message(daemon)
    mta.quit_nc()
    mta.connect("client.example", "192.0.2.2")
    return mta


def in_message(daemon: Daemon) -> MilterClient:
    mta = greeted(daemon)
    mta.mail("<a@client.example>")
    mta.rcpt("<b@test.example>")
    mta.data()
    mta.header("From", " <a@client.example>")
    mta.eoh()
    mta.body(b"Hello.\r\n")  # the first step that has a reply, so all of them have been taken
    return mta


def half_a_packet(daemon: Daemon) -> MilterClient:
    """Three bytes of the first length."""
    mta = silent(daemon)
    mta.raw(b"\0\0\0")
    return mta


def half_a_later_packet(daemon: Daemon) -> MilterClient:
    """MAIL whose end does not come."""
    mta = greeted(daemon)
    mta.raw(struct.pack("!I", 100) + b"M<a@")
    return mta


def one_byte_after_the_other(daemon: Daemon) -> MilterClient:
    """A packet that grows for a minute."""
    mta = greeted(daemon)
    mta.raw(struct.pack("!I", 60000) + b"M")

    def drip() -> None:
        with contextlib.suppress(OSError):
            for _ in range(600):
                mta.sock.sendall(b"a")
                time.sleep(0.1)

    threading.Thread(target=drip, daemon=True).start()
    return mta


def delivered(mta: MilterClient) -> bool:
    return mta.message([("From", " <a@client.example>")]).code == 250


def is_open(mta: MilterClient) -> bool:
    """Whether the other side has not closed it."""
    mta.sock.setblocking(False)
    try:
        return mta.sock.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        mta.sock.settimeout(10)


def sessions(daemon: Daemon) -> int:
    with urllib.request.urlopen(f"http://{daemon.metrics}/metrics", timeout=10) as page:  # type: ignore[attr-defined]
        found = re.search(rb"^dmarc_milter_sessions (\d+)", page.read(), re.MULTILINE)
    assert found
    return int(found[1])


KINDS: list[Callable[[Daemon], MilterClient]] = [
    silent,
    negotiated,
    greeted,
    after_a_message,
    after_a_reset,
    another_client,
    half_a_packet,
    half_a_later_packet,
    one_byte_after_the_other,
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_silent_make_room_for_who_has_something_to_say(
    daemon: Daemon, kind: Callable[[Daemon], MilterClient]
) -> None:
    """CON-42: twice as many as the limit hang about; mail is taken all the same, and the oldest of
    them are gone."""
    held = []
    for _ in range(LIMIT):
        held.append(kind(daemon))
        time.sleep(0.01)
    if kind in (silent, half_a_packet):
        assert wait_for(lambda: sessions(daemon) == LIMIT, 5)
    for _ in range(3):
        assert delivered(greeted(daemon))
    assert wait_for(lambda: not any(map(is_open, held[:3])), 3)
    assert all(map(is_open, held[-2:]))


def test_nobody_in_a_message_goes_for_another(daemon: Daemon) -> None:
    """Then the new one is turned away, as ever; those in a message end it well."""
    held = [in_message(daemon) for _ in range(LIMIT)]
    for _ in range(3):
        with pytest.raises(Gone):
            greeted(daemon)
    for mta in held:
        assert mta.eom().code == 250


def test_silent_ones_go_before_those_in_a_message(daemon: Daemon) -> None:
    held = [in_message(daemon) for _ in range(LIMIT - 2)]
    quiet = silent(daemon)
    assert wait_for(lambda: sessions(daemon) == LIMIT - 1, 5)
    later = greeted(daemon)
    assert delivered(greeted(daemon))
    assert wait_for(lambda: not is_open(quiet), 3)
    assert is_open(later)
    assert all(map(is_open, held))


def test_a_flood_of_silent_connections_is_cut_to_the_limit(daemon: Daemon) -> None:
    """They tell us nothing, so the kernel is asked; mail goes on."""
    flood = [silent(daemon) for _ in range(10 * LIMIT)]
    assert wait_for(lambda: sum(map(is_open, flood)) <= LIMIT, 10)
    assert delivered(greeted(daemon))
    (worker,) = daemon.workers()
    assert wait_for(lambda: sessions(daemon) <= LIMIT + 1, 5)
    for each in flood:
        with contextlib.suppress(OSError):
            each.close()
    assert daemon.workers() == [worker]
    assert delivered(greeted(daemon))


@pytest.mark.parametrize("workers", [1, 2])
def test_who_comes_among_halves_of_packets_is_served(tmp_path: Path, workers: int) -> None:
    """CON-41: each of them keeps a thread of libmilter's, which gave a newcomer to one of those
    threads and left it there. Three bursts, far below the limit."""
    with Daemon(
        tmp_path, {"milter": {"workers": workers}}, command=("-m", "fakes.scripted_service")
    ) as daemon:
        for _ in range(3):
            before = [half_a_packet(daemon) for _ in range(5)]
            mta = MilterClient(daemon.address, timeout=15)
            daemon.clients.append(mta)
            after = [half_a_packet(daemon) for _ in range(5)]
            mta.negotiate()
            mta.connect("client.example", "192.0.2.1")
            mta.helo("client.example")
            assert delivered(mta)
            for each in (*before, *after):
                each.close()
