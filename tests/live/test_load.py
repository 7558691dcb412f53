"""Postfix under load while workers are killed or replaced: nothing unchecked, nothing recorded
twice, nothing refused that was good."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from dmarc_milter.core.stored import decode
from fakes.daemon import Daemon
from fakes.soak import chance, kills
from live.attached import AttachedPostfix, postfix_with_milter
from live.place import eventually
from live.postfix import DOMAIN
from live.scenarios import SENDER, STRANGER, field_names, letter
from live.smtp import Client, Reply, Smtp

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.live, pytest.mark.soak]

SENDERS = 4


@dataclass
class Load:
    """Threads that send good mail and spoofs, one connection for each message, until stopped."""

    mx: AttachedPostfix
    replies: list[tuple[bool, Reply]] = field(default_factory=list)
    """Whether the message was good, and what it was answered."""
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(60)

    def _send(self) -> None:
        while not self._over.is_set():
            for client, author, good in (
                (SENDER, "alice@sender.example", True),
                (STRANGER, "boss@reject.example", False),
            ):
                self.replies.append((good, self._one(client, author)))

    def _one(self, client: Client, author: str) -> Reply:
        with Smtp(self.mx.mta.port) as smtp:
            smtp.become(client)
            # Each is another message: one that was there at two deaths of a worker is not evaluated
            # a third time.
            message = letter(author, subject=f"Load {uuid.uuid4()}")
            return smtp.transaction(
                message, mail_from="alice@sender.example", recipients=(f"load@{DOMAIN}",)
            )

    def wait_for_more(self, count: int = 4) -> None:
        """Until so many more answers have come."""
        before = len(self.replies)
        eventually(lambda: len(self.replies) >= before + count, seconds=60, what="mail is answered")

    def codes(self, *, good: bool) -> Counter[int]:
        return Counter(reply.code for kind, reply in self.replies if kind == good)


def recorded(daemon: Daemon) -> Counter[str]:
    """How often each queue id stands in the spool."""
    with contextlib.closing(
        sqlite3.connect(f"file:{daemon.spool}?mode=ro", uri=True)
    ) as connection:
        return Counter(
            decode(facts).queue_id for (facts,) in connection.execute("SELECT facts FROM spool")
        )


def assert_nothing_unchecked(load: Load) -> None:
    """I: what was accepted is recorded once and carries our field; no spoof was accepted, no good
    message refused."""
    assert load.codes(good=True).keys() <= {250, 451}
    assert load.codes(good=False).keys() <= {550, 451}
    mta, spool = load.mx.mta, recorded(load.mx.daemon)
    accepted = [reply.queue_id for good, reply in load.replies if good and reply.code == 250]
    assert [queue_id for queue_id in accepted if spool[queue_id] != 1] == []
    assert [queue_id for queue_id, count in spool.items() if count > 1] == []
    eventually(
        lambda: len(mta.mailbox("load")) == len(accepted),
        seconds=60,
        what="all that was accepted is delivered",
    )
    assert all("authentication-results" in field_names(message) for message in mta.mailbox("load"))


@pytest.mark.timeout(7200)
def test_killed_workers_let_nothing_through_unchecked() -> None:
    """SIGKILL of one worker after another: 451 at worst; each answered message stands in the spool
    exactly once."""
    dice = chance("kills through Postfix")
    with postfix_with_milter({"milter": {"workers": 2}}) as mx:
        load = Load(mx)
        with load.running():
            for _ in range(kills(8)):
                load.wait_for_more(dice.randrange(1, 12))
                eventually(lambda: len(mx.daemon.workers()) == 2, what="two workers")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(dice.choice(mx.daemon.workers()), signal.SIGKILL)
            load.wait_for_more(20)
        assert load.codes(good=True)[250] > 0
        assert load.codes(good=False)[550] > 0
        assert_nothing_unchecked(load)


@pytest.mark.timeout(7200)
def test_a_reload_under_load_drops_nothing() -> None:
    """SIGHUP again and again: workers are replaced one by one and every message gets its final
    answer at once."""
    with postfix_with_milter({"milter": {"workers": 2}}) as mx:
        load = Load(mx)
        with load.running():
            for number in range(1, kills(3, 50) + 1):
                load.wait_for_more(8)
                mx.daemon.signal(signal.SIGHUP)
                eventually(
                    lambda count=number: len(mx.daemon.events("ready")) > count,
                    what=f"reloaded {number} times",
                )
            load.wait_for_more(8)
        assert set(load.codes(good=True)) == {250}
        assert set(load.codes(good=False)) == {550}
        assert_nothing_unchecked(load)
