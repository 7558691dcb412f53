"""Other filters behind this one, as Debian packages them, in a private Postfix: what they make of
our field, and what breaks in another order or setting. docs/how-to/other-filters.md says what is
seen here. `make other-filters` runs it; it is not part of `make check`."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench import peers
from bench.contenders import Where
from dmarc_milter.config.checks import socket_address
from dmarc_milter.mta.other_filters import PROXY, of_postfix
from dmarc_milter.mta.postfix import read
from fakes.daemon import free_port
from fakes.dns_server import DnsServer
from fakes.signer import Signer
from live import filters
from live.attached import daemon, postfix_settings
from live.place import answers, eventually, library_path, private_folder
from live.postfix import Postfix, private_postfix
from live.scenarios import STRANGER, letter, our_fields, signed, zone
from live.smtp import Smtp

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

OURS = "ours"


@pytest.fixture(autouse=True)
def _unpacked() -> None:
    filters.require_filters()


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(zone()) as server:
        yield server


@pytest.fixture
def folder() -> Iterator[Path]:
    with private_folder("filters") as made:
        made.chmod(0o777)
        yield made


@contextmanager
def postfix_with(dns: DnsServer, *order: str, **extra: str) -> Iterator[Postfix]:
    """`order`: endpoints as smtpd_milters has them, OURS among them."""
    socket = f"inet:{free_port()}@127.0.0.1"
    lines = postfix_settings(socket)
    element = lines.pop("smtpd_milters")
    milters = ", ".join(element if one == OURS else one for one in order)
    with (
        daemon(dns, socket, {"authentication": {"trusted_networks": ["127.0.0.0/8"]}}),
        private_postfix(milters=milters, extra=lines | extra) as postfix,
    ):
        yield postfix


def genuine(postfix: Postfix, user: str = "reader") -> bytes:
    """A forwarded message that passes by its DKIM signature alone, as it was delivered."""
    message = signed(letter("Alice <alice@sender.example>"))
    reply = postfix.send(message, user, client=STRANGER, mail_from="x@forwarder.example")
    assert reply.code == 250, reply
    return postfix.delivered(user)


def dmarc_results(message: bytes) -> list[str]:
    """The dmarc word of each field under our id, the topmost first."""
    return [word for field in our_fields(message) for word in re.findall(r"dmarc=(\w+)", field)]


# -- OpenDKIM and OpenDMARC ------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "fields"), [("s", 1), ("sv", 0), ("v", 0)])
def test_opendkim_behind_us_deletes_our_field_where_it_verifies(
    dns: DnsServer, folder: Path, mode: str, fields: int
) -> None:
    """Mode sv is its default."""
    with (
        filters.opendkim(folder, dns.nameserver, f"Mode {mode}\n") as opendkim,
        postfix_with(dns, OURS, opendkim) as postfix,
    ):
        assert len(our_fields(genuine(postfix))) == fields


def test_opendkim_before_us_only_verifies_twice(dns: DnsServer, folder: Path) -> None:
    with (
        filters.opendkim(folder, dns.nameserver, "Mode sv\n") as opendkim,
        postfix_with(dns, opendkim, OURS) as postfix,
    ):
        assert dmarc_results(genuine(postfix)) == ["pass"]


def test_opendkim_signs_outgoing_mail_behind_us(dns: DnsServer, folder: Path) -> None:
    """Mode s in smtpd_milters behind this milter: mail of our own network is signed, and the
    signature verifies at the next host."""
    signer, key = Signer("sender.example"), folder / "key"
    key.write_bytes(
        signer.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    lines = f"Mode s\nDomain sender.example\nSelector {signer.selector}\nKeyFile {key}\n"
    lines += "RequireSafeKeys no\n"
    with (
        filters.opendkim(folder, dns.nameserver, lines) as opendkim,
        postfix_with(dns, OURS, opendkim) as postfix,
    ):
        with Smtp(postfix.port) as smtp:  # from 127.0.0.1, without XCLIENT
            smtp.command("EHLO localhost")
            smtp.transaction(
                letter("Alice <alice@sender.example>"),
                mail_from="alice@sender.example",
                recipients=("own@test.example",),
            )
        sent = postfix.delivered("own")
        assert b"DKIM-Signature: " in sent
        start = sent.index(b"DKIM-Signature: ")
        again = re.sub(rb"\r?\n", b"\r\n", sent[start:])
        postfix.send(again, "next", client=STRANGER, mail_from="x@forwarder.example")
        assert dmarc_results(postfix.delivered("next")) == ["pass"]


def test_opendmarc_behind_us_adds_a_second_result(dns: DnsServer, folder: Path) -> None:
    """Under the same host's name, and on top."""
    with (
        filters.opendmarc(folder) as opendmarc,
        postfix_with(dns, OURS, opendmarc) as postfix,
    ):
        results = dmarc_results(genuine(postfix))
    assert (len(results), results[-1]) == (2, "pass")


