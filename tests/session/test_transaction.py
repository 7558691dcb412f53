"""From events to the core and back: what is recorded, logged, counted, and done when something
fails."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest

from dmarc_milter.core.actions.plan import Action, DeleteHeader, InsertHeader, Marking, Reply
from dmarc_milter.core.authenticate import Options
from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.message import Envelope, HeaderField, Headers
from dmarc_milter.core.mail.path import reverse_path
from dmarc_milter.core.policy.decide import LocalPolicy
from dmarc_milter.core.resolver import Question, Remembers, Resolver, Shortage, Work
from dmarc_milter.daemon.crash_guard import CrashGuard
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.session.context import WorkerContext, attempt_ids
from dmarc_milter.session.handler import Own
from dmarc_milter.session.transaction import CoreHandler, fingerprint
from dmarc_milter.telemetry.counters import BOUNDS, STAGES, Meter, named
from dmarc_milter.telemetry.log import Log
from fakes.dns_zone import Zone
from fakes.signer import Signer, header_fields

LEGIT = Signer("legit.example")
RECORDS = {
    "legit.example": {"TXT": ["v=spf1 ip4:198.51.100.10 -all"]},
    "_dmarc.legit.example": {"TXT": ["v=DMARC1; p=reject"]},
    LEGIT.key_name: {"TXT": [LEGIT.record()]},
}


@dataclass
class Shelf:
    """A recorder that keeps what it is given; `durable` False: it is never known to be durable."""

    rows: list[Evaluation] = field(default_factory=list)
    durable: bool = True

    def record(self, evaluation: Evaluation) -> bool:
        self.rows.append(evaluation)
        return self.durable


class ZoneDns:
    """The same zone for every message."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    def for_message(self, seconds: float, max_queries: int, network: object = None) -> Resolver:
        return self.zone


@dataclass
class Bench:
    """An handler and all that stands around it."""

    context: WorkerContext
    shelf: Shelf
    shared_memory: SharedMemory
    zone: Zone
    log: int

    @property
    def handler(self) -> CoreHandler:
        return CoreHandler(self.context)

    def lines(self) -> list[str]:
        os.set_blocking(self.log, False)
        return os.read(self.log, 100_000).decode().splitlines()

    def counts(self) -> dict[str, int]:
        return {name: value for name, value in named(self.shared_memory.totals()) if value}


@pytest.fixture
def bench() -> Iterator[Bench]:
    zone, shelf, shared_memory = Zone(RECORDS), Shelf(), SharedMemory(1)
    reading, writing = os.pipe()
    slot = shared_memory.slot(0)
    context = WorkerContext(
        loop=Loop(),
        options=Options(),
        marking=Marking("mx.example.com"),
        dns=ZoneDns(zone),
        recorder=shelf,
        log=Log(writing),
        meter=Meter(slot),
        slot=slot,
        shared_memory=shared_memory,
        now=lambda: datetime(2026, 11, 22, tzinfo=UTC),
        pct_draw=lambda: 0.0,
    )
    yield Bench(context, shelf, shared_memory, zone, reading)
    os.close(reading)
    os.close(writing)


def envelope(source: str = "198.51.100.10", sender: bytes = b"<admin@legit.example>") -> Envelope:
    return Envelope(
        source_ip=ip_address(source),
        helo="mx.legit.example",
        mail_from=reverse_path(sender),
        queue_id="4Q",
    )


def fields(*values: tuple[bytes, bytes]) -> Headers:
    return Headers(HeaderField(*each) for each in values or ((b"From", b" <admin@legit.example>"),))


def run(
    bench: Bench, headers: Headers, body: bytes = b"x\r\n", sent: Envelope | None = None
) -> tuple[Action, ...]:
    sent = sent or envelope()
    transaction = bench.handler.begin(sent)
    transaction.headers(headers)
    for start in range(0, len(body), 1000):
        transaction.body(body[start : start + 1000])
    return transaction.finish(sent, Own(), keep_results=False)


def own_field(actions: tuple[Action, ...]) -> str:
    return next(
        each.value
        for each in actions
        if isinstance(each, InsertHeader) and each.name == "Authentication-Results"
    )


