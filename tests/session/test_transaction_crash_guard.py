"""What stopped two workers is not read again, and nothing else is let through on its account."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Literal

import pytest

from dmarc_milter.config import Config
from dmarc_milter.config import core_options as compiled
from dmarc_milter.config.schema import MilterSection
from dmarc_milter.core.actions.plan import Action, DeleteHeader, InsertHeader, Reply
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.message import Envelope, HeaderField, Headers
from dmarc_milter.core.mail.path import reverse_path
from dmarc_milter.core.resolver import Resolver
from dmarc_milter.dns.suffix_list import load_suffixes
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.session.context import WorkerContext
from dmarc_milter.session.handler import Own
from dmarc_milter.session.transaction import CoreHandler, fingerprint
from dmarc_milter.telemetry.counters import Meter
from dmarc_milter.telemetry.log import Log
from fakes.dns_zone import Zone

ZONE = """
_dmarc.aligned.example TXT v=DMARC1; p=reject
aligned.example TXT v=spf1 ip4:203.0.113.7 -all
_dmarc.reject.example TXT v=DMARC1; p=reject
"""
ENVELOPE = Envelope(
    ip_address("203.0.113.66"), "helo.example", reverse_path(b"<a@aligned.example>"), ()
)


class Bench:
    """A message handler with a zone in memory; what is blocked can be set."""

    def __init__(self) -> None:
        self.shared_memory = SharedMemory(1)
        self.rows: list[Evaluation] = []
        self._null = os.open(os.devnull, os.O_WRONLY)
        self.config()

    def config(self, on_error: Literal["tempfail", "accept"] = "tempfail") -> None:
        """Start anew with this [milter] on_error."""
        config, slot, log = (
            Config(milter=MilterSection(on_error=on_error)),
            self.shared_memory.slot(0),
            Log(self._null),
        )
        options = compiled.options(config, load_suffixes(""))
        self.handler = CoreHandler(
            WorkerContext(
                Loop(),
                options,
                compiled.marking(config),
                self,
                self,
                log,
                Meter(slot),
                slot,
                self.shared_memory,
            )
        )

    def close(self) -> None:
        os.close(self._null)

    def for_message(self, seconds: float, max_queries: int, network: object = None) -> Resolver:
        return Zone.parse(ZONE)

    def record(self, evaluation: Evaluation) -> bool:
        self.rows.append(evaluation)
        return True

    def poison(self, *fingerprints: bytes) -> None:
        self.shared_memory.publish_blocked(dict.fromkeys(fingerprints, time.monotonic() + 60))

    def answer(self, headers: Headers) -> tuple[Action, ...]:
        transaction = self.handler.begin(ENVELOPE)
        transaction.headers(headers)
        return transaction.finish(ENVELOPE, Own(), keep_results=False)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def letter(domain: str) -> Headers:
    return Headers(
        (HeaderField(b"From", b" a@" + domain.encode()), HeaderField(b"Subject", b" hello"))
    )


def field(actions: tuple[Action, ...]) -> str:
    (found,) = (
        each.value
        for each in actions
        if isinstance(each, InsertHeader) and each.name == "Authentication-Results"
    )
    return found


def test_a_message_that_stopped_two_workers_is_marked_temperror(bench: Bench) -> None:
    """Not one octet of it is parsed again; on_error = "accept" lets it through, marked."""
    bench.config(on_error="accept")
    headers = letter("reject.example")
    bench.poison(fingerprint(ENVELOPE, headers))
    assert "dmarc=temperror" in field(bench.answer(headers))


def test_a_message_that_stopped_two_workers_is_deferred(bench: Bench) -> None:
    """on_error, by default tempfail: our own failure."""
    headers = letter("reject.example")
    bench.poison(fingerprint(ENVELOPE, headers))
    assert [
        (each.code, each.enhanced) for each in bench.answer(headers) if isinstance(each, Reply)
    ] == [(451, "4.3.0")]


def test_another_message_of_the_same_sender_is_judged_all_the_same(bench: Bench) -> None:
    """SPF of a sender that was checked at two deaths is skipped; a spoof that SPF could not have
    saved is still refused."""
    bench.poison(fingerprint(ENVELOPE))
    (reply,) = (each for each in bench.answer(letter("reject.example")) if isinstance(each, Reply))
    assert reply.code == 550
    assert bench.rows[0].spf.status == "temperror"


def test_skipped_spf_that_would_align_prevents_a_verdict(bench: Bench) -> None:
    """It could have been an aligned pass: neither pass nor fail. Our own failure too."""
    bench.poison(fingerprint(ENVELOPE))
    assert [
        (each.code, each.enhanced)
        for each in bench.answer(letter("aligned.example"))
        if isinstance(each, Reply)
    ] == [(451, "4.3.0")]
    bench.config(on_error="accept")
    assert "dmarc=temperror" in field(bench.answer(letter("aligned.example")))


def test_without_poison_the_same_message_is_refused(bench: Bench) -> None:
    """The client is not in the sender's record."""
    assert any(
        isinstance(each, Reply) and each.code == 550
        for each in bench.answer(letter("aligned.example"))
    )


def test_what_goes_on_unjudged_loses_what_is_forged_and_says_temperror(bench: Bench) -> None:
    """DOS-42, DOS-43: the field that monitor mode and trusted relays get when there was no room;
    nothing of the message is read."""
    host = compiled.marking(Config()).authserv_id
    forged = HeaderField(b"Authentication-Results", f" {host}; dmarc=pass".encode())
    headers = Headers((forged, *letter("reject.example").fields))
    removed, inserted = bench.handler.unjudged(headers, ENVELOPE, keep_results=False)
    assert removed == DeleteHeader("Authentication-Results", 1)
    assert isinstance(inserted, InsertHeader)
    assert "dmarc=temperror" in inserted.value
    assert "dis=none" in inserted.value
    assert bench.rows == []
