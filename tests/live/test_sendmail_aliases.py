"""Sendmail looks the domain in From up and writes where the sender's DNS leads: with Debian's own
sendmail.mc, which does so, and ours."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.config.checks import socket_address
from dmarc_milter.mta import setup_lines
from fakes.daemon import Daemon
from fakes.dns_server import DnsServer
from fakes.signer import Signer
from live import namespace
from live.attached import daemon, sendmail_lines
from live.place import private_folder, require_live
from live.scenarios import STRANGER, dmarc_word, letter, our_fields, signed, zone
from live.sendmail import Sendmail, private_sendmail

pytestmark = pytest.mark.live

ATTACK, BRAND = Signer("attack.example"), Signer("brand.example")
NAMES: dict[str, dict[str, Any]] = {
    **zone(),
    "_dmarc.test.example": {"TXT": ["v=DMARC1; p=reject"]},
    "_dmarc.attack.example": {"TXT": ["v=DMARC1; p=none"]},
    ATTACK.key_name: {"TXT": [ATTACK.record()]},
    "attack.example": {"A": ["203.0.113.66"]},
    "x.attack.example": {"CNAME": "reject.example"},
    "y.attack.example": {"CNAME": "x.attack.example"},
    "only.attack.example": {"CNAME": "mail.reject.example"},
    "mail.reject.example": {"MX": [[10, "mx.reject.example"]]},
    "any.w.attack.example": {"CNAME": "reject.example"},
    "reject.example": {"TXT": ["v=spf1 -all"], "A": ["198.51.100.10"]},
    "_dmarc.brand.example": {"TXT": ["v=DMARC1; p=reject"]},
    BRAND.key_name: {"TXT": [BRAND.record()]},
    "news.brand.example": {"CNAME": "x.esp.example"},
    "x.esp.example": {"A": ["203.0.113.50"]},
}
FORGERIES = {
    "alias": "admin@x.attack.example",
    "chain": "admin@y.attack.example",
    "alias of a name with MX alone": "admin@only.attack.example",
    "search list": "admin@reject",
    "search list, then alias": "admin@x.attack",
    "two mailboxes": "a@x.attack.example, admin@x.attack.example",
    "named": "Reject Bank <admin@x.attack.example>",
}
LEFT_AS_THEY_ARE = {
    "percent": "<admin%reject.example>",
    "bang path": "<reject.example!admin>",
    "route": "<@reject.example:a@attack.example>",
}
TAKEN_FOR_ITSELF = ["admin@localhost", "admin@bank.UUCP"]
"""For these every Sendmail writes its own name."""
"""What Sendmail rewrites whatever its configuration says."""


class Attached:
    def __init__(self, mta: Sendmail, running: Daemon) -> None:
        self.mta, self.daemon = mta, running
        self._sent = 0

    def deliver(self, author: str, signer: Signer = ATTACK) -> tuple[int, str, str, bool]:
        """(reply code, From as delivered, dmarc word, whether it is marked)"""
        self._sent += 1
        user = f"user{self._sent}"
        reply = self.mta.send(
            signed(letter(author), signer.domain),
            user,
            client=STRANGER,
            mail_from="x@forwarder.example",
        )
        if reply.code != 250:
            return reply.code, "", "", False
        message = self.mta.delivered(user)
        shown = re.search(rb"^From:((?:.*)(?:\n[ \t].*)*)", message, re.MULTILINE)
        assert shown, message
        words = [dmarc_word(each) for each in our_fields(message)]
        return (
            reply.code,
            shown[1].decode(),
            words[0],
            b"\nX-DMARC-Quarantine: yes" in b"\n" + message,
        )


@contextmanager
def sendmail(lines: Callable[[str], str], **settings: Any) -> Iterator[Attached]:
    """Debian's Sendmail, which asks a DNS of its own with `search example`, and the daemon, which
    asks the same zone."""
    require_live()
    if not namespace.allowed():
        pytest.skip(
            "this machine refuses a network of our own, and Sendmail asks no DNS but that of"
            " port 53"
        )
    inner = DnsServer(NAMES, port=53)
    os.environ["LOCALDOMAIN"] = "example"  # for a daemon that reads this machine's resolv.conf
    with private_folder("socket", parent="/run") as folder, DnsServer(NAMES) as dns:
        socket = f"unix:{folder}/milter.sock"
        resolver = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\nsearch example\n"
        with private_sendmail(filters=lines(socket), debian=True, resolver=resolver) as mta:
            mta.inside(inner.start)
            trust = {"sendmail_cf": f"{mta.folder}/sendmail.cf", **settings}
            with daemon(dns, socket, {"authentication": trust}) as running:
                os.environ.pop("LOCALDOMAIN")
                yield Attached(mta, running)
            inner.stop()


def bare(socket: str) -> str:
    """The filter alone, without what keeps Sendmail from rewriting From."""
    return setup_lines.sendmail_mc(socket_address(socket))


@pytest.fixture(scope="module")
def rewriting() -> Iterator[Attached]:
    with sendmail(bare) as attached:
        yield attached


@pytest.fixture(scope="module")
def ours() -> Iterator[Attached]:
    with sendmail(sendmail_lines) as attached:
        yield attached


@pytest.mark.parametrize("author", FORGERIES.values(), ids=FORGERIES)
def test_without_our_lines_no_forgery_reaches_readers_with_a_pass(
    rewriting: Attached, author: str
) -> None:
    """MTA-01, -02, -09: this Sendmail does write the victim's name; then there is no pass, and the
    message is quarantined."""
    code, shown, word, marked = rewriting.deliver(author)
    assert code == 250
    assert "reject.example" in shown, "this Sendmail does not rewrite: the test proves nothing"
    assert word != "pass"
    assert marked


@pytest.mark.parametrize("author", FORGERIES.values(), ids=FORGERIES)
def test_with_our_lines_from_reaches_readers_as_it_was_judged(ours: Attached, author: str) -> None:
    """MTA-08: FEATURE(`nocanonify') and DontExpandCnames; what passes is what was judged."""
    code, shown, word, marked = ours.deliver(author)
    assert (code, shown.strip(), marked) == (250, author, False)
    assert "reject.example" not in shown
    assert word == ("pass" if "attack.example" in author else "none")


@pytest.mark.parametrize("author", LEFT_AS_THEY_ARE.values(), ids=LEFT_AS_THEY_ARE)
def test_old_routes_that_every_sendmail_rewrites_are_refused(ours: Attached, author: str) -> None:
    """MTA-10: a%b, b!a and routes without an address of their own become a@b whatever the lines
    say: its policy is asked for."""
    assert ours.deliver(author)[0] == 550


@pytest.mark.parametrize("author", TAKEN_FOR_ITSELF)
def test_what_sendmail_takes_for_itself_is_quarantined(ours: Attached, author: str) -> None:
    """MTA-12: readers see our own host's name, so that our own policy counts."""
    code, shown, word, marked = ours.deliver(author)
    assert (code, marked) == (250, True), (shown, word)
    assert "test.example" in shown or "!" in shown, shown
    assert word != "pass"


def test_genuine_mail_of_a_sender_with_an_alias(ours: Attached, rewriting: Attached) -> None:
    """MTA-04: with our lines nothing changes for it; without them this Sendmail spoils its From,
    and so it is marked."""
    assert ours.deliver("News <news@news.brand.example>", BRAND) == (
        250,
        " News <news@news.brand.example>",
        "pass",
        False,
    )
    code, shown, word, marked = rewriting.deliver("News <news@news.brand.example>", BRAND)
    assert (code, "x.esp.example" in shown, word, marked) == (250, True, "fail", True)
    assert rewriting.deliver("a@attack.example") == (250, " a@attack.example", "pass", False)


def test_the_daemon_says_at_its_start_what_this_sendmail_does(
    rewriting: Attached, ours: Attached
) -> None:
    """MTA-08: loudly where it is attached to a Sendmail that rewrites From."""
    assert "WARNING: " in rewriting.daemon.text()
    assert "REWRITES From BY THE DNS" in rewriting.daemon.text()
    assert "WARNING: " not in ours.daemon.text()
    check = ["config", "check", "--offline", "--config", str(ours.daemon.config), "--sendmail"]
    assert [main([*check, f"{each.mta.folder}/sendmail.cf"]) for each in (ours, rewriting)] == [
        0,
        1,
    ]