def test_a_message_is_recorded_logged_and_counted(bench: Bench) -> None:
    """Once each, before the answer."""
    assert "dmarc=pass" in own_field(run(bench, fields()))
    assert [each.dmarc.status for each in bench.shelf.rows] == [DmarcStatus.PASS]
    (line,) = bench.lines()
    assert line.startswith(
        "id=4Q event=message level=info dmarc=pass from=legit.example disposition="
    )
    assert "unrecorded" not in line
    counts = bench.counts()
    assert (
        counts["messages"] == counts["dmarc_pass"] == counts["spf_pass"] == counts["dkim_none"] == 1
    )
    assert all(
        sum(counts.get(f"{stage}_{number}", 0) for number in range(len(BOUNDS) + 1)) == 1
        for stage in STAGES
    )
    assert "messages_unrecorded" not in counts


def test_a_message_answered_4xx_is_recorded_as_such(bench: Bench) -> None:
    """docs/design.md, The ledger: in the log of decisions, not counted for reports."""
    bench.zone.fail("_dmarc.legit.example")
    bench.context = replace(
        bench.context, options=Options(policy=LocalPolicy(on_temperror="tempfail"))
    )
    (reply,) = run(bench, fields())
    assert isinstance(reply, Reply)
    assert reply.code == 451
    assert [each.verdict.tempfail for each in bench.shelf.rows] == [True]
    assert bench.counts()["messages_tempfailed"] == 1


def test_a_store_that_fails_is_logged_and_counted(bench: Bench) -> None:
    bench.shelf.durable = False
    assert "dmarc=pass" in own_field(run(bench, fields()))
    assert "unrecorded=yes" in bench.lines()[0]
    assert bench.counts()["messages_unrecorded"] == 1


@pytest.mark.parametrize("size", [1, 999, 16 * 1024, 300_000])
def test_a_body_of_any_size_is_hashed(bench: Bench, size: int) -> None:
    """Small pieces are put together, whatever is left is hashed at the end."""
    signed, body = header_fields(
        LEGIT.sign(b"From: <admin@legit.example>\r\n\r\n" + b"x" * size + b"\r\n")
    )
    assert "dkim=pass" in own_field(run(bench, Headers(signed), body, envelope("192.0.2.66")))


def test_an_unsigned_body_is_soon_not_wanted(bench: Bench) -> None:
    transaction = bench.handler.begin(envelope())
    transaction.headers(fields())
    assert not all(transaction.body(b"x" * 1000) for _ in range(20))
    transaction.cancel()


def finish_late(bench: Bench, seconds: float) -> list[tuple[Action, ...] | BaseException]:
    """What becomes of a message that is ready while another one keeps the processor so long."""
    loop, found = bench.context.loop, list[tuple[Action, ...] | BaseException]()

    def finish() -> None:
        try:
            found.append(run(bench, fields()))
        except BaseException as error:
            found.append(error)

    loop.spawn(lambda: time.sleep(seconds))
    loop.spawn(finish)
    loop.run(lambda: bool(found))
    return found


def test_a_message_that_has_no_turn_in_its_time_is_a_shortage(bench: Bench) -> None:
    """Not our failure: on_error does not apply."""
    bench.context = replace(bench.context, options=Options(seconds=0.2))
    (error,) = finish_late(bench, 0.4)
    assert isinstance(error, Shortage)
    assert bench.shelf.rows == []


def test_a_look_up_that_was_not_sent_is_told_as_overload(bench: Bench) -> None:
    """Where its answer could have changed the verdict: 451 4.3.2, counted and logged with who sent
    it."""

    def short(question: Question) -> None:
        if question == Question("legit.example", "TXT"):
            raise Shortage("could not be sent", name=question.name)

    bench.zone.on_query = short
    (reply,) = run(bench, fields())
    assert isinstance(reply, Reply)
    assert (reply.code, reply.enhanced) == (451, "4.3.2")
    assert bench.counts()["messages_overloaded"] == 1
    assert "event=overloaded level=warning source=198.51.100.10" in "".join(bench.lines())