# -- Rspamd ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "kept"),
    [("", True), ('use = ["authentication-results"];', False)],
    ids=["as installed", "writing results"],
)
def test_rspamd_keeps_our_field_unless_it_writes_its_own(
    dns: DnsServer, folder: Path, monkeypatch: pytest.MonkeyPatch, use: str, kept: bool
) -> None:
    """It scores by its own checks either way."""
    headers = {"local.d/milter_headers.conf": f"extended_spam_headers = true; {use}"}
    monkeypatch.setattr(peers, "OVERRIDES", peers.OVERRIDES | headers)
    with peers.rspamd_whole(Where(folder / "rspamd", tcp=True), dns.nameserver) as rspamd:
        host, port = rspamd.chain[0]
        with postfix_with(dns, OURS, f"inet:{host}:{port}") as postfix:
            message = genuine(postfix)
    assert b"DMARC_POLICY_ALLOW" in message
    assert any("dis=none" in field for field in our_fields(message)) == kept


# -- SpamAssassin ----------------------------------------------------------------------------------

BY_TEXT = r"""
header   __OUR_DMARC_FAIL  Authentication-Results =~ /^mx\.test\.example;.*\bdmarc=fail\b/s
meta     OUR_DMARC_FAIL    __OUR_DMARC_FAIL
score    OUR_DMARC_FAIL    3.0
"""
BY_PLUGIN = """
loadplugin Mail::SpamAssassin::Plugin::AuthRes
authres_trusted_authserv mx.test.example
authres_networks all
header   OUR_DMARC_FAIL    eval:check_authres_result('dmarc', 'fail')
score    OUR_DMARC_FAIL    3.0
"""
SHOWN = "add_header all Status _YESNO_ tests=_TESTS_\n"


@pytest.mark.parametrize("rules", [BY_TEXT, BY_PLUGIN], ids=["a rule", "its plug-in"])
def test_spamassassin_scores_by_our_field(dns: DnsServer, folder: Path, rules: str) -> None:
    with (
        filters.spamassassin(folder, rules + SHOWN + "report_safe 0\n") as spamass,
        postfix_with(dns, OURS, spamass) as postfix,
    ):
        forged = letter("Boss <boss@none.example>")
        postfix.send(forged, "forged", client=STRANGER, mail_from="x@forwarder.example")
        assert b"OUR_DMARC_FAIL" in postfix.delivered("forged")
        message = genuine(postfix)
        assert b"OUR_DMARC_FAIL" not in message
        assert b"X-Spam-Status: " in message


def test_spamassassin_before_us_makes_genuine_mail_fail(dns: DnsServer, folder: Path) -> None:
    """It rewrites what it takes for spam (report_safe 1, the default): the signature is broken
    before we verify it."""
    with (
        filters.spamassassin(folder, "required_score 1\n") as spamass,
        postfix_with(dns, spamass, OURS) as postfix,
    ):
        message = signed(letter("Alice <alice@sender.example>"))
        reply = postfix.send(message, "reader", client=STRANGER, mail_from="x@forwarder.example")
        assert (reply.code, "DKIM fail" in reply.text) == (550, True)


# -- Amavis ----------------------------------------------------------------------------------------

