"""The private Postfix, Sendmail and PostgreSQL themselves, before anything of ours is attached to
them."""

from __future__ import annotations

import psycopg
import pytest

from live.postfix import private_postfix
from live.postgres import private_postgres
from live.sendmail import ADDRESSES, private_sendmail
from live.smtp import Client

pytestmark = pytest.mark.live

MESSAGE = b"From: alice@sender.example\nSubject: hello\n\nHello.\n.dot\n"


def test_the_private_postfix_delivers_to_a_mailbox() -> None:
    """Without a milter a message from a pretended client lands in the recipient's mailbox with that
    client in Received."""
    with private_postfix() as postfix:
        reply = postfix.send(MESSAGE, "bob", client=Client("2001:db8::5"))
        assert reply.code == 250
        assert reply.queue_id
        message = postfix.delivered("bob")
        assert b"2001:db8::5" in message
        assert message.endswith(b"\nHello.\n.dot\n")
        assert postfix.mailbox("carol") == []


def test_the_private_sendmail_delivers_to_a_mailbox() -> None:
    """The same through Sendmail; the client's address is the connection's own."""
    with private_sendmail() as sendmail:
        reply = sendmail.send(MESSAGE, "bob", client=Client("203.0.113.66"))
        assert reply.code == 250, reply
        assert reply.queue_id
        message = sendmail.delivered("bob")
        shown = "203.0.113.66" if sendmail.in_namespace else ADDRESSES["203.0.113.66"]
        assert f"[{shown}]".encode() in message
        assert message.endswith(b"\nHello.\n.dot\n")


def test_the_private_postgresql_can_be_stopped_and_started_again() -> None:
    """What was committed is there after a stop in the manner of a crash."""
    with private_postgres() as postgres:
        with psycopg.connect(postgres.url) as connection:
            connection.execute("CREATE TABLE kept (number int)")
            connection.execute("INSERT INTO kept VALUES (7)")
        postgres.stop("immediate")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(postgres.url)
        postgres.start()
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT number FROM kept").fetchall() == [(7,)]