def test_waiting_for_the_processor_takes_from_the_time_of_the_message(bench: Bench) -> None:
    """Else an attacker's messages would each wait twice."""
    delays: list[float] = []
    bench.context = replace(bench.context, dns=DelayedDns(bench.zone, delays))
    assert len(finish_late(bench, 0.3)) == 1
    assert [delay >= 0.25 for delay in delays] == [True]


class DelayedDns(ZoneDns):
    """Notes what each message was delayed."""

    def __init__(self, zone: Zone, delays: list[float]) -> None:
        super().__init__(zone)
        self.delays = delays
        self.warm = False

    def for_message(self, seconds: float, max_queries: int, network: object = None) -> Resolver:
        return OneMessage(self)


class OneMessage(Remembers):
    """The zone, and a memory for delays."""

    def __init__(self, dns: DelayedDns) -> None:
        self._dns = dns

    def __getattr__(self, name: str) -> object:
        return getattr(self._dns.zone, name)

    def delay(self, seconds: float) -> None:
        self._dns.delays.append(seconds)

    def abandon(self) -> None:
        pass

    def pause(self) -> None:
        pass

    def policy(self) -> Resolver:
        return self._dns.zone

    def recall(self, key: object) -> None:
        pass

    def knows(self, key: object) -> bool:
        return self._dns.warm

    def telling(self, call: object, queries: int) -> Resolver:
        return self._dns.zone

    def stale_answers(self) -> tuple[()]:
        return ()

    def derive(self, key: object, work: Work) -> object:
        return work(self._dns.zone).value


@pytest.mark.parametrize("warm", [True, False])
def test_spf_is_asked_at_mail_from_unless_its_result_is_at_hand(bench: Bench, warm: bool) -> None:
    """Cold: while the message still arrives. Warm: not at all before its end."""
    dns = DelayedDns(bench.zone, [])
    dns.warm = warm
    bench.context = replace(bench.context, dns=dns)
    transaction = bench.handler.begin(envelope())
    assert bool(bench.zone.prefetched) is not warm
    transaction.headers(fields())
    assert "spf=pass" in own_field(transaction.finish(envelope(), Own(), keep_results=False))


@pytest.mark.parametrize("stage", ["look-up", "record"])
def test_a_message_whose_client_has_gone_ends_at_once(bench: Bench, stage: str) -> None:
    """Wherever it waits: its end passes every except, nothing is asked and nothing answered."""
    loop, seen = bench.context.loop, list[str]()

    class Waits:
        def record(self, evaluation: Evaluation) -> bool:
            seen.append("record")
            loop.park(60)
            return True

    def wait(question: Question) -> None:
        if not seen:
            seen.append("look-up")
            loop.park(60)

    if stage == "record":
        bench.context = replace(bench.context, recorder=Waits())
    else:
        bench.zone.on_query = wait
    task = loop.spawn(lambda: seen.append(str(run(bench, fields()))))
    loop.run(lambda: bool(seen))
    asked = len(bench.zone.calls)
    task.end()
    assert (seen, task.ended) == ([stage], True)
    assert len(bench.zone.calls) == asked
    assert bench.context.slot.running is None
    assert "messages" not in bench.counts()


def poisoned(bench: Bench, headers: Headers, sent: Envelope) -> None:
    poison = CrashGuard(bench.shared_memory)
    for _ in range(2):
        poison.blame((fingerprint(sent, headers),), now=time.monotonic())


FORGED = (
    (b"Authentication-Results", b" mx.example.com; dmarc=pass"),
    (b"From", b" <admin@legit.example>"),
    (b"authentication-results", b" other.example; spf=pass"),
    (b"X-DMARC-Quarantine", b" no"),
)


def test_a_poisonous_message_is_marked_temperror_unread(bench: Bench) -> None:
    """Every field that could be forged goes, whoever it names, because none is read; nothing is
    looked up for it."""
    bench.context = replace(bench.context, options=Options(policy=LocalPolicy(on_error="accept")))
    poisoned(bench, fields(*FORGED), envelope())
    actions = run(bench, fields(*FORGED))
    deleted = [each for each in actions if isinstance(each, DeleteHeader)]
    assert deleted == [
        DeleteHeader("Authentication-Results", 2),
        DeleteHeader("Authentication-Results", 1),
        DeleteHeader("X-DMARC-Quarantine", 1),
    ]
    assert "dmarc=temperror" in own_field(actions)
    assert "dkim" not in own_field(actions) or "dkim=none" in own_field(actions)
    assert [each.dmarc.status for each in bench.shelf.rows] == [DmarcStatus.TEMPERROR]
    assert bench.counts()["messages_poisoned"] == 1


