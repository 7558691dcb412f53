"""The DNS at the edge when there is more to ask than can be in flight, and when messages end before
their answers come."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from dmarc_milter.core.resolver import Abandoned, LookupFailed, Question, Shortage, TimeExceeded
from dmarc_milter.dns.admission import AdmittedQuestion
from dmarc_milter.dns.nameservers import Server
from dmarc_milter.dns.resolver import DnsResolver, MessageResolver
from dmarc_milter.process.loop import Loop
from fakes.dns_server import DnsServer

TIMEOUT = 2.0  # seconds of one look-up: what is in flight stays there so long


@pytest.fixture(scope="module")
def running() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def dns(running: DnsServer) -> DnsServer:
    """Names below slow.example are never answered; every other name has a TXT record."""
    running.replace({"*.slow.example": {"behaviour": "silent"}, "*.example": {"TXT": ["here"]}})
    running.behaviour, running.delay = "", 0.0
    running.clear()
    return running


@pytest.fixture
def source(dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[DnsResolver]:
    """Forty-eight questions in flight at most: 12 for policies, 36 for others, of which a network
    may have 6 and a message 3."""
    monkeypatch.setattr("dmarc_milter.dns.counters.IN_FLIGHT_LIMIT", 48)
    resolver = DnsResolver(Loop(), [dns.nameserver], timeout=TIMEOUT)
    yield resolver
    resolver.close()


def slow(label: str, count: int) -> list[Question]:
    return [Question(f"{number}.{label}.slow.example", "TXT") for number in range(count)]


def saturate(source: DnsResolver, networks: int = 12) -> list[MessageResolver]:
    """Messages from so many networks that each ask for fifty names that nobody answers for, and all
    places are taken."""
    messages = [source.for_message(network=f"n{number}") for number in range(networks)]
    for number, message in enumerate(messages):
        message.prefetch(slow(f"n{number}", 50))
    return messages


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def asking(
    message: MessageResolver, name: str
) -> Iterator[list[BaseException | tuple[bytes, ...]]]:
    """A task that asks; what it got is in the list afterwards."""
    found: list[BaseException | tuple[bytes, ...]] = []
    loop = message._source.loop

    def run() -> None:
        try:
            found.append(message.txt(name))
        except BaseException as error:
            found.append(error)

    loop.spawn(run)
    loop.park(0.1)
    try:
        yield found
    finally:
        assert eventually(message, lambda: bool(found), 10)


def eventually(
    resolver: DnsResolver | MessageResolver, condition: Callable[[], bool], seconds: float
) -> bool:
    """Whether it becomes true while the loop runs."""
    loop, over = getattr(resolver, "_source", resolver).loop, time.monotonic() + seconds
    while not condition() and time.monotonic() < over:
        loop.park(0.01)
    return condition()


# Admission


def test_a_message_of_another_network_is_answered_while_all_places_are_taken(
    source: DnsResolver,
) -> None:
    """Its questions come before the hundreds that wait; nothing fails."""
    saturate(source)
    assert source._admission.waiting > 400
    honest, began = source.for_message(network="honest"), time.monotonic()
    for number in range(10):
        assert honest.txt(f"{number}.honest.example") == (b"here",)
    assert time.monotonic() - began < 1.5
    assert source.counters.shortages == 0


def test_a_policy_is_found_at_once_while_all_places_are_taken(source: DnsResolver) -> None:
    """It has places of its own."""
    saturate(source)
    policy, began = source.for_message(network="honest").policy(), time.monotonic()
    policy.prefetch([Question("_dmarc.a.example", "TXT"), Question("_dmarc.example", "TXT")])
    assert policy.txt("_dmarc.a.example") == (b"here",)
    assert time.monotonic() - began < 0.4


@pytest.mark.parametrize("hinted", [False, True])
def test_a_policy_that_the_message_has_asked_for_as_something_else_is_found_at_once(
    source: DnsResolver, hinted: bool
) -> None:
    """SPF may include what is the author's policy too: `include:_dmarc.a.example`."""
    saturate(source)
    message, began = source.for_message(network="n1"), time.monotonic()
    question = Question("_dmarc.a.example", "TXT")
    message.prefetch([question])
    assert isinstance(entry := source._admission.find(tuple(question)), AdmittedQuestion)
    assert entry.pool is source._admission._others
    policy = message.policy()
    if hinted:
        policy.prefetch([question])
        assert entry.pool is source._admission._policy
    assert policy.txt(question.name) == (b"here",)
    assert time.monotonic() - began < 1.5
    assert source.counters.shortages == 0


def test_an_answer_at_hand_never_waits(source: DnsResolver) -> None:
    source.for_message().txt("a.known.example")
    for message in saturate(source):
        assert message.txt("a.known.example") == (b"here",)


