"""The memory that supervisor and workers share, the poison list in it, and the counters."""

from __future__ import annotations

import mmap
import os
import time

from dmarc_milter.daemon.crash_guard import MAX_REMEMBERED, REMEMBERED, CrashGuard
from dmarc_milter.process.shared_memory import FINGERPRINT, MAX_BLOCKED, SharedMemory
from dmarc_milter.telemetry.counters import INDEX, NAMES, Meter, named

A, B, C = (bytes((octet,)) * FINGERPRINT for octet in b"abc")


def in_a_child(work: object) -> None:
    """Run in a forked process and wait for its end."""
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_a_worker_is_seen_from_outside_after_its_death() -> None:
    """What was running and what was counted outlives the process that wrote it."""
    shared_memory = SharedMemory(3)
    slot = shared_memory.slot(1)
    slot.reset()

    def work() -> None:
        mine = shared_memory.slot(1)
        mine.sessions = 7
        Meter(mine).count("messages", 5)
        mine.show(B)
        mine.show(A)
        os._exit(1)

    in_a_child(work)
    assert slot.running is not None
    assert slot.running.fingerprint == A
    assert slot.sessions == 7
    assert dict(named(shared_memory.totals()))["messages"] == 5
    slot.reset()
    assert slot.running is None
    assert (slot.sessions, dict(named(shared_memory.totals()))["messages"]) == (0, 5)


def test_slots_do_not_overlap() -> None:
    shared_memory = SharedMemory(4)
    slots = [shared_memory.slot(number) for number in range(4)]
    for number, slot in enumerate(slots):
        slot.add([(index, number + 1) for index in range(len(slot.counters))])
        slot.sessions = number
        slot.show(bytes((number + 1,)) * FINGERPRINT)
    for number, slot in enumerate(slots):
        assert set(slot.counters) == {number + 1}
        assert slot.sessions == number
        assert slot.running is not None
        assert slot.running.fingerprint == bytes((number + 1,)) * FINGERPRINT
    assert not shared_memory.is_blocked(A, now=0)


def test_what_is_counted_elsewhere_is_followed() -> None:
    """Each growth is added once; a count that starts again adds nothing until it has passed the old
    one."""
    shared_memory = SharedMemory(1)
    meter = Meter(shared_memory.slot(0))
    for value in (3, 3, 10, 2, 10, 11):
        meter.follow("dns_queries", value)
    assert dict(named(shared_memory.totals()))["dns_queries"] == 11


def test_counter_names_are_distinct() -> None:
    assert len(INDEX) == len(NAMES)


def test_a_message_is_poison_after_the_second_death() -> None:
    """Once may be chance; a death counts a message once, however often it was in evaluation."""
    shared_memory = SharedMemory(1)
    poison = CrashGuard(shared_memory)
    assert poison.blame((A, A, B), now=0) == 0
    assert not shared_memory.is_blocked(A, now=1)
    assert poison.blame((A,), now=1) == 1
    assert shared_memory.is_blocked(A, now=2)
    assert not shared_memory.is_blocked(B, now=2)
    assert poison.blame((A,), now=2) == 0


def test_poison_is_forgotten_after_hours() -> None:
    shared_memory = SharedMemory(1)
    poison = CrashGuard(shared_memory)
    poison.blame((A,), now=0)
    poison.blame((A, B), now=10)
    assert not shared_memory.is_blocked(A, now=10 + REMEMBERED)
    poison.expire(11 + REMEMBERED)
    assert poison.blame((A, B), now=12 + REMEMBERED) == 0


def test_poison_reaches_running_workers() -> None:
    """The list is in shared memory: a worker forked before sees what is published after."""
    shared_memory = SharedMemory(1)
    flag = mmap.mmap(-1, 1)
    ready, go = os.pipe()

    def work() -> None:
        os.read(ready, 1)
        flag[0] = shared_memory.is_blocked(A, now=1.0)

    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    poison = CrashGuard(shared_memory)
    poison.blame((A,), now=0)
    poison.blame((A,), now=0)
    os.write(go, b"x")
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(go)
    assert flag[0] == 1


