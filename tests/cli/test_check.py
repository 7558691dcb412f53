"""`dmarc-milter check MESSAGE --ip IP`: what the milter would find and do, told for a message
file."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.cli.check import message_file
from dmarc_milter.cli.main import main
from fakes.dns_server import DnsServer
from fakes.signer import Signer

LEGIT = Signer("legit.example")
ZONE = {
    "legit.example": {"TXT": ["v=spf1 ip4:198.51.100.10 -all"]},
    "_dmarc.legit.example": {"TXT": ["v=DMARC1; p=reject"]},
    LEGIT.key_name: {"TXT": [LEGIT.record()]},
    "_dmarc.slow.example": {"behaviour": "servfail"},
}
SPOOF = b"From: <a@legit.example>\r\nSubject: x\r\n\r\nHello\r\n"
SLOW = b"From: <a@slow.example>\r\n\r\nHello\r\n"
Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Check]:
    """`check` of these octets under this configuration: (exit code, what was printed)."""
    with DnsServer(ZONE) as dns:

        def run(
            raw: bytes, *words: str, ip: str = "192.0.2.66", extra: str = ""
        ) -> tuple[int, str]:
            config, file = tmp_path / "c.toml", tmp_path / "message"
            config.write_text(f'[dns]\nnameservers = ["{dns.nameserver}"]\n{extra}')
            file.write_bytes(raw)
            client = ["--ip", ip] if ip else []
            code = main(["check", str(file), "--config", str(config), *client, *words])
            return code, capsys.readouterr().out

        yield run


def outcome(told: tuple[int, str]) -> tuple[int, Any]:
    return told[0], json.loads(told[1])


def test_a_spoof_is_told_step_by_step(check: Check) -> None:
    """From, records found and where, each identifier, which rule decided, what the MTA is asked to
    do."""
    code, text = check(SPOOF, "--mail-from", "a@legit.example")
    assert code == 1
    for words in (
        "From: names legit.example",
        "SPF: fail for legit.example",
        "_dmarc.legit.example: v=DMARC1; p=reject",
        "reply 550 5.7.1",
    ):
        assert words in text


@pytest.mark.parametrize("ends", [b"\r\n", b"\n"])
@pytest.mark.parametrize("first", [b"", b"From a@b Sun Nov 22 07:00:00 2026\r\n"])
def test_line_ends_and_an_mbox_line_change_nothing(check: Check, ends: bytes, first: bytes) -> None:
    """Files from a mailbox verify like the mail that they were."""
    code, found = outcome(check((first + LEGIT.sign(SPOOF)).replace(b"\r\n", ends), "--json"))
    assert (code, found["facts"]["dkim"][0]["result"], found["facts"]["disposition"]) == (
        0,
        "pass",
        "pass",
    )


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"no header", bytes(range(256)) * 300, b"\0" * 1000])
def test_what_has_no_header_fields_is_no_mail(check: Check, raw: bytes) -> None:
    assert check(raw, "--json") == (2, "")


def test_what_has_no_end_is_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "/dev/zero", "--ip", "192.0.2.66"]) == 2
    assert "is not a mail" in capsys.readouterr().err


def test_a_file_that_no_server_would_take_is_refused(check: Check, tmp_path: Path) -> None:
    check(SPOOF)
    os.truncate(tmp_path / "message", message_file.MAX_BYTES + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", said := io.StringIO())
        code = main(["check", str(tmp_path / "message"), "--config", str(tmp_path / "c.toml")])
    assert (code, "more than 256 MB" in said.getvalue()) == (2, True)


MBOX_LINE = b"From a@b Sun Nov 22 07:00:00 2026\n"
SIGNED = LEGIT.sign(SPOOF + b"From here on\r\n>From there\r\n")
QUOTED = SIGNED.replace(b"\r\n", b"\n").replace(b"\nFrom here", b"\n>From here")
UNQUOTED = LEGIT.sign(SPOOF + b"Hello\r\n\r\nFrom the start 10:30 we met\r\n").replace(
    b"\r\n", b"\n"
)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\xef\xbb\xbf" + SIGNED, "byte order mark"),
        (b"\r\n\r\n" + SIGNED, "Empty lines"),
        (b">From a\n" + QUOTED.replace(b"\n>From there", b"\n>>From there"), ""),
        (MBOX_LINE + UNQUOTED + b"\n" + MBOX_LINE + b"From: b@b\n\n", "The first of 2 mails"),
        (b"%d\n" % len(SIGNED) + SIGNED + b"<?xml version='1.0'?>\n<plist/>", ""),
        (
            MBOX_LINE
            + QUOTED.replace(b"\n>From there", b"\n>>From there")
            + b"\n"
            + MBOX_LINE
            + b"From: b@b\n\n\n"
            + MBOX_LINE
            + b"From: b@b\n\n",
            "The first of 3 mails",
        ),
    ],
)
def test_what_mailboxes_and_editors_put_around_a_mail_is_left_out(
    check: Check, raw: bytes, words: str
) -> None:
    """mboxrd quotes lines of the body that begin with From; the signature is of the mail alone."""
    code, text = check(raw, ip="198.51.100.10")
    assert (code, "pass" in text, words in text) == (0, True, True), text


def test_a_mail_without_from_has_no_author(check: Check) -> None:
    code, found = outcome(check(b"Subject: x\r\n\r\n", "--json"))
    assert (code, found["facts"]["malformed_from"]) == (1, "no From field")


def test_a_message_may_come_on_standard_input(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(SPOOF)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SPOOF)))
    assert main(["check", "-", "--config", str(tmp_path / "c.toml"), "--ip", "192.0.2.66"]) == 1


@pytest.mark.parametrize("policy", ["enforced", "accept", "tempfail"])
def test_a_silent_dns_exits_75(check: Check, policy: str) -> None:
    """docs/design.md: 75 is to try again later, whatever is done with such mail meanwhile."""
    assert check(SLOW, extra=f'[dmarc]\non_temperror = "{policy}"\n')[0] == 75


def test_a_trusted_network_is_said(check: Check) -> None:
    """The milter would not evaluate such mail: an explanation that hides this misleads."""
    code, text = check(SPOOF, ip="127.0.0.1")
    assert (code, text.split("\n")[0]) == (
        1,
        (
            "127.0.0.1 is in trusted_networks: the milter passes its mail through unevaluated. From"
            " outside it would be:"
        ),
    )
    assert outcome(check(SPOOF, "--json", ip="127.0.0.1"))[1]["exempt"] == "trusted network"
    assert outcome(check(SPOOF, "--json"))[1]["exempt"] == ""


@pytest.mark.parametrize(
    ("ip", "source"), [("::ffff:198.51.100.10", "198.51.100.10"), ("fe80::1%eth0", "fe80::1")]
)
def test_the_client_is_the_address_that_a_session_would_have(
    check: Check, ip: str, source: str
) -> None:
    """docs/design.md: IPv4-mapped clients are IPv4; a scope says nothing to anybody else."""
    assert (
        outcome(check(SPOOF, "--mail-from", "a@legit.example", "--json", ip=ip))[1]["facts"][
            "source_ip"
        ]
        == source
    )


def test_our_own_relays_are_seen_through(check: Check) -> None:
    """docs/design.md, trusted_relays: the client is who the topmost Received field outside the list
    names."""
    relays = '[authentication]\ntrusted_relays = ["10.0.0.0/8"]\n'
    received = (
        b"Received: from mail.legit.example (mail.legit.example [198.51.100.10]) by"
        b" relay.example.com; now\r\n"
    )
    words = ("--mail-from", "a@legit.example", "--json")
    code, found = outcome(check(received + SPOOF, *words, ip="10.0.0.1", extra=relays))
    assert (code, found["facts"]["source_ip"], found["facts"]["helo"]) == (
        0,
        "198.51.100.10",
        "mail.legit.example",
    )
    code, found = outcome(check(SPOOF, *words, ip="10.0.0.1", extra=relays))
    assert (
        found["facts"]["source_known"],
        found["facts"]["spf"]["result"],
        found["facts"]["disposition"],
    ) == (False, "none", "quarantine")


def test_the_header_limits_hold_as_at_smtp_time(check: Check) -> None:
    """docs/design.md, What a message gets: beyond the header limits dkim=permerror, and forged
    fields are still removed."""
    forged = b"Authentication-Results: mx.example.com; dmarc=pass\r\n"
    raw = LEGIT.sign(
        b"From: <a@legit.example>\r\n" + b"X-Filler: x\r\n" * 20 + forged + b"\r\nHello\r\n"
    )
    extra = (
        '[authentication]\nauthserv_id = "mx.example.com"\n[policy]\nreject_action = "quarantine"\n'
    )
    assert outcome(check(raw, "--json", extra=extra))[1]["facts"]["dkim"][0]["result"] == "pass"
    code, found = outcome(check(raw, "--json", extra=extra + "[limits]\nheader_fields = 10\n"))
    assert (code, [each["result"] for each in found["facts"]["dkim"]]) == (1, ["permerror"])
    assert found["actions"][0] == {
        "action": "DeleteHeader",
        "name": "Authentication-Results",
        "index": 1,
    }


def test_kept_results_are_kept(check: Check) -> None:
    """docs/design.md, keep_results_from."""
    raw = (
        b"Authentication-Results: mx.example.com; dmarc=pass\r\nFrom:"
        b" <a@none.example>\r\n\r\nHello\r\n"
    )
    extra = '[authentication]\nauthserv_id = "mx.example.com"\n'
    assert "delete Authentication-Results, number 1" in check(raw, extra=extra)[1]
    assert "delete" not in check(raw, extra=extra + 'keep_results_from = ["192.0.2.0/24"]\n')[1]


DELIVERED = (
    b"Return-Path: <a@legit.example>\r\n"
    b"Delivered-To: me@test.example\r\n"
    b"Received: from localhost (localhost [127.0.0.1])\r\n"
    b"\tby mx.test.example (Postfix) with ESMTP id 4ABC; Mon, 30 Nov 2026 10:00:01 +0000 (UTC)\r\n"
    b"Received: from mail.legit.example (mail.legit.example [%s])\r\n"
    b"\tby mx.test.example (Postfix) with ESMTP id 4ABD; Mon, 30 Nov 2026 10:00:00 +0000 (UTC)\r\n"
    b"From: <a@legit.example>\r\nSubject: x\r\n\r\nHello\r\n"
)


@pytest.mark.parametrize(("client", "code"), [(b"198.51.100.10", 0), (b"192.0.2.66", 1)])
def test_a_delivered_message_tells_itself_who_sent_it(
    check: Check, client: bytes, code: int
) -> None:
    """Client and HELO from the topmost Received field from outside, the sender from Return-Path."""
    told, text = check(DELIVERED % client, ip="")
    assert told == code
    assert f"Client {client.decode()}, HELO mail.legit.example: from the topmost Received" in text
    assert "Sender <a@legit.example>: from the Return-Path field" in text


def test_what_is_said_on_the_command_line_holds(check: Check) -> None:
    code, text = check(DELIVERED % b"192.0.2.66", "--mail-from", "a@legit.example")
    assert code == 1
    assert "Return-Path" not in text
    code, text = check(
        DELIVERED % b"198.51.100.10", "--mail-from", "", "--helo", "x.example", ip=""
    )
    assert "HELO x.example" in text
    assert "Return-Path" not in text


def test_a_relay_of_ours_is_passed_over(check: Check) -> None:
    relayed = (
        b"Received: from relay.test.example (relay.test.example [203.0.113.9]) by mx; today\r\n"
        + DELIVERED % b"198.51.100.10"
    )
    trusted = '[authentication]\ntrusted_relays = ["203.0.113.9"]\n'
    assert "Client 198.51.100.10" in check(relayed, ip="", extra=trusted)[1]
    assert "Client 203.0.113.9" in check(relayed, ip="")[1]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (Path("/bin/ls").read_bytes(), "is not a mail"),
        (b"", "is not a mail"),
        (b"# Title\n\nA text: with a colon\n", "is not a mail"),
        (b"key: value\nother: value\n", "is not a mail"),
        (b'{"from": "json"}\n', "is not a mail"),
        (gzip.compress(SPOOF, mtime=0), "message | dmarc-milter check -`"),
        (bz2.compress(SPOOF), "`bzcat"),
        (lzma.compress(SPOOF), "`xzcat"),
        (b"PK\x03\x04" + SPOOF, "ZIP"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + SPOOF, "Outlook"),
        (SPOOF.decode().encode("utf-16"), "UTF-16"),
        (SPOOF.decode().encode("utf-16-be"), "is not a mail"),
        (SPOOF, "no Received field names a client outside"),
        (b"Received: by mx.example\r\n" + SPOOF, "--ip"),
    ],
)
def test_what_cannot_be_checked_is_said_in_one_line(check: Check, raw: bytes, words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        said = io.StringIO()
        patch.setattr(sys, "stderr", said)
        code, text = check(raw, ip="")
    assert (code, text) == (2, "")
    assert words in said.getvalue()
    assert said.getvalue().count("\n") == 1


def test_a_folder_is_told_from_a_mail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 2
    assert "is a folder: name one of its mails" in capsys.readouterr().err
