"""Real mail through a real Sendmail: the same answers as through Postfix, over a unix socket."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator

import pytest

from live.attached import AttachedSendmail, sendmail_with_milter, start_again, stop_gently
from live.place import eventually
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
)
from live.sendmail import ADDRESSES, DOMAIN
from live.smtp import Reply

pytestmark = pytest.mark.live

GOOD = letter("Alice <alice@sender.example>", subject="Good")
SPOOF = letter("Boss <boss@reject.example>", subject="Spoof")


@pytest.fixture(scope="module")
def mx() -> Iterator[AttachedSendmail]:
    with sendmail_with_milter() as attached:
        yield attached


@pytest.fixture(scope="module")
def holding_mx() -> Iterator[AttachedSendmail]:
    with sendmail_with_milter({"policy": {"quarantine_action": "hold"}}) as attached:
        yield attached


@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_each_message_is_treated_as_its_sender_asks(
    mx: AttachedSendmail, scenario: Scenario
) -> None:
    """docs/design.md, What a message gets: one field of ours on top of everything, forged ones
    gone, a spoof of p=reject refused."""
    user = re.sub(r"\W+", "-", scenario.name.lower())  # Sendmail's local mailer folds case
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


def test_quarantined_mail_is_held_where_the_administrator_asks(
    holding_mx: AttachedSendmail,
) -> None:
    """quarantine_action = "hold": SMFIR_QUARANTINE makes a queue file hf* with our reason, and
    nothing is delivered."""
    reply = holding_mx.mta.send(
        letter("Boss <boss@quarantine.example>", subject="Hold"),
        "held",
        client=STRANGER,
        mail_from="",
    )
    assert reply.code == 250, reply
    eventually(lambda: reply.queue_id in holding_mx.mta.held(), what="in the queue, quarantined")
    assert "quarantine.example" in holding_mx.mta.held()[reply.queue_id]
    assert holding_mx.mta.mailbox("held") == []


def test_an_ipv6_client_is_evaluated_as_itself(mx: AttachedSendmail) -> None:
    """Where a network of our own is allowed, Sendmail sees the client's IPv6 address."""
    if not mx.mta.in_namespace:
        pytest.skip(
            "this machine refuses a network of our own, and ::1 is the only IPv6 address"
            " without one"
        )
    assert mx.mta.send(GOOD, "six", client=SENDER_6).code == 250
    assert dmarc_word(our_fields(mx.mta.delivered("six"))[0]) == "pass"


def test_many_messages_on_one_connection_do_not_mix(mx: AttachedSendmail) -> None:
    """A spoof between two good ones changes nothing for them."""
    with mx.mta.connect(SENDER.address) as smtp:
        smtp.command(f"EHLO {SENDER.helo}")
        answers = [
            smtp.transaction(
                message, mail_from="alice@sender.example", recipients=(f"many{number}@{DOMAIN}",)
            ).code
            for number, message in enumerate((GOOD, SPOOF, GOOD))
        ]
    assert answers == [250, 550, 250]
    assert dmarc_word(our_fields(mx.mta.delivered("many2"))[0]) == "pass"


def test_repeated_forged_fields_all_go(mx: AttachedSendmail) -> None:
    """Sendmail counts fields of one name as Postfix does: deleting from the highest index down hits
    the right ones."""
    mine, other = (
        f"Authentication-Results: {AUTHSERV_ID}; dmarc=pass\n",
        "Authentication-Results: other.example; spf=fail\n",
    )
    message = letter(
        "Alice <alice@sender.example>", above=mine + other + mine + other + mine, subject="Repeated"
    )
    assert mx.mta.send(message, "repeated", client=SENDER).code == 250
    arrived = mx.mta.delivered("repeated")
    assert len(our_fields(arrived)) == 1
    assert arrived.count(b"other.example; spf=fail") == 2


def test_a_killed_worker_leaves_its_message_unaccepted() -> None:
    """F=T covers a connection that breaks in the middle of a message too."""
    with sendmail_with_milter({"milter": {"workers": 2}}) as attached:
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
        eventually(
            lambda: attached.mta.send(GOOD, "after", client=SENDER).code == 250,
            seconds=5,
            what="served again",
        )
        assert attached.mta.mailbox("killed") == []


def test_a_front_relay_is_seen_through() -> None:
    """trusted_relays: Sendmail, too, shows the milter the fields that the relay wrote and not its
    own Received."""
    received = (
        "Received: from mail.sender.example (mail.sender.example [203.0.113.7])\n\tby"
        " relay.test.example with ESMTP id 1; "
    )
    relayed = letter(
        "Alice <alice@sender.example>",
        above=received + "Sun, 1 Nov 2026 12:00:00 +0000\n",
        subject="Relayed",
    )
    relays = [STRANGER.address, ADDRESSES[STRANGER.address]]
    with sendmail_with_milter({"authentication": {"trusted_relays": relays}}) as attached:
        assert attached.mta.send(relayed, "relayed", client=STRANGER).code == 250
        assert dmarc_word(our_fields(attached.mta.delivered("relayed"))[0]) == "pass"
        stranger = relayed.replace(b"203.0.113.7", b"203.0.113.9")
        assert attached.mta.send(stranger, "relayed-stranger", client=STRANGER).code == 550


def test_a_stopped_milter_defers_mail() -> None:
    """F=T: while the milter is away every message is answered 451, and the next one after its
    return is judged."""
    with sendmail_with_milter() as attached:
        stop_gently(attached.daemon)
        assert attached.mta.send(GOOD, "down", client=SENDER).code // 100 == 4
        start_again(attached.daemon)
        assert attached.mta.send(GOOD, "up", client=SENDER).code == 250
        assert dmarc_word(our_fields(attached.mta.delivered("up"))[0]) == "pass"
        assert attached.mta.mailbox("down") == []


@pytest.mark.parametrize(("says", "code"), [("auto", 550), ("yes", 250)])
def test_the_name_of_a_daemon_that_asks_for_no_login_exempts_nobody(says: str, code: int) -> None:
    """FWD-20: as upstream's MSA; unless the administrator says that every daemon so named demands a
    login."""
    with sendmail_with_milter(
        {"authentication": {"trusted_daemons": ["MTA"], "sendmail_daemons_authenticate": says}}
    ) as attached:
        assert attached.mta.send(SPOOF, "named", client=STRANGER).code == code
