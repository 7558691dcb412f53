"""The memory that supervisor and workers share, the poison list in it, and the counters."""

from __future__ import annotations

import mmap
import os
import threading

from dmarc_milter.daemon.crash_guard import MAX_STRIKES, REMEMBERED, Poison
from dmarc_milter.process.shared_memory import FINGERPRINT, JOBS, POISON, Board
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
    """What was in evaluation and what was counted outlives the process that wrote it."""
    board = Board(3)
    slot = board.slot(1)
    slot.reset()

    def work() -> None:
        mine = board.slot(1)
        mine.sessions = 7
        Meter(mine).count("messages", 5)
        held = [mine.working(A), mine.working(C)]
        for each in held:
            each.__enter__()
        with mine.working(B):
            pass
        os._exit(1)

    in_a_child(work)
    assert sorted(job.fingerprint for job in slot.jobs()) == [A, C]
    assert slot.sessions == 7
    assert dict(named(board.totals()))["messages"] == 5
    slot.reset()
    assert slot.jobs() == ()
    assert (slot.sessions, dict(named(board.totals()))["messages"]) == (0, 5)


def test_slots_do_not_overlap() -> None:
    board = Board(4)
    slots = [board.slot(number) for number in range(4)]
    held = []
    for number, slot in enumerate(slots):
        slot.add([(index, number + 1) for index in range(len(slot.counters))])
        slot.sessions = number
        for _ in range(JOBS):
            held.append(slot.working(bytes((number + 1,)) * FINGERPRINT))
            held[-1].__enter__()
    for number, slot in enumerate(slots):
        assert set(slot.counters) == {number + 1}
        assert slot.sessions == number
        assert {job.fingerprint for job in slot.jobs()} == {bytes((number + 1,)) * FINGERPRINT}
    assert not board.is_poison(A, now=0)


def test_more_jobs_than_fit_are_done_unseen() -> None:
    """The table is bounded; nothing fails, and places come back."""
    slot = Board(1).slot(0)
    held = [slot.working(A) for _ in range(JOBS + 10)]
    for each in held:
        each.__enter__()
    assert len(slot.jobs()) == JOBS
    for each in held:
        each.__exit__(None, None, None)
    assert slot.jobs() == ()
    with slot.working(B):
        assert [job.fingerprint for job in slot.jobs()] == [B]


def test_counts_of_many_threads_add_up() -> None:
    board = Board(1)
    meter = Meter(board.slot(0))
    threads = [
        threading.Thread(target=lambda: [meter.count("messages") for _ in range(2000)])
        for _ in range(8)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert dict(named(board.totals()))["messages"] == 16_000


def test_what_is_counted_elsewhere_is_followed() -> None:
    """Each growth is added once; a count that starts again adds nothing until it has passed the old
    one."""
    board = Board(1)
    meter = Meter(board.slot(0))
    for value in (3, 3, 10, 2, 10, 11):
        meter.follow("dns_queries", value)
    assert dict(named(board.totals()))["dns_queries"] == 11


def test_counter_names_are_distinct() -> None:
    assert len(INDEX) == len(NAMES)


def test_a_message_is_poison_after_the_second_death() -> None:
    """Once may be chance; a death counts a message once, however often it was in evaluation."""
    board = Board(1)
    poison = Poison(board)
    assert poison.killed_by((A, A, B), now=0) == 0
    assert not board.is_poison(A, now=1)
    assert poison.killed_by((A,), now=1) == 1
    assert board.is_poison(A, now=2)
    assert not board.is_poison(B, now=2)
    assert poison.killed_by((A,), now=2) == 0


def test_poison_is_forgotten_after_hours() -> None:
    board = Board(1)
    poison = Poison(board)
    poison.killed_by((A,), now=0)
    poison.killed_by((A, B), now=10)
    assert not board.is_poison(A, now=10 + REMEMBERED)
    poison.expire(11 + REMEMBERED)
    assert poison.killed_by((A, B), now=12 + REMEMBERED) == 0


def test_poison_reaches_running_workers() -> None:
    """The list is in shared memory: a worker forked before sees what is published after."""
    board = Board(1)
    flag = mmap.mmap(-1, 1)
    ready, go = os.pipe()

    def work() -> None:
        os.read(ready, 1)
        flag[0] = board.is_poison(A, now=1.0)

    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    poison = Poison(board)
    poison.killed_by((A,), now=0)
    poison.killed_by((A,), now=0)
    os.write(go, b"x")
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(go)
    assert flag[0] == 1


def test_the_poison_list_is_bounded() -> None:
    """An attacker who kills at will fills it once; the newest are kept."""
    board = Board(1)
    poison = Poison(board)
    prints = [number.to_bytes(FINGERPRINT, "big") for number in range(1, MAX_STRIKES + 500)]
    poison.killed_by(prints, now=0)
    poison.killed_by(prints, now=1)
    assert board.is_poison(prints[-1], now=2)
    assert not board.is_poison(prints[0], now=2)
    assert sum(board.is_poison(each, now=2) for each in prints[-2000:]) == POISON


def test_a_message_without_fingerprint_is_never_poison() -> None:
    board = Board(1)
    poison = Poison(board)
    for _ in range(3):
        poison.killed_by((bytes(FINGERPRINT),), now=0)
    assert not board.is_poison(bytes(FINGERPRINT), now=0)