MILTERS_OFF = " -o smtpd_milters="
AMAVIS = """\
smtp-amavis unix - - n - 2 smtp -o smtp_data_done_timeout=60 -o smtp_send_xforward_command=yes
127.0.0.1:{back} inet n - n - - smtpd -o content_filter={milters}
  -o local_header_rewrite_clients= -o smtpd_recipient_restrictions=permit_mynetworks,reject
  -o mynetworks=127.0.0.0/8
"""


@pytest.mark.parametrize("through_us_again", [False, True])
def test_amavis_gives_our_field_back_where_its_port_leaves_us_out(
    dns: DnsServer, folder: Path, through_us_again: bool
) -> None:
    """`-o smtpd_milters=` at the port where it gives mail back; without it our own first field is
    taken for a forged one."""
    back = free_port()
    with filters.amavis(folder, back) as port, postfix_with(dns, OURS) as postfix:
        milters = "" if through_us_again else " -o smtpd_milters="
        master = postfix.folder / "etc/master.cf"
        master.write_text(master.read_text() + AMAVIS.format(back=back, milters=milters))
        postfix.set(content_filter=f"smtp-amavis:[127.0.0.1]:{port}")
        eventually(lambda: answers(back), what="Postfix listens for what Amavis gives back")
        message = genuine(postfix)
    assert b"amavis" in message.lower()
    assert ("header.from=sender.example" in "".join(our_fields(message))) != through_us_again


def test_behind_a_proxy_filter_no_milter_sees_the_message(dns: DnsServer, folder: Path) -> None:
    """smtpd_proxy_filter: a message that the policy refuses goes through."""
    back = free_port()
    with filters.amavis(folder, back) as port, postfix_with(dns, OURS) as postfix:
        master = postfix.folder / "etc/master.cf"
        milters = " -o smtpd_proxy_filter= -o smtpd_milters="
        master.write_text(master.read_text() + AMAVIS.format(back=back, milters=milters))
        postfix.set(smtpd_proxy_filter=f"127.0.0.1:{port}")
        eventually(lambda: answers(back), what="Postfix listens for what Amavis gives back")
        forged = letter("Boss <boss@reject.example>")
        reply = postfix.send(forged, "reader", client=STRANGER, mail_from="x@forwarder.example")
        assert reply.code == 250
        assert our_fields(postfix.delivered("reader")) == []


def test_mail_given_to_the_filter_after_the_queue_is_judged_and_does_not_go_round(
    dns: DnsServer, folder: Path
) -> None:
    """The commands that `setup` prints for a proxy, run by postconf: a forgery is refused, genuine
    mail passes Amavis once and keeps our field."""
    back = free_port()
    with filters.amavis(folder, back) as port, postfix_with(dns, OURS) as postfix:
        master = postfix.folder / "etc/master.cf"
        lines = AMAVIS.replace(" -o content_filter=", "").format(back=back, milters=MILTERS_OFF)
        proxied = rf"\1 -o smtpd_proxy_filter=127.0.0.1:{port}"
        before = re.sub(rf"(?m)^(127\.0\.0\.1:{postfix.port} .*)$", proxied, master.read_text())
        master.write_text(before + lines)
        found = of_postfix(read(postfix.folder / "etc/main.cf"), socket_address("fd:3"))
        (instead,) = [one.without for one in found if one.role == PROXY]
        commands = instead.removesuffix(" && postfix reload")
        commands = commands.replace("postconf ", f"{postfix.command('postconf')} ")
        subprocess.run(commands, shell=True, check=True, env=dict(os.environ) | library_path())
        assert "smtpd_proxy_filter" not in master.read_text()
        postfix.set()
        eventually(lambda: answers(back), what="Postfix listens for what Amavis gives back")
        forged = letter("Boss <boss@reject.example>")
        reply = postfix.send(forged, "reader", client=STRANGER, mail_from="x@forwarder.example")
        assert reply.code == 550
        message = genuine(postfix)
    assert message.lower().count(b"(amavis") == 1
    assert "header.from=sender.example" in "".join(our_fields(message))
