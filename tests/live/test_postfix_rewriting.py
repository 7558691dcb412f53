"""Where Postfix rewrites From: its cleanup does so before it asks the milter, so that what is
judged is what readers see."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from fakes.daemon import free_port
from fakes.dns_server import DnsServer
from live.attached import AttachedPostfix, daemon, postfix_settings
from live.place import require_live
from live.postfix import private_postfix
from live.scenarios import SENDER, STRANGER, dmarc_word, letter, our_fields, zone
from live.smtp import Client, Smtp

pytestmark = pytest.mark.live

REWRITING = {
    "local_header_rewrite_clients": "static:all",
    "remote_header_rewrite_domain": "domain.invalid",
    "append_at_myorigin": "yes",
    "append_dot_mydomain": "yes",
    "mydomain": "example",
    "myorigin": "reject.example",
    "sender_canonical_maps": "inline:{ {alice@sender.example=boss@reject.example} }",
    "masquerade_domains": "reject.example",
    "smtpd_authorized_xclient_hosts": "0.0.0.0/0",
}


@pytest.fixture(scope="module")
def mx() -> Iterator[AttachedPostfix]:
    require_live()
    socket = f"inet:{free_port()}@127.0.0.1"
    lines = postfix_settings(socket)
    with (
        DnsServer(zone()) as dns,
        daemon(dns, socket, {}) as running,
        private_postfix(milters=lines.pop("smtpd_milters"), extra=lines | REWRITING) as postfix,
    ):
        yield AttachedPostfix(postfix, running, dns, socket)


@pytest.mark.parametrize(
    "author", ["boss@reject", "alice@sender.example", "boss@mail.reject.example"]
)
def test_what_postfix_writes_is_what_is_judged(mx: AttachedPostfix, author: str) -> None:
    """MTA-11: append_dot_mydomain, canonical and masqueraded addresses, for an administrator who
    rewrites outsiders' header fields."""
    reply = mx.mta.send(
        letter(author), "rewritten", client=STRANGER, mail_from="x@forwarder.example"
    )
    assert (reply.code, "reject.example" in reply.text) == (550, True), reply


def test_a_name_without_a_domain_is_judged_as_completed(mx: AttachedPostfix) -> None:
    """MTA-11: append_at_myorigin makes the reader see boss@reject.example; nobody passes for it."""
    reply = mx.mta.send(letter("boss"), "bare", client=STRANGER, mail_from="x@forwarder.example")
    assert reply.code == 550 or b"X-DMARC-Quarantine" in mx.mta.delivered("bare")


def test_a_login_ends_with_its_client(mx: AttachedPostfix) -> None:
    """HDR-20: one connection of Postfix's, first alice's, then a stranger's (XCLIENT): only the
    first is exempt."""
    spoof = letter("Boss <boss@reject.example>", subject="Login")
    with Smtp(mx.mta.port) as smtp:
        smtp.become(Client(SENDER.address, SENDER.helo, login="alice"))
        first = smtp.transaction(
            spoof, mail_from="x@forwarder.example", recipients=("login1@test.example",)
        )
        smtp.command(f"XCLIENT ADDR={STRANGER.address} NAME=[UNAVAILABLE] LOGIN=[UNAVAILABLE]")
        smtp.command(f"EHLO {STRANGER.helo}")
        second = smtp.transaction(
            spoof, mail_from="x@forwarder.example", recipients=("login2@test.example",)
        )
    assert (first.code, second.code) == (250, 550)
    assert our_fields(mx.mta.delivered("login1")) == []


def test_a_client_that_changes_its_address_is_judged_by_the_new_one(mx: AttachedPostfix) -> None:
    """HDR-13: XCLIENT in the middle, as a proxy in front of Postfix does it."""
    mine = letter("Carol <carol@sender.example>", subject="Address")
    with Smtp(mx.mta.port) as smtp:
        smtp.become(SENDER)
        assert (
            smtp.transaction(
                mine, mail_from="carol@sender.example", recipients=("first@test.example",)
            ).code
            == 250
        )
        smtp.command(f"XCLIENT ADDR={STRANGER.address} NAME=[UNAVAILABLE]")
        smtp.command(f"EHLO {STRANGER.helo}")
        reply = smtp.transaction(
            mine, mail_from="carol@sender.example", recipients=("second@test.example",)
        )
    assert reply.code == 550, reply
    (ours,) = our_fields(mx.mta.delivered("first"))
    assert dmarc_word(ours) == "pass"
    assert re.search(r"header\.from=sender\.example", ours)
