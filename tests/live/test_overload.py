"""Postfix while others take all they can get: saturating messages, spoofs, and MAIL and EHLO in
turns, from fifty connections."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from fakes.daemon import Daemon, free_port
from fakes.dns_server import DnsServer
from fakes.saturation import VICTIM, Letter, Load, World, assert_honest_mail_gets_through
from fakes.soak import LONG
from live.attached import daemon, postfix_settings
from live.place import eventually, require_live
from live.postfix import DOMAIN, Postfix, private_postfix
from live.scenarios import dmarc_word, our_fields
from live.smtp import Client, Smtp

pytestmark = [
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.live,
    pytest.mark.soak,
    pytest.mark.timeout(7200 if LONG else 240),
]
SECONDS = 240.0 if LONG else 2.5


@dataclass(frozen=True)
class Attacked:
    mta: Postfix
    daemon: Daemon

    def send(self, client: str, letter: Letter) -> tuple[int, bool]:
        """In a connection of its own. That what was accepted has passed is seen in the mailbox."""
        with Smtp(self.mta.port) as smtp:
            smtp.socket.settimeout(200)  # beyond what our own thread waits for its turn at most
            smtp.become(Client(client, "host.example"))
            to = "honest" if client.startswith("198.") else "others"
            reply = smtp.transaction(
                letter.message, mail_from=letter.mail_from, recipients=(f"{to}@{DOMAIN}",)
            )
        return reply.code, reply.code == 250

    def loop(self, client: str, sender: Callable[[], str]) -> None:
        """MAIL and EHLO in turns, with another connection before Postfix slows it down
        (smtpd_junk_command_limit)."""
        while True:
            with Smtp(self.mta.port) as smtp:
                smtp.become(Client(client, "host.example"))
                for _ in range(90):
                    assert smtp.command(f"MAIL FROM:<{sender()}>").code == 250
                    assert smtp.command("EHLO host.example").code == 250


@contextlib.contextmanager
def attacked(world: World, servers: int) -> Iterator[Attacked]:
    """Postfix, two workers and so many name servers, each answering after 20 ms."""
    require_live()
    zone, socket = world.zone(), f"inet:{free_port()}@127.0.0.1"
    lines = postfix_settings(socket)
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(DnsServer(zone, record=False)) for _ in range(servers)]
        for each in started:
            each.delay = 0.02
        settings: dict[str, dict[str, object]] = {
            "milter": {"workers": 2},
            "dns": {"nameservers": [each.nameserver for each in started]},
        }
        running = stack.enter_context(daemon(started[0], socket, settings))
        mta = stack.enter_context(private_postfix(milters=lines.pop("smtpd_milters"), extra=lines))
        yield Attacked(mta, running)


@pytest.mark.parametrize(("servers", "networks"), [(1, (3, 50)), (2, (50, 3))])
def test_honest_mail_passes_while_others_saturate(servers: int, networks: tuple[int, int]) -> None:
    """From few client networks and from many (in the short form the last only); what has been
    delivered is looked at in the end."""
    world = World()
    with attacked(world, servers) as mx:
        for number in range(0, 40, 2):
            assert mx.send("198.18.0.1", world.honest(number))[0] == 250
        accepted = 20
        for each in networks if LONG else networks[-1:]:
            load = Load(world, mx.send, mx.loop, networks=each)
            outcome = load.run(SECONDS, to_the_end=LONG)
            assert_honest_mail_gets_through(outcome)
            accepted += outcome.honest[250, True]
        eventually(
            lambda: len(mx.mta.mailbox("honest")) >= accepted,
            seconds=30,
            what="honest mail delivered",
        )
        delivered = mx.mta.mailbox("honest")
        assert {dmarc_word(field) for message in delivered for field in our_fields(message)} == {
            "pass"
        }
        assert all(len(our_fields(message)) == 1 for message in delivered)
        forged = [
            message
            for message in mx.mta.mailbox("others")
            if re.search(rf"^From:.*@{VICTIM}".encode(), message, re.MULTILINE)
        ]
        assert forged == []
        assert not mx.daemon.events("failure")
        assert not mx.daemon.events("worker_died")