@pytest.mark.parametrize("on_temperror", ["enforced", "accept", "tempfail"])
def test_a_poisonous_message_is_our_own_failure(bench: Bench, on_temperror: Any) -> None:
    """docs/design.md, Decisions: on_error applies, not on_temperror; monitor mode defers nothing
    and says so."""
    policy = LocalPolicy(on_temperror=on_temperror)
    bench.context = replace(bench.context, options=Options(policy=policy))
    poisoned(bench, fields(*FORGED), envelope())
    (reply,) = run(bench, fields(*FORGED))
    assert isinstance(reply, Reply)
    assert (reply.code, reply.enhanced) == (451, "4.3.0")
    bench.context = replace(bench.context, options=Options(policy=replace(policy, enforce=False)))
    assert "dmarc=temperror" in own_field(run(bench, fields(*FORGED)))
    assert bench.shelf.rows[-1].verdict.would_have == "tempfail"


def test_other_messages_of_the_sender_are_not_poisonous(bench: Bench) -> None:
    poisoned(bench, fields(*FORGED), envelope())
    assert "dmarc=pass" in own_field(run(bench, fields()))


def test_a_sender_whose_spf_kills_is_not_checked_again(bench: Bench) -> None:
    """Before the header fields are there the sender and HELO are what a message is known by."""
    bench.context = replace(bench.context, options=Options(policy=LocalPolicy(on_error="accept")))
    poison = CrashGuard(bench.shared_memory)
    for _ in range(2):
        poison.blame((fingerprint(envelope()),), now=time.monotonic())
    field = own_field(run(bench, fields()))
    assert "spf=pass" not in field
    assert "dmarc=pass" not in field
    assert all(
        question.name != "legit.example" or question.rdtype != "TXT"
        for question in bench.zone.calls[:1]
    )


def test_a_message_is_shown_while_it_runs_and_not_while_it_waits(bench: Bench) -> None:
    """A death is blamed on the message that ran, not on those that waited for an answer."""
    loop, slot, seen = bench.context.loop, bench.context.slot, list[object]()

    def wait(question: Question) -> None:
        seen.append(slot.running and slot.running.fingerprint)
        if len(seen) == 1:
            loop.call_later(0.01, lambda: seen.append(slot.running))
            loop.park(0.03)
            seen.append(slot.running and slot.running.fingerprint)

    bench.zone.on_query = wait
    loop.spawn(lambda: run(bench, fields()))
    loop.run(lambda: bool(bench.shelf.rows))
    own = {fingerprint(envelope(), fields()), fingerprint(envelope())}
    assert seen[1] is None
    assert {*seen[:1], *seen[2:]} <= own
    assert fingerprint(envelope(), fields()) in seen
    assert slot.running is None


def test_the_same_message_again_has_the_same_fingerprint() -> None:
    """A retry comes with another queue id and perhaps from another host of the sender's."""
    first = fingerprint(envelope(), fields(*FORGED))
    assert (
        fingerprint(
            replace(envelope("192.0.2.9"), queue_id="5R", helo="other.example"), fields(*FORGED)
        )
        == first
    )
    assert fingerprint(envelope(sender=b"<other@legit.example>"), fields(*FORGED)) != first
    assert fingerprint(envelope(), fields(*FORGED[:3])) != first


def test_ids_stand_in_the_order_of_time_whichever_worker_gave_them() -> None:
    """Decisions of one second are listed by id: the latest first, as all others."""
    workers = [attempt_ids() for _ in range(5)]
    given = []
    for number in range(20):
        given.append(workers[number % 5]())
        time.sleep(0.002)
    assert given == sorted(given)
    assert {len(each) for each in given} == {32}
