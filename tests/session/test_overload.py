"""Overload through the milter socket: honest mail is judged while others take all they can get, and
no forgery profits."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from fakes.daemon import Daemon, wait_for
from fakes.dns_server import DnsServer
from fakes.milter_client import MilterClient
from fakes.saturation import JUNK, Letter, Load, World, assert_honest_mail_gets_through
from fakes.signer import header_fields

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def zone(world: World) -> dict[str, dict[str, object]]:
    return world.zone()


@contextlib.contextmanager
def daemon(
    folder: Path, zone: dict[str, dict[str, object]], servers: int, **tables: dict[str, object]
) -> Iterator[Daemon]:
    """With so many name servers, answering after 20 ms each."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(DnsServer(zone, record=False)) for _ in range(servers)]
        for each in started:
            each.delay = 0.02
        basis: dict[str, dict[str, object]] = {
            "milter": {"workers": 2},
            "dns": {"nameservers": [each.nameserver for each in started]},
        }
        for name, table in tables.items():
            basis.setdefault(name, {}).update(table)
        yield stack.enter_context(Daemon(folder, basis))


def sender(running: Daemon) -> Callable[[str, Letter], tuple[int, bool]]:
    """Gives messages over a connection of their own each, as Postfix does."""

    def send(client: str, letter: Letter) -> tuple[int, bool]:
        with MilterClient(running.address, timeout=90) as mta:
            mta.negotiate()
            mta.connect("host.example", client)
            mta.helo("host.example")
            fields, body = header_fields(letter.message)
            answer = mta.message(
                [(name, value) for name, value in fields], body, mail_from=f"<{letter.mail_from}>"
            )
        return answer.code, any(
            "dmarc=pass" in value for value in answer.values("Authentication-Results")
        )

    return send


def looper(running: Daemon) -> Callable[[str, Callable[[], str]], None]:
    """MAIL and EHLO in turns."""

    def loop(client: str, sender: Callable[[], str]) -> None:
        with MilterClient(running.address, timeout=90) as mta:
            mta.negotiate()
            mta.connect("host.example", client)
            while True:
                mta.helo("host.example")
                mta.mail(f"<{sender()}>")
                mta.abort()
                time.sleep(0.002)

    return loop


# Saturation


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, world: World, zone: dict[str, dict[str, object]]
) -> Iterator[Daemon]:
    """Two workers and two name servers; half of the honest domains are known."""
    with daemon(tmp_path_factory.mktemp("pair"), zone, 2) as running:
        for number in range(0, 40, 2):
            assert sender(running)("198.18.0.1", world.honest(number)) == (250, True)
        yield running


numbers = count(1)  # new names in each test


@pytest.mark.parametrize(
    "how",
    [
        "many networks",
        "few networks",
        "the honest sender's network",
        "policy walks",
        "names of honest mail",
    ],
)
def test_honest_mail_passes_while_others_saturate(pair: Daemon, world: World, how: str) -> None:
    """DOS-10 to DOS-14: whoever the attackers are and whatever it is that they ask for."""
    message = {"policy walks": world.walking, "names of honest mail": world.in_the_way}.get(
        how, world.saturating
    )
    load = Load(world, sender(pair), looper(pair), message=message, numbers=numbers)
    if how == "few networks":
        load.networks = 3
    elif how == "the honest sender's network":
        load.client, load.networks = "198.18.{network}.{host}", 20
    assert_honest_mail_gets_through(load.run(2.0, warm_up=1.0))
    assert len(pair.workers()) == 2
    assert not pair.events("worker_died")
    assert not pair.events("failure")


# Abandoned transactions


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, zone: dict[str, dict[str, object]]
) -> Iterator[Daemon]:
    """One worker, whose look-ups take five seconds where nobody answers."""
    with daemon(tmp_path_factory.mktemp("alone"), zone, 1, milter={"workers": 1}) as running:
        yield running


