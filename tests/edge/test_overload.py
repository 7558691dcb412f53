"""Overload through the milter socket: honest mail is judged while others take all they can get, and no forgery profits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.daemon import Daemon
from fakes.dns_server import DnsServer
from fakes.milter_client import MilterClient
from fakes.saturation import Letter, Load, World, assert_honest_mail_gets_through
from fakes.signer import header_fields

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def zone(world: World) -> dict[str, dict[str, object]]:
    return world.zone()


@contextlib.contextmanager
def daemon(folder: Path, zone: dict[str, dict[str, object]], servers: int, **tables: dict[str, object]) -> Iterator[Daemon]:
    """With so many name servers, answering after 20 ms each."""
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(DnsServer(zone, record=False)) for _ in range(servers)]
        for each in started:
            each.delay = 0.02
        basis: dict[str, dict[str, object]] = {"milter": {"workers": 2}, "dns": {"nameservers": [each.nameserver for each in started]}}
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
            answer = mta.message([(name, value) for name, value in fields], body, mail_from=f"<{letter.mail_from}>")
        return answer.code, any("dmarc=pass" in value for value in answer.values("Authentication-Results"))

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


@pytest.mark.parametrize(("servers", "networks"), [(1, 50), (2, 3)])
def test_honest_mail_passes_while_others_saturate(
    tmp_path: Path, world: World, zone: dict[str, dict[str, object]], servers: int, networks: int
) -> None:
    """DOS-10 to DOS-13: from many client networks and from few, with one name server and with two."""
    with daemon(tmp_path, zone, servers) as running:
        send = sender(running)
        for number in range(0, 40, 2):
            assert send("198.18.0.1", world.honest(number)) == (250, True)
        load = Load(world, send, looper(running), networks=networks)
        assert_honest_mail_gets_through(load.run(3.0))
        assert len(running.workers()) == 2
        assert not running.events("worker_died")
        assert not running.events("failure")
