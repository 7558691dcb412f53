"""No message keeps the processor for long: between two points where others may go on lie 50 ms at
most, whatever the message holds (docs/design.md, Processes and loops)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.config import load
from dmarc_milter.core.mail.message import HeaderField
from dmarc_milter.daemon import wiring
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.session.session import Session
from dmarc_milter.telemetry.log import Log
from fakes.costly import BODY, COSTLY, FROM, MACROS, OTHERS, signature
from fakes.costly import zone as costly_zone
from fakes.daemon import toml
from fakes.dns_server import DnsServer
from fakes.growth import REFERENCE, seconds

pytestmark = [pytest.mark.alone, pytest.mark.slow]
PIECE = b"Hello, world\r\n" * 4681
LONGEST = 0.05
"""Seconds of processor time between two points where others may go on, on a machine at rest."""


@pytest.fixture(scope="module")
def zone() -> dict[str, dict[str, object]]:
    return costly_zone()


@pytest.fixture
def session(tmp_path: Path, zone: dict[str, dict[str, object]]) -> Iterator[tuple[Loop, Session]]:
    """A session as a worker has it, and its loop."""
    with DnsServer(zone) as dns:
        path = tmp_path / "dmarc-milter.toml"
        path.write_text(
            toml(
                {
                    "authentication": {"authserv_id": "mx.example.com"},
                    "dns": {"nameservers": [dns.nameserver]},
                    "store": {"url": f"sqlite:///{tmp_path}/reports.db"},
                }
            )
        )
        config, loop, shared_memory = load(path), Loop(), SharedMemory(1)
        log = Log(os.open(os.devnull, os.O_WRONLY))
        services = wiring.build(config, loop, shared_memory.slot(0), shared_memory, log)
        yield loop, Session(services.handler, services.options, name="c0")
        services.close()


def stretches(
    loop: Loop,
    session: Session,
    fields: list[HeaderField],
    *,
    sender: str = "<a@spf.example>",
    body: list[bytes] | None = None,
) -> list[float]:
    """Seconds of processor time between two points at which others could go on."""
    marks: list[float] = []

    def mark(*_: object) -> None:
        marks.append(time.thread_time())

    def say(name: str) -> str:
        return "203.0.113.5" if name == "{client_addr}" else ""

    def send() -> None:
        session.connect("203.0.113.5", say)
        session.helo("host.example")
        session.mail(sender.encode(), (), say)
        session.rcpt(b"<v@example.com>")
        mark()
        for field in fields:
            session.header(field.name, field.value)
        mark()
        session.end_of_headers(say)
        mark()
        for piece in body or [BODY]:
            session.body(piece)
            mark()
        session.end_of_message(say)
        mark()

    loop.pause = mark  # type: ignore[method-assign]
    park = loop.park
    loop.park = lambda seconds=None: (mark(), park(seconds), mark())[1]  # type: ignore[method-assign]
    send()
    return [after - before for before, after in pairwise(marks)]


def longest(session: tuple[Loop, Session], fields: list[HeaderField], **how: Any) -> float:
    """Of three runs, as on a machine at rest: a slow processor has more time."""
    found = min(max(stretches(*session, fields, **how)) for _ in range(3))
    slow = max(1.0, seconds(lambda: sum(each & 1 for each in range(100_000))) / REFERENCE)
    return found / slow


@pytest.mark.parametrize("kind", COSTLY | OTHERS)
def test_the_costliest_messages_give_way_in_time(session: tuple[Loop, Session], kind: str) -> None:
    """DOS-18: whatever they hold."""
    assert longest(session, [*(COSTLY | OTHERS)[kind], FROM]) < LONGEST


def test_the_largest_bodies_and_spf_of_macros_give_way_in_time(
    session: tuple[Loop, Session],
) -> None:
    """DOS-18: 20 MB that ten signatures cover, a packet at a time; nine exists of long names."""
    signatures = [signature(number, "from") for number in range(10)]
    assert longest(session, [*signatures, FROM], body=[PIECE] * 320) < LONGEST
    assert longest(session, [FROM], sender=MACROS) < LONGEST