def test_what_is_still_unsent_at_the_end_of_the_time_is_a_shortage(source: DnsResolver) -> None:
    """Not a failure of the DNS, nor a limit of the message; counted, not remembered."""
    saturate(source)
    late = source.for_message(seconds=0.3, network="n1")
    with pytest.raises(Shortage) as raised:
        late.txt("a.late.example")
    assert raised.value.name == "a.late.example"
    assert source.counters.shortages == 1
    assert source.counters.failures == 0
    assert late.expires < 0, "nothing is concluded from it"
    assert source.for_message(network="elsewhere").txt("a.late.example") == (b"here",)


def test_what_was_sent_and_got_no_answer_is_the_dns_s_failure(source: DnsResolver) -> None:
    with pytest.raises(LookupFailed) as raised:
        source.for_message().txt("a.slow.example")
    assert not isinstance(raised.value, Shortage | TimeExceeded)
    assert source.counters.failures == 1


def test_time_that_was_lost_by_waiting_is_not_the_messages_doing(source: DnsResolver) -> None:
    """It waited for its turn, say: then what it has no time for is a shortage; a message that
    wasted its own time exceeds a limit."""
    delayed, wasteful = source.for_message(seconds=5), source.for_message(seconds=0.2)
    delayed.delay(5)
    with pytest.raises(Shortage):
        delayed.txt("a.example")
    with contextlib.suppress(LookupFailed):
        wasteful.txt("b.slow.example")
    with pytest.raises(TimeExceeded):
        wasteful.txt("a.example")


def test_equal_questions_are_sent_once(source: DnsResolver, dns: DnsServer) -> None:
    for network in "abcdef":
        source.for_message(network=network).prefetch([Question("same.slow.example", "TXT")])
    source.loop.park(0.2)
    assert dns.count("same.slow.example") == 1


