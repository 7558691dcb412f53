"""Real mail through a real Postfix: refused, marked, held or delivered as the sender's policy says,
and never unchecked."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator

import pytest

from live.attached import AttachedPostfix, postfix_with_milter, start_again, stop_gently
from live.place import answers, eventually, within
from live.postfix import DOMAIN
from live.scenarios import (
    AUTHSERV_ID,
    SENDER,
    SENDER_6,
    STRANGER,
    Scenario,
    disposition_said,
    dmarc_word,
    field_names,
    letter,
    our_fields,
    scenarios,
    signed,
)
from live.smtp import Client, Reply, Smtp

pytestmark = pytest.mark.live

SPOOF = letter("Boss <boss@reject.example>", subject="Spoof")
GOOD = letter("Alice <alice@sender.example>", subject="Good")


@pytest.fixture(scope="module")
def mx() -> Iterator[AttachedPostfix]:
    with postfix_with_milter() as attached:
        yield attached


@pytest.fixture(scope="module")
def holding_mx() -> Iterator[AttachedPostfix]:
    with postfix_with_milter({"policy": {"quarantine_action": "hold"}}) as attached:
        yield attached


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_each_message_is_treated_as_its_sender_asks(
    mx: AttachedPostfix, scenario: Scenario
) -> None:
    """docs/design.md, What a message gets: one field of ours on top of everything, forged ones
    gone, a spoof of p=reject refused."""
    user = re.sub(r"\W+", "-", scenario.name)
    reply = mx.mta.send(
        scenario.message, user, client=scenario.client, mail_from=scenario.mail_from
    )
    assert reply.code == scenario.code, reply
    if reply.code != 250:
        assert reply.text.startswith("5.7.1 ")
        assert mx.mta.mailbox(user) == []
        return
    message = mx.mta.delivered(user)
    (ours,) = our_fields(message)
    assert dmarc_word(ours) == scenario.dmarc, ours
    assert disposition_said(ours) == scenario.disposition, ours
    names = field_names(message)
    assert names.index("authentication-results") < names.index("received"), (
        "our field is not above the field of our own MTA"
    )
    assert ("x-dmarc-quarantine" in names) == (scenario.disposition == "quarantine")
    assert not scenario.gone or scenario.gone not in message


def test_quarantined_mail_is_held_where_the_administrator_asks(holding_mx: AttachedPostfix) -> None:
    """quarantine_action = "hold": SMFIR_QUARANTINE puts it into Postfix's hold queue, with our
    field and without the mark."""
    reply = holding_mx.mta.send(
        letter("Boss <boss@quarantine.example>", subject="Hold"),
        "held",
        client=STRANGER,
        mail_from="",
    )
    assert reply.code == 250, reply
    eventually(lambda: reply.queue_id in holding_mx.mta.held(), what="in the hold queue")
    assert holding_mx.mta.mailbox("held") == []


def test_the_refusal_names_the_domain_and_what_failed(mx: AttachedPostfix) -> None:
    """An honest sender must be able to see what to repair."""
    reply = mx.mta.send(SPOOF, "named", client=STRANGER, mail_from="")
    assert (reply.code, reply.text[:6]) == (550, "5.7.1 "), reply
    assert "reject.example" in reply.text
    assert "SPF" in reply.text.upper()
    assert "DKIM" in reply.text.upper()


def test_an_ipv6_client_is_evaluated_as_itself(mx: AttachedPostfix) -> None:
    """SPF by ip6, and a stranger from the same family is refused."""
    assert mx.mta.send(GOOD, "six", client=SENDER_6).code == 250
    assert dmarc_word(our_fields(mx.mta.delivered("six"))[0]) == "pass"
    assert (
        mx.mta.send(GOOD, "six-stranger", client=Client("2001:db8::bad", "x.example")).code == 550
    )


def test_an_authenticated_client_is_not_evaluated_but_cleaned(mx: AttachedPostfix) -> None:
    """{auth_authen}: our own user may write any author, and still may not bring a field in our
    name."""
    message = letter(
        "Boss <boss@reject.example>",
        above=f"Authentication-Results: {AUTHSERV_ID}; dmarc=pass\n",
        subject="Submitted",
    )
    client = Client(STRANGER.address, "laptop.home.example", login="alice")
    assert mx.mta.send(message, "submitted", client=client).code == 250
    assert our_fields(mx.mta.delivered("submitted")) == []


@pytest.mark.parametrize(("login", "code"), [("alice", 250), ("", 550)])
def test_the_submission_service_exempts_those_who_logged_in(
    mx: AttachedPostfix, login: str, code: int
) -> None:
    """FWD-20: {daemon_name} ORIGINATING is in trusted_daemons, and a name is no login."""
    message = letter(
        "Boss <boss@reject.example>",
        above=f"Authentication-Results: {AUTHSERV_ID}; dmarc=pass\n",
        subject="Daemon",
    )
    with Smtp(mx.mta.submission_port) as smtp:
        smtp.become(Client(STRANGER.address, "laptop.home.example", login=login))
        assert (
            smtp.transaction(
                message, mail_from="boss@reject.example", recipients=(f"daemon@{DOMAIN}",)
            ).code
            == code
        )
    if login:
        assert our_fields(mx.mta.delivered("daemon")) == []


@pytest.mark.parametrize(
    "helo",
    [
        b"\xff\xfe.example",
        b"[203.0.113.7]",
        b"no-dots",
        b"a" * 500,
        b"%s%s%n",
        "m\u00e4il.example".encode(),
    ],
)
def test_an_odd_helo_changes_nothing_for_the_author(mx: AttachedPostfix, helo: bytes) -> None:
    """Postfix hands the HELO over as it came; libmilter's binding takes UTF-8 only, and the message
    is judged all the same."""
    with Smtp(mx.mta.port) as smtp:
        smtp.become(SENDER)
        smtp.send(b"EHLO " + helo + b"\r\n")
        smtp.reply()
        answers = [
            smtp.transaction(
                message, mail_from="alice@sender.example", recipients=(f"helo@{DOMAIN}",)
            ).code
            for message in (GOOD, SPOOF)
        ]
    assert answers == [250, 550]


def test_internationalized_mail_is_judged_by_its_a_labels(mx: AttachedPostfix) -> None:
    """RFC 8616: SMTPUTF8, a U-label in From and MAIL FROM, policy and SPF at the A-label."""
    mx.dns.put("xn--bcher-kva.example", {"TXT": ["v=spf1 ip4:203.0.113.7 -all"]})
    mx.dns.put("_dmarc.xn--bcher-kva.example", {"TXT": ["v=DMARC1; p=reject"]})
    message = letter("J\u00f6rg <j\u00f6rg@b\u00fccher.example>", subject="Eai")
    for client, code in ((SENDER, 250), (STRANGER, 550)):
        with Smtp(mx.mta.port) as smtp:
            smtp.become(client)
            sender = "j\u00f6rg@b\u00fccher.example"
            reply = smtp.transaction(
                message, mail_from=sender, recipients=(f"eai@{DOMAIN}",), parameters=" SMTPUTF8"
            )
        assert reply.code == code, reply
    assert dmarc_word(our_fields(mx.mta.delivered("eai"))[0]) == "pass"


def test_a_large_message_is_verified_whole(mx: AttachedPostfix) -> None:
    """8 MB through Postfix with a signature over all of it; one changed octet near the end breaks
    it."""
    body = ("x" * 70 + "\n") * 120_000
    message = signed(letter("Alice <alice@sender.example>", subject="Large", body=body))
    assert mx.mta.send(message, "large", client=STRANGER, mail_from="").code == 250
    assert dmarc_word(our_fields(mx.mta.delivered("large"))[0]) == "pass"
    assert (
        mx.mta.send(
            message[:-100] + b"y" + message[-99:], "changed", client=STRANGER, mail_from=""
        ).code
        == 550
    )


def test_a_front_relay_is_seen_through() -> None:
    """trusted_relays: the client of the topmost Received field that names a host outside is the one
    that SPF is about."""
    received = (
        "Received: from mail.sender.example (mail.sender.example [203.0.113.7])\n\tby"
        " relay.test.example with ESMTP id 1; "
    )
    relayed = letter(
        "Alice <alice@sender.example>",
        above=received + "Sun, 1 Nov 2026 12:00:00 +0000\n",
        subject="Relayed",
    )
    with postfix_with_milter({"authentication": {"trusted_relays": ["203.0.113.66"]}}) as attached:
        assert attached.mta.send(relayed, "relayed", client=STRANGER).code == 250
        assert dmarc_word(our_fields(attached.mta.delivered("relayed"))[0]) == "pass"
        stranger = relayed.replace(b"203.0.113.7", b"203.0.113.9")
        assert attached.mta.send(stranger, "relayed-stranger", client=STRANGER).code == 550
        assert (
            attached.mta.send(relayed, "direct", client=Client("203.0.113.9", "x.example")).code
            == 550
        )


@pytest.mark.parametrize(
    "forged",
    [
        f"authentication-RESULTS: {AUTHSERV_ID}; dmarc=pass\n",
        f"Authentication-Results:\n\t{AUTHSERV_ID.upper()} 1; dmarc=pass\n",
        f"Authentication-Results: (c) {AUTHSERV_ID} (c); dmarc=pass\n",
        f'Authentication-Results: "{AUTHSERV_ID}"; dmarc=pass\n',
        (
            f"Authentication-Results: {AUTHSERV_ID}; dmarc=pass\nAuthentication-Results:"
            f" {AUTHSERV_ID}; spf=pass\n"
        ),
        "X-DMARC-Quarantine: no\n",
    ],
)
def test_a_field_in_our_name_never_arrives(mx: AttachedPostfix, forged: str) -> None:
    """However it is spelled; fields of others stay, in their order."""
    others = "Authentication-Results: other.example; spf=fail\n"
    user = f"forged-{abs(hash(forged))}"
    reply = mx.mta.send(
        letter("Alice <alice@sender.example>", above=others + forged + others, subject="Forged"),
        user,
        client=SENDER,
    )
    assert reply.code == 250, reply
    message = mx.mta.delivered(user)
    assert [dmarc_word(field) for field in our_fields(message)] == ["pass"]
    names = field_names(message)
    assert names.count("authentication-results") == 3
    assert "x-dmarc-quarantine" not in names
    assert message.count(b"other.example; spf=fail") == 2
    assert AUTHSERV_ID.upper().encode() not in message


@pytest.mark.parametrize(
    ("name", "above"),
    [
        ("esp-09", b" From: alice@sender.example\nFrom: boss@reject.example\n"),
        ("esp-11", b"From\n : alice@sender.example\nFrom: boss@reject.example\n"),
        (
            "hdr-07",
            (
                b"From: alice@sender.example\nFrom boss@reject.example Thu Oct  1 10:00:00"
                b" 2026\nFrom: boss@reject.example\n"
            ),
        ),
        ("frm-35", b"From: alice@sender.example\nFrom\xa0: boss@reject.example\n"),
        ("nul", b"From: <alice@sender.example>\0, <boss@reject.example>\n"),
        ("bare CR", b"From: alice@sender.example\nX-A: a\rFrom: boss@reject.example\n"),
    ],
)
def test_what_the_milter_reads_is_what_is_delivered(
    mx: AttachedPostfix, name: str, above: bytes
) -> None:
    """ESP-09, ESP-11, HDR-03, HDR-07, FRM-35 through the MTA: the delivered header names no author
    but the one that was judged."""
    user = name.replace(" ", "-").lower()
    rest = (
        b"Date: Thu, 1 Oct 2026 10:00:00 +0000\nMessage-ID: <1@sender.example>\nSubject:"
        b" x\n\nbody\n"
    )
    reply = mx.mta.send(above + rest, user, client=SENDER)
    assert reply.code == 250, reply
    message = mx.mta.delivered(user)
    assert [dmarc_word(field) for field in our_fields(message)] in (["pass"], ["permerror"])
    header = message.partition(b"\n\n")[0]
    authors = [line for line in header.split(b"\n") if line.lower().startswith(b"from:")]
    assert all(
        b"alice@sender.example" in each and b"reject.example" not in each for each in authors
    ), authors


def test_many_messages_on_one_connection_do_not_mix(mx: AttachedPostfix) -> None:
    """A spoof between two good ones, with an aborted transaction before each, changes nothing for
    the others."""
    with Smtp(mx.mta.port) as smtp:
        smtp.become(STRANGER)
        answers = []
        for number, message in enumerate((signed(GOOD), SPOOF, signed(GOOD))):
            smtp.command("MAIL FROM:<aborted@forwarder.example>")
            smtp.command("RSET")
            answers.append(
                smtp.transaction(
                    message, mail_from="x@forwarder.example", recipients=(f"many{number}@{DOMAIN}",)
                ).code
            )
    assert answers == [250, 550, 250]
    assert dmarc_word(our_fields(mx.mta.delivered("many2"))[0]) == "pass"


def test_smuggled_mail_is_one_message_or_none(mx: AttachedPostfix) -> None:
    """SMU-01, CVE-2023-51764: an end of data in foreign line ends hides a second message; the
    milter judges one or nothing arrives.

    Postfix runs with the lines of conf/postfix-main.cf, which the private one does too.
    """
    inner = (
        b"MAIL FROM:<x@reject.example>\r\nRCPT TO:<smuggled@test.example>\r\nDATA\r\nFrom:"
        b" boss@reject.example\r\n\r\nHi\r\n.\r\n"
    )
    for number, end in enumerate((b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r\n\x00.\r\n")):
        with Smtp(mx.mta.port) as smtp:
            smtp.become(SENDER)
            for line in (
                "MAIL FROM:<alice@sender.example>",
                f"RCPT TO:<outer{number}@{DOMAIN}>",
                "DATA",
            ):
                smtp.command(line)
            smtp.send(GOOD.replace(b"\n", b"\r\n") + end + inner)
            smtp.reply()
            smtp.command("QUIT")
    mx.mta.send(GOOD, "after-smuggling", client=SENDER)
    mx.mta.delivered("after-smuggling")
    eventually(lambda: not mx.mta.waiting(), what="the queue is empty")
    for message in mx.mta.mailbox("smuggled"):
        pytest.fail(f"a smuggled message arrived: {message!r}")


def test_big_header_fields_are_judged_as_they_are_delivered(mx: AttachedPostfix) -> None:
    """Postfix cuts a field to 60,000 octets for milter and mailbox alike; a forged field behind it
    is still found."""
    above = (
        "X-Big: "
        + "x" * 900
        + ("\n\t" + "y" * 900) * 98
        + "\n"
        + f"Authentication-Results: {AUTHSERV_ID}; dmarc=pass\n"
    )
    reply = mx.mta.send(
        letter("Boss <boss@none.example>", above=above, subject="Big"), "big", client=STRANGER
    )
    assert reply.code == 250, reply
    assert [dmarc_word(field) for field in our_fields(mx.mta.delivered("big"))] == ["fail"]


def test_the_log_has_one_line_with_the_queue_id(mx: AttachedPostfix) -> None:
    """Whoever searches the MTA's log finds the same id in ours, before anything that a sender
    wrote."""
    reply = mx.mta.send(GOOD, "logged", client=SENDER)
    eventually(lambda: reply.queue_id in mx.daemon.text(), what="logged")
    (line,) = [line for line in mx.daemon.lines() if reply.queue_id in line]
    assert "sender.example" in line
    assert line.index(reply.queue_id) < line.index("sender.example")


def test_every_answered_message_is_in_the_spool_once() -> None:
    """Recorded before answered: delivered, quarantined and refused alike; a connection without a
    message leaves nothing."""
    with postfix_with_milter() as attached:
        for scenario in scenarios():
            attached.mta.send(
                scenario.message, "recorded", client=scenario.client, mail_from=scenario.mail_from
            )
            assert answers(attached.mta.port)
        assert attached.daemon.spool_rows() == len(scenarios())


def test_a_killed_worker_leaves_its_message_unaccepted() -> None:
    """SIGKILL while it waits for the DNS: 451, tempfail by Postfix; the next message is served, and
    nothing went through unchecked."""
    with postfix_with_milter({"milter": {"workers": 2}}) as attached:
        attached.dns.put("_dmarc.reject.example", {"TXT": ["v=DMARC1; p=reject"], "delay": 8.0})
        replies: list[Reply] = []
        sender = threading.Thread(
            target=lambda: replies.append(attached.mta.send(SPOOF, "killed", client=STRANGER))
        )
        sender.start()
        eventually(
            lambda: ("_dmarc.reject.example", "TXT") in attached.dns.queries,
            what="the evaluation asks the DNS",
        )
        for pid in attached.daemon.workers():
            os.kill(pid, signal.SIGKILL)
        sender.join(30)
        assert [reply.code // 100 for reply in replies] == [4], replies
        attached.dns.put("_dmarc.reject.example", {"TXT": ["v=DMARC1; p=reject"]})
        eventually(
            lambda: attached.mta.send(GOOD, "after", client=SENDER).code == 250,
            seconds=5,
            what="served again",
        )
        assert attached.mta.mailbox("killed") == []


def test_a_stop_lets_the_message_in_flight_finish() -> None:
    """SIGTERM: the evaluation under way is answered, then the daemon is gone and Postfix defers."""
    with postfix_with_milter() as attached:
        attached.dns.put("_dmarc.reject.example", {"TXT": ["v=DMARC1; p=reject"], "delay": 2.0})
        replies: list[Reply] = []
        sender = threading.Thread(
            target=lambda: replies.append(attached.mta.send(SPOOF, "drained", client=STRANGER))
        )
        sender.start()
        eventually(
            lambda: ("_dmarc.reject.example", "TXT") in attached.dns.queries,
            what="the evaluation asks the DNS",
        )
        stop_gently(attached.daemon)
        sender.join(40)
        assert [reply.code in {550, 451} for reply in replies] == [True], replies
        assert attached.mta.send(GOOD, "down", client=SENDER).code // 100 == 4
        assert attached.mta.mailbox("down") == attached.mta.mailbox("drained") == []


def test_a_milter_that_comes_back_is_used_again() -> None:
    """Down: every message is deferred. Up: the next is served, without touching Postfix."""
    with postfix_with_milter() as attached:
        stop_gently(attached.daemon)
        replies: list[Reply] = []
        mta = attached.mta
        assert within(30, lambda: replies.append(mta.send(GOOD, "down", client=SENDER)))
        assert [reply.code // 100 for reply in replies] == [4]
        start_again(attached.daemon)
        assert attached.mta.send(GOOD, "up", client=SENDER).code == 250
        assert dmarc_word(our_fields(attached.mta.delivered("up"))[0]) == "pass"


def test_monitor_mode_refuses_nothing_and_marks_everything() -> None:
    """enforce = false: the spoof is delivered with what was found, dis=none, and forged fields are
    removed all the same."""
    with postfix_with_milter({"policy": {"enforce": False}}) as attached:
        forged = letter(
            "Boss <boss@reject.example>",
            above=f"Authentication-Results: {AUTHSERV_ID}; dmarc=pass\n",
            subject="Monitor",
        )
        assert attached.mta.send(forged, "monitor", client=STRANGER).code == 250
        (ours,) = our_fields(attached.mta.delivered("monitor"))
        assert dmarc_word(ours) == "fail"
        assert disposition_said(ours) == "none"
