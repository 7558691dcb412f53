"""The pool of threads that evaluates: results, errors, limits, and what cannot be started."""

from __future__ import annotations

import threading

import pytest

from dmarc_milter.session.thread_pool import ThreadPool
from fakes.daemon import wait_for


def test_results_and_errors_come_back() -> None:
    threads = ThreadPool(2, "test")
    tasks = [threads.submit(divmod, 7, number) for number in (2, 0, 3)]
    assert tasks[0].result(5) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        tasks[1].result(5)
    assert tasks[2].result(5) == tasks[2].result(5) == (2, 1)


def test_threads_are_started_as_needed_and_no_more() -> None:
    """One after another needs one thread; all at once no more than the limit."""
    threads = ThreadPool(4, "needed")
    for _ in range(20):
        threads.submit(int).result(5)
        assert wait_for(lambda: threads._free > 0), "what has ended is free again"
    assert running("needed") == 1
    gate = threading.Event()
    tasks = [threads.submit(gate.wait, 10) for _ in range(10)]
    assert running("needed") == 4
    gate.set()
    assert all(task.result(5) for task in tasks)


def running(name: str) -> int:
    return sum(each.name.startswith(f"{name}-") for each in threading.enumerate())


def test_a_task_is_run_or_cancelled_and_never_both() -> None:
    threads = ThreadPool(1, "test")
    gate, begun = threading.Event(), threading.Event()
    ran: list[int] = []
    first = threads.submit(lambda: begun.set() or gate.wait(10))
    assert begun.wait(5)
    waiting = [threads.submit(ran.append, number) for number in range(5)]
    assert not first.cancel()
    assert waiting[2].cancel()
    assert not waiting[2].cancel()
    gate.set()
    waiting[4].result(5)
    assert ran == [0, 1, 3, 4]
    assert not waiting[4].cancel()


def test_waiting_may_end_before_the_task() -> None:
    gate = threading.Event()
    task = ThreadPool(1, "test").submit(gate.wait, 10)
    with pytest.raises(TimeoutError):
        task.result(0.05)
    gate.set()
    assert task.result(5)


def test_many_threads_may_submit() -> None:
    """Nothing is lost or run twice."""
    threads = ThreadPool(8, "test")
    counts = [0] * 64

    def bump(number: int) -> int:
        counts[number] += 1
        return number

    def use(number: int) -> None:
        for _ in range(200):
            assert threads.submit(bump, number).result(10) == number

    users = [threading.Thread(target=use, args=(number,)) for number in range(16)]
    for each in users:
        each.start()
    for each in users:
        each.join()
    assert counts[:16] == [200] * 16


def test_without_new_threads_the_old_ones_work_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLT-06: thread creation fails; the first failure of all is the caller's to know."""
    threads = ThreadPool(8, "test")
    gate = threading.Event()
    held = threads.submit(gate.wait, 10)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        waiting = [threads.submit(int, number) for number in range(3)]
        with pytest.raises(RuntimeError):
            ThreadPool(8, "none").submit(int)
    gate.set()
    assert held.result(5)
    assert [task.result(5) for task in waiting] == [0, 1, 2]
    assert threads.submit(int, 7).result(5) == 7