def test_the_places_bound_the_sockets_with_two_servers_too(
    dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent name is tried at both: that takes sockets, not places of others."""
    monkeypatch.setattr("dmarc_milter.dns.counters.IN_FLIGHT_LIMIT", 48)
    with DnsServer(
        {"*.slow.example": {"behaviour": "silent"}, "*.example": {"TXT": ["here"]}}
    ) as second:
        source = DnsResolver(Loop(), [dns.nameserver, second.nameserver], timeout=TIMEOUT)
        before = descriptors()
        saturate(source)
        source.loop.park(1.0)
        assert source._admission.in_flight <= 48
        assert descriptors() - before <= 4 * 48
        honest, began = source.for_message(network="honest"), time.monotonic()
        assert [honest.txt(f"{number}.b.example") for number in range(5)] == [(b"here",)] * 5
        assert time.monotonic() - began < 1.5
        source.close()


# Shortages of the machine


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_question_that_cannot_be_sent_for_want_of_something_is_a_shortage(
    source: DnsResolver, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Descriptors and memory: the DNS was not even asked."""

    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError(number, os.strerror(number))

    source.for_message().txt("first.example")
    with monkeypatch.context() as patch:
        patch.setattr("dmarc_milter.dns.attempt.socket.socket", refuse)
        with pytest.raises(Shortage):
            source.for_message().txt("a.example")
        early = source.for_message()
        early.prefetch([Question("b.example", "TXT"), Question("c.example", "TXT")])
        with pytest.raises(Shortage):
            early.txt("b.example")
    assert source.for_message().txt("a.example") == (b"here",)


def test_a_network_that_is_down_is_a_failure_all_the_same(
    source: DnsResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.ENETUNREACH, "unreachable")

    monkeypatch.setattr("dmarc_milter.dns.attempt.socket.socket", refuse)
    with pytest.raises(LookupFailed) as raised:
        source.for_message().txt("a.example")
    assert not isinstance(raised.value, Shortage)


# Abandoned messages


@pytest.mark.parametrize("prefetched", [False, True], ids=["asked", "prefetched"])
def test_a_task_that_waits_for_an_abandoned_message_ends_at_once(
    source: DnsResolver, prefetched: bool
) -> None:
    """Whichever way it waits; it gets no answer and no failure."""
    source.for_message().txt("first.example")
    before, message = descriptors(), source.for_message()
    if prefetched:
        message.prefetch([Question("a.slow.example", "TXT")])
    with asking(message, "a.slow.example") as found:
        began = time.monotonic()
        message.abandon()
    assert time.monotonic() - began < 0.5
    assert isinstance(found[0], Abandoned)
    assert eventually(
        source, lambda: source._admission.in_flight == 0 and descriptors() <= before + 1, 2
    )
    assert (source.counters.failures, source.counters.timeouts, source.counters.shortages) == (
        0,
        0,
        0,
    )


def test_an_abandoned_message_asks_nothing_more(source: DnsResolver, dns: DnsServer) -> None:
    message = source.for_message()
    message.abandon()
    dns.clear()
    for ask in (
        lambda: message.txt("a.example"),
        lambda: message.share(queries=5, seconds=5).txt("b.example"),
    ):
        with pytest.raises(Abandoned):
            ask()
    with contextlib.suppress(Abandoned):
        message.prefetch([Question("c.example", "TXT")])
    source.loop.park(0.1)
    assert dns.queries == []


def test_what_waits_for_a_place_leaves_with_its_message(source: DnsResolver) -> None:
    """Everything: the places and the queue are as if it had never been there."""
    for message in saturate(source):
        message.abandon()
    assert (source._admission.in_flight, source._admission.waiting) == (0, 0)
    began = time.monotonic()
    assert source.for_message(network="n1").txt("a.example") == (b"here",)
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(
    "starter", [True, False], ids=["the one who began it leaves", "one who joined leaves"]
)
def test_a_question_that_another_message_waits_for_goes_on(
    source: DnsResolver, dns: DnsServer, starter: bool
) -> None:
    """It is asked once, and the one who stays gets the answer."""
    dns.put("late.example", {"TXT": ["late"], "delay": 0.5})
    one, other = source.for_message(network="one"), source.for_message(network="other")
    with asking(one, "late.example") as found_one, asking(other, "late.example") as found_other:
        (one if starter else other).abandon()
    gone, there = (found_one, found_other) if starter else (found_other, found_one)
    assert isinstance(gone[0], Abandoned)
    assert there == [(b"late",)]
    assert dns.count("late.example") == 1


def test_many_abandoned_messages_leave_no_descriptor(source: DnsResolver) -> None:
    """MAIL and EHLO in turns, with a new slow name each time."""
    source.for_message().txt("first.example")
    before = descriptors()
    for number in range(300):
        message = source.for_message(network="loop")
        message.prefetch(slow(str(number), 4))
        message.abandon()
    assert eventually(source, lambda: descriptors() <= before + 2, 3)
    assert (source._admission.in_flight, source._admission.waiting) == (0, 0)


def test_messages_that_come_and_go_leave_nothing(source: DnsResolver) -> None:
    """Joins, ends and answers at the same moments: no slot and no descriptor is lost, and the last
    one is answered."""
    source.for_message().txt("first.example")
    before, over = descriptors(), time.monotonic() + 1.5
    ended: list[int] = []

    def come_and_go(number: int) -> None:
        turn = 0
        while time.monotonic() < over:
            turn += 1
            message = source.for_message(seconds=3.0, network=f"n{number % 4}")
            message.prefetch(
                [*slow(str(turn % 7), 3), Question(f"{turn % 5}.quick.example", "TXT")]
            )
            source.loop.call_later(0.005 * (turn % 4), message.abandon)
            with contextlib.suppress(Abandoned, LookupFailed):
                message.txt(
                    f"{turn % 7}.{turn % 3}.slow.example"
                    if turn % 2
                    else f"{turn % 5}.quick.example"
                )
            message.abandon()
            source.loop.park(0)
        ended.append(number)

    for number in range(8):
        source.loop.spawn(partial(come_and_go, number))
    assert eventually(source, lambda: len(ended) == 8, 10)
    assert eventually(
        source, lambda: (source._admission.in_flight, source._admission.waiting) == (0, 0), 3
    )
    assert eventually(source, lambda: descriptors() <= before + 3, 3)
    assert source.for_message().txt("last.example") == (b"here",)


# Servers


def test_names_that_nobody_answers_for_do_not_make_a_server_suspect(dns: DnsServer) -> None:
    """Any sender has such names. Only a server that answers nothing at all is asked last."""
    with DnsServer() as silent:
        silent.behaviour = "silent"
        source = DnsResolver(Loop(), [dns.nameserver, silent.nameserver], timeout=1.0)
        source.for_message().prefetch(slow("a", 20))
        for number in range(15):
            began = time.monotonic()
            assert source.for_message().txt(f"{number}.quick.example") == (b"here",)
            assert time.monotonic() - began < 0.3
            source.loop.park(0.05)
        first, second = source._servers._servers
        assert first.suspect_until == 0.0
        assert eventually(source, lambda: second.suspect_until > time.monotonic(), 2)
        source.close()


def test_of_two_suspects_the_one_that_answered_last_is_asked_first() -> None:
    """Where only slow names were asked both look silent; the one that never answered anything is
    the worse bet."""
    source = DnsResolver(Loop(), ["127.0.0.1:1", "127.0.0.1:2"])
    dead, alive = source._servers._servers
    for server in (dead, alive):
        server.missed(10.0, 12.0)
    alive.heard_at = 9.0
    assert source._servers.current(13.0) == (alive, dead)


def test_a_server_that_has_answered_since_is_not_silent() -> None:
    server = Server("127.0.0.1", 53)
    server.heard(5.0)
    server.missed(4.0, 6.0)
    assert server.suspect_until == 0.0
    server.missed(5.5, 7.5)
    assert server.suspect_until > 7.5
