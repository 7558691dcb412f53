"""No message keeps the processor for long: between two points where others may go on lie 50 ms at
most, whatever the message holds (docs/design.md, Processes and loops)."""

from __future__ import annotations

import base64
import os
import random
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dmarc_milter.config import load
from dmarc_milter.core.mail.message import HeaderField
from dmarc_milter.daemon import wiring
from dmarc_milter.process.loop import SLICE, Loop
from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.session.session import Session
from dmarc_milter.telemetry.log import Log
from fakes.daemon import toml
from fakes.dns_server import DnsServer
from fakes.growth import REFERENCE, seconds

pytestmark = [pytest.mark.alone, pytest.mark.slow]
FROM = HeaderField(b"From", b" a@d.example")
RESULTS = b"Authentication-Results"


def key_record() -> str:
    """Of 8192 bits; nothing verifies with it, at the price of one that does."""
    modulus = random.Random(1).getrandbits(8192) | 1 << 8191 | 1
    public = rsa.RSAPublicNumbers(65537, modulus).public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "v=DKIM1; p=" + base64.b64encode(der).decode()


def signature(number: int, names: str) -> HeaderField:
    octets = base64.b64encode(os.urandom(1024)).decode()
    text = (
        f" v=1; a=rsa-sha256; c=relaxed/relaxed; d=d.example; s=s{number}; h={names};"
        f" bh={'A' * 43}=; b={octets}"
    )
    return HeaderField(b"DKIM-Signature", text.encode())


NAMES = ":".join(["from", *(f"x{number}" for number in range(2000))])
COSTLY = {
    "nested comments": [HeaderField(RESULTS, b" " + b"(" * 4000 + b"x")] * 60,
    "encoded words": [HeaderField(RESULTS, b" =?utf-8?Q?" + b"(a" * 3000)] * 60,
    "ten signatures of 8192 bits": [signature(number, "from") for number in range(10)],
    "2000 names in h=": [signature(number, NAMES) for number in range(10)],
    "a header of 240 KB": [
        *(signature(number, "from:" + "x:" * 100 + "x") for number in range(10)),
        *[HeaderField(b"X", b" y" * 500)] * 200,
    ],
    "the largest SPF": [],
    "a From in many readings": [HeaderField(b"From", b' "(<a@d.example>,' * 500)] * 30,
}


@pytest.fixture(scope="module")
def zone() -> dict[str, dict[str, object]]:
    record = key_record()
    includes = [f"i{number}.example" for number in range(9)]
    return {
        **{f"s{number}._domainkey.d.example": {"TXT": [record]} for number in range(10)},
        "spf.example": {"TXT": ["v=spf1 " + " ".join(f"include:{name}" for name in includes)]},
        **{
            name: {
                "TXT": ["v=spf1 " + " ".join(f"ip4:10.1.{n % 250}.{n // 250}" for n in range(800))]
            }
            for name in includes
        },
    }


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


def stretches(loop: Loop, session: Session, fields: list[HeaderField]) -> list[float]:
    """Seconds of processor time between two points at which others could go on."""
    marks: list[float] = []

    def mark(*_: object) -> None:
        marks.append(time.thread_time())

    def say(name: str) -> str:
        return "203.0.113.5" if name == "{client_addr}" else ""

    def send() -> None:
        session.connect("203.0.113.5", say)
        session.helo("host.example")
        session.mail(b"<a@spf.example>", (), say)
        session.rcpt(b"<v@example.com>")
        mark()
        for field in fields:
            session.header(field.name, field.value)
        mark()
        session.end_of_headers(say)
        mark()
        session.body(b"Hello\r\n")
        session.end_of_message(say)
        mark()

    loop.pause = mark  # type: ignore[method-assign]
    park = loop.park
    loop.park = lambda seconds=None: (mark(), park(seconds), mark())[1]  # type: ignore[method-assign]
    send()
    return [after - before for before, after in pairwise(marks)]


@pytest.mark.parametrize("kind", COSTLY)
def test_the_costliest_messages_give_way_in_time(session: tuple[Loop, Session], kind: str) -> None:
    """DOS-18: whatever they hold. A slow processor has more time."""
    fields = [*COSTLY[kind], FROM]
    longest = min(max(stretches(*session, fields)) for _ in range(3))
    slow = max(1.0, seconds(lambda: sum(each & 1 for each in range(100_000))) / REFERENCE)
    assert longest < SLICE * slow
