"""Twenty connections that give nothing but the costliest legal messages: honest mail is answered
within a second (docs/design.md, Processes and loops)."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from dmarc_milter.core.mail.message import HeaderField
from fakes.costly import BODY, COSTLY, FROM
from fakes.costly import zone as costly_zone
from fakes.daemon import Daemon
from fakes.dns_server import DnsServer
from fakes.growth import REFERENCE
from fakes.milter_client import MilterClient
from fakes.signer import Signer, header_fields
from fakes.soak import LONG

pytestmark = [
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.soak,
    pytest.mark.timeout(900 if LONG else 180),
]
HONEST = Signer("honest.example")
ATTACKERS = 20
MESSAGES = 1000 if LONG else 100
SECONDS = 1.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    zone = {
        **costly_zone(),
        HONEST.key_name: {"TXT": [HONEST.record()]},
        "_dmarc.honest.example": {"TXT": ["v=DMARC1; p=reject"]},
    }
    with DnsServer(zone, record=False) as dns:
        tables: dict[str, dict[str, object]] = {
            "milter": {"workers": 2},
            "dns": {"nameservers": [dns.nameserver]},
        }
        with Daemon(tmp_path_factory.mktemp("costly"), tables) as daemon:
            yield daemon


class Attacker:
    """Gives costly messages over one connection, one after the other, with nothing to do in
    between."""

    def __init__(self, daemon: Daemon, number: int, over: threading.Event) -> None:
        self._over = over
        self._mta = MilterClient(daemon.address, timeout=90)
        self._mta.negotiate()
        self._mta.connect("host.example", f"203.0.{number}.1")
        self._mta.helo("host.example")
        messages = [[*fields, FROM] for fields in COSTLY.values()]
        self._messages = cycle((fields, _header(fields)) for fields in messages)
        for _ in range(number % len(messages)):
            next(self._messages)
        self.answered = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            self._mta.mail("<a@spf.example>")
            self._mta.rcpt("<v@example.com>")
            fields, packets = next(self._messages)
            self._mta._headers = list(fields)
            self._mta.sock.sendall(packets)
            self._mta.eoh()
            self._mta.body(BODY)
            self._mta.eom()
            self.answered += 1

    def end(self) -> None:
        self._thread.join(90)
        self._mta.close()


def _header(fields: list[HeaderField]) -> bytes:
    """The packets of a header, in one piece."""
    return b"".join(
        struct.pack(">I", len(field.name) + len(field.value) + 3)
        + b"L"
        + field.name
        + b"\0"
        + field.value
        + b"\0"
        for field in fields
    )


def honest(daemon: Daemon) -> float:
    """Seconds that an honest message takes, its connection included."""
    fields, body = header_fields(
        HONEST.sign(b"From: <admin@honest.example>\r\nSubject: x\r\n\r\nHello\r\n")
    )
    began = time.monotonic()
    with MilterClient(daemon.address, timeout=90) as mta:
        mta.negotiate()
        mta.connect("mx.honest.example", "198.51.100.7")
        mta.helo("mx.honest.example")
        answer = mta.message(
            [(name, value) for name, value in fields], body, mail_from="<admin@honest.example>"
        )
    assert any("dmarc=pass" in value for value in answer.values("Authentication-Results"))
    return time.monotonic() - began


def held_up(daemon: Daemon) -> list[float]:
    """Seconds that each worker's loop has waited for a processor so far, which others had: on a
    machine at rest there would be none. See proc(5), schedstat."""
    found = []
    for worker in daemon.workers():
        with contextlib.suppress(OSError):
            found.append(int(Path(f"/proc/{worker}/schedstat").read_text().split()[1]) / 1e9)
    return found


def honest_at_rest(daemon: Daemon) -> tuple[float, float]:
    """Seconds that an honest message takes, by the clock and without what the worker that waited
    least was held up by others."""
    before = held_up(daemon)
    took = honest(daemon)
    delays = (now - then for then, now in zip(before, held_up(daemon), strict=False))
    return took, took - min(delays, default=0.0)


def busy() -> float:
    """How many times as long as on a machine that does nothing else a piece of work takes here."""

    def once() -> float:
        began = time.monotonic()
        sum(each & 1 for each in range(100_000))
        return time.monotonic() - began

    return max(1.0, sorted(once() for _ in range(40))[20] / REFERENCE)


def _shown(took: list[float]) -> str:
    return f"median {took[MESSAGES // 2]:.3f} s, p99 {p99(took):.3f} s"


def p99(took: list[float]) -> float:
    """Of the sorted times, what ninety-nine of a hundred are within."""
    return took[len(took) * 99 // 100 - 1]


def test_honest_mail_is_answered_while_others_give_the_costliest_messages(
    running: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """DOS-18: of a hundred honest messages ninety-nine are answered within a second."""
    honest(running)
    slow = busy()
    over = threading.Event()
    attackers = [Attacker(running, number, over) for number in range(ATTACKERS)]
    try:
        time.sleep(1)
        found = [honest_at_rest(running) for _ in range(MESSAGES)]
    finally:
        over.set()
        for attacker in attackers:
            attacker.end()
    answered = sum(attacker.answered for attacker in attackers)
    took, at_rest = (sorted(each) for each in zip(*found, strict=True))
    with capsys.disabled():
        print(
            f"\nhonest mail beside {ATTACKERS} costly connections: {_shown(took)},"
            f" without what other processes took {_shown(at_rest)},"
            f" on a machine that is {slow:.1f} times as slow as one at rest;"
            f" {answered} costly messages answered meanwhile"
        )
    assert answered >= ATTACKERS
    assert p99(at_rest) < SECONDS * slow
    assert not running.events("worker_died")
    assert not running.events("failure")