def test_the_poison_list_is_bounded() -> None:
    """An attacker who kills at will fills it once; the newest are kept."""
    shared_memory = SharedMemory(1)
    poison = CrashGuard(shared_memory)
    prints = [number.to_bytes(FINGERPRINT, "big") for number in range(1, MAX_REMEMBERED + 500)]
    poison.blame(prints, now=0)
    poison.blame(prints, now=1)
    assert shared_memory.is_blocked(prints[-1], now=2)
    assert not shared_memory.is_blocked(prints[0], now=2)
    assert sum(shared_memory.is_blocked(each, now=2) for each in prints[-2000:]) == MAX_BLOCKED


def test_a_message_without_fingerprint_is_never_poison() -> None:
    shared_memory = SharedMemory(1)
    poison = CrashGuard(shared_memory)
    for _ in range(3):
        poison.blame((bytes(FINGERPRINT),), now=0)
    assert not shared_memory.is_blocked(bytes(FINGERPRINT), now=0)


def workers(*connections: tuple[int, int]) -> SharedMemory:
    """That take connections, with so many negotiated and silent ones each."""
    shared_memory = SharedMemory(len(connections))
    for number, (sessions, silent) in enumerate(connections):
        slot = shared_memory.slot(number)
        slot.reset()
        slot.sessions, slot.silent, slot.accepting = sessions, silent, True
    return shared_memory


def takers(shared_memory: SharedMemory, later: float = 0.0, limit: int = 1000) -> list[int]:
    """Who would take the next connection, `later` seconds from now."""
    now, numbers = time.monotonic() + later, range(shared_memory.slots)
    return [number for number in numbers if shared_memory.takes_next(number, now, limit)]


def test_while_there_is_little_to_do_the_first_worker_takes_every_connection() -> None:
    """It then knows most of the DNS, and the others sleep. An MTA closes one connection and opens
    the next: which of them is seen first must not matter."""
    assert takers(workers((0, 0), (0, 0), (0, 0))) == [0]
    assert takers(workers((1, 0), (0, 0), (0, 0))) == [0]
    assert takers(workers((0, 1), (0, 0), (0, 0))) == [0]


def test_a_connection_is_for_the_worker_that_has_the_fewest() -> None:
    """They may all have something to say later, silent ones too."""
    assert takers(workers((2, 0), (0, 0))) == [1]
    assert takers(workers((1, 1), (0, 1))) == [1]
    assert takers(workers((4, 4), (3, 4), (0, 8))) == [1]


def test_of_those_with_the_fewest_it_is_one_that_evaluates_nothing() -> None:
    shared_memory = workers((1, 0), (0, 0), (2, 0))
    shared_memory.slot(0).show(bytes(FINGERPRINT))
    assert takers(shared_memory) == [1]
    shared_memory.slot(1).show(bytes(FINGERPRINT))
    assert takers(shared_memory) == [0]
    shared_memory.slot(0).show(None)
    assert takers(shared_memory) == [0]


def test_a_worker_without_room_leaves_connections_to_those_that_have_some() -> None:
    """Else it would hang up on one that it has, or answer 451, beside an empty worker. Where none
    has room somebody still makes some or answers (max_connections)."""
    assert takers(workers((1, 0), (0, 0), (0, 0)), limit=1) == [1]
    assert takers(workers((2, 0), (1, 1), (1, 0)), limit=2) == [2]
    assert takers(workers((1, 0), (0, 1)), limit=1) == [0]
    busy = workers((2, 0), (1, 0), (0, 2))
    for number in range(busy.slots):
        busy.slot(number).show(bytes(FINGERPRINT))
    assert takers(busy, limit=2) == [1]


def test_only_workers_that_take_connections_are_left_some() -> None:
    """Not one that drains, has died or does not move."""
    shared_memory = workers((0, 0), (0, 0))
    shared_memory.slot(0).accepting = False
    assert shared_memory.takes_next(1, time.monotonic(), 1000)
    assert takers(workers((0, 0), (0, 0)), later=60) == [0, 1]
