"""How long a message takes over TCP with a real Postfix, one connection, answers at hand: printed,
and no delayed acknowledgement in it."""

from __future__ import annotations

import statistics
import time

import pytest

from fakes.daemon import Daemon
from fakes.dns_server import DnsServer
from live.place import private_folder
from live.postfix import Postfix, private_postfix
from live.scenarios import letter, zone
from live.smtp import Client, Smtp

pytestmark = [pytest.mark.live, pytest.mark.alone]

MESSAGES, ROUNDS = 30, 3
MOST = 0.025
"""Seconds that the milter may add to a message; it was 0.044."""


def seconds(mta: Postfix, message: bytes) -> float:
    """The median from MAIL to the last reply, of the quickest round."""
    rounds = []
    for _ in range(ROUNDS):
        times = []
        with Smtp(mta.port) as smtp:
            smtp.become(Client())
            for _ in range(MESSAGES):
                begin = time.monotonic()
                reply = smtp.transaction(
                    message, mail_from="alice@sender.example", recipients=("v@test.example",)
                )
                assert reply.code == 250, reply
                times.append(time.monotonic() - begin)
        rounds.append(statistics.median(times))
    return min(rounds)


MESSAGE = letter("Alice <alice@sender.example>", subject="How long")


@pytest.fixture(scope="module")
def alone() -> float:
    """Seconds of a message without a milter."""
    with private_postfix() as mta:
        return seconds(mta, MESSAGE)


@pytest.mark.parametrize("library", ["native", "pymilter"])
def test_a_message_over_tcp_waits_for_no_acknowledgement(library: str, alone: float) -> None:
    """The figure of docs/performance.md, on this machine."""
    with DnsServer(zone()) as dns, private_folder("latency") as folder:
        tables = {
            "milter": {"workers": 1, "library": library},
            "dns": {"nameservers": [dns.nameserver]},
        }
        with (
            Daemon(folder, tables) as daemon,
            private_postfix(milters=f"inet:127.0.0.1:{daemon.port}") as mta,
        ):
            ours = seconds(mta, MESSAGE)
    print(
        f"\n{library} over TCP: {ours * 1000:.1f} ms a message, {alone * 1000:.1f} ms without a"
        " milter"
    )
    assert ours - alone < MOST