def begin(mta: MilterClient, number: int) -> None:
    """A transaction whose SPF waits for a name that nobody answers for."""
    mta.mail(f"<x@t{number}-{time.monotonic_ns()}.slow.attack.example>")


def in_the_header(mta: MilterClient) -> None:
    mta.rcpt("<v@example.com>")
    mta.data()
    mta.header("DKIM-Signature", f" {JUNK}; d=attack.example; s=h{time.monotonic_ns()}")
    mta.close()


def in_the_body(mta: MilterClient) -> None:
    """Keys and the walk are being asked for as well."""
    mta.rcpt("<v@example.com>")
    mta.data()
    mta.header("DKIM-Signature", f" {JUNK}; d=attack.example; s=b{time.monotonic_ns()}")
    mta.header("From", f" <a@f{time.monotonic_ns()}.slow.attack.example>")
    mta.eoh()
    mta.body(b"Hello")
    mta.close()


WAYS: dict[str, Callable[[MilterClient], object]] = {
    "EHLO": lambda mta: (mta.abort(), mta.helo("host.example")),
    "RSET": lambda mta: mta.abort(),
    "another MAIL": lambda mta: None,
    "HELO without the MTA's abort": lambda mta: mta.helo("host.example"),
    "QUIT": lambda mta: (mta.quit(), mta.close()),
    "QUIT, another client": lambda mta: (mta.quit_nc(), mta.connect("host.example", "203.99.0.1")),
    "gone": lambda mta: mta.close(),
    "gone in the header": in_the_header,
    "gone in the body": in_the_body,
}


@pytest.mark.parametrize("way", WAYS)
def test_an_abandoned_transaction_leaves_the_threads_and_the_dns_alone(
    alone: Daemon, world: World, way: str
) -> None:
    """DOS-20 to DOS-28: far more of them than there are threads, from as many client networks; then
    honest mail at once."""
    (worker,) = alone.workers()
    before = sockets(worker)
    keeps = way in (
        "EHLO",
        "RSET",
        "another MAIL",
        "HELO without the MTA's abort",
        "QUIT, another client",
    )
    with contextlib.ExitStack() as stack:
        mta = None
        for number in range(150):
            if mta is None or not keeps or number % 10 == 0:
                mta = stack.enter_context(MilterClient(alone.address, timeout=30))
                mta.negotiate()
                mta.connect("host.example", f"203.{number}.113.1")
                mta.helo("host.example")
            begin(mta, number)
            time.sleep(0.003)  # its look-up is on its way
            WAYS[way](mta)
        if mta is not None and way == "another MAIL":
            stack.close()
        began = time.monotonic()
        assert sender(alone)("198.18.0.1", world.honest(101)) == (250, True)
        assert time.monotonic() - began < 1.5
    assert wait_for(lambda: sockets(worker) <= before + 4, 3), "look-ups that nobody waits for"


def test_clients_that_leave_at_the_end_of_their_message_hold_nobody_up(
    alone: Daemon, world: World
) -> None:
    """DOS-29: the MTA waits for our answer then and tells us nothing; fair threads and places are
    what is left."""
    with contextlib.ExitStack() as stack:
        for number in range(60):
            mta = stack.enter_context(MilterClient(alone.address, timeout=30))
            mta.negotiate()
            mta.connect("host.example", f"203.{number}.113.1")
            mta.helo("host.example")
            letter = world.saturating(number, forged=number % 2 == 0)
            fields, body = header_fields(letter.message)
            mta.mail(f"<{letter.mail_from}>")
            mta.rcpt("<v@example.com>")
            mta.data()
            for name, value in fields:
                mta.header(name, value)
            mta.eoh()
            mta.body(body)
            mta.send("E")
            mta.close()
        for number in range(111, 121, 2):
            began = time.monotonic()
            assert sender(alone)("198.18.0.1", world.honest(number)) == (250, True)
            assert time.monotonic() - began < 2.0


def sockets(pid: int) -> int:
    """How many the process has."""
    found = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += os.readlink(each).startswith("socket:")
    return found
