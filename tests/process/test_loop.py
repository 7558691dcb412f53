"""One thread that never waits: descriptors, timers, tasks and their share (docs/design.md)."""

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dmarc_milter.process import loop as module
from dmarc_milter.process.loop import Loop, Task, TaskEnded


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def turns(loop: Loop, number: int = 3) -> None:
    """Some turns that wait for nothing."""
    for _ in range(number):
        loop.turn(0)


def burn(seconds: float) -> None:
    """Use so much processor time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_a_descriptor_is_called_back_with_its_events_while_there_are_any(
    loop: Loop, pipe: tuple[int, int]
) -> None:
    """Level-triggered: what is not read is reported again."""
    seen: list[int] = []
    loop.watch(pipe[0], select.EPOLLIN, seen.append)
    loop.turn(0)
    os.write(pipe[1], b"x")
    turns(loop, 2)
    assert seen == [select.EPOLLIN, select.EPOLLIN]


def test_a_forgotten_descriptor_is_not_called_back_in_the_same_turn_either(
    loop: Loop, pipe: tuple[int, int]
) -> None:
    """Nor is whoever has its number next called for it."""
    other, seen = os.pipe2(os.O_NONBLOCK), list[str]()

    def first(name: str, own: int, fellow: int) -> Callable[[int], None]:
        def called(_events: int) -> None:
            seen.append(name)
            loop.forget(own)
            loop.forget(fellow)
            loop.watch(fellow, select.EPOLLIN, lambda _: seen.append("next"))

        return called

    loop.watch(pipe[0], select.EPOLLIN, first("a", pipe[0], other[0]))
    loop.watch(other[0], select.EPOLLIN, first("b", other[0], pipe[0]))
    os.write(pipe[1], b"x")
    os.write(other[1], b"x")
    loop.turn(0)
    assert seen in (["a"], ["b"])
    loop.turn(0)
    assert seen[1:] == ["next"]
    for end in other:
        os.close(end)


def test_other_events_can_be_watched(loop: Loop, pipe: tuple[int, int]) -> None:
    """Loop.change."""
    seen: list[int] = []
    loop.watch(pipe[1], 0, seen.append)
    loop.turn(0)
    loop.change(pipe[1], select.EPOLLOUT)
    loop.turn(0)
    assert seen == [select.EPOLLOUT]


def test_timers_are_called_in_their_order_and_cancelled_ones_are_not(loop: Loop) -> None:
    """Loop.call_later."""
    seen: list[str] = []
    loop.call_later(0.02, lambda: seen.append("second"))
    loop.call_later(0.01, lambda: seen.append("first"))
    loop.call_later(0.015, lambda: seen.append("never")).cancel()
    loop.run(lambda: len(seen) == 2)
    assert seen == ["first", "second"]


def test_a_call_from_another_thread_ends_the_wait(loop: Loop) -> None:
    """Loop.call_from_thread, the only method for other threads."""
    seen: list[int] = []
    thread = threading.Thread(
        target=lambda: [loop.call_from_thread(lambda n=n: seen.append(n)) for n in range(100)]
    )
    thread.start()
    loop.run(lambda: len(seen) == 100)
    thread.join()
    assert seen == list(range(100))


def test_hooks_are_called_once_a_turn_after_the_tasks(loop: Loop) -> None:
    """What many messages of one turn have left is done together."""
    seen: list[str] = []
    loop.at_end_of_turn(lambda: seen.append("end"))
    loop.spawn(lambda: seen.append("one"))
    loop.spawn(lambda: seen.append("two"))
    loop.turn(0)
    assert seen == ["one", "two", "end"]


def test_hooks_are_called_before_a_wait_outside_a_task(loop: Loop) -> None:
    """What was left before it may be what it waits for."""
    main = loop.current
    loop.at_end_of_turn(main.wake)
    assert loop.park(10)


def test_a_failing_callback_or_task_is_logged_and_the_others_go_on(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception never ends the loop."""

    def fails() -> None:
        raise ZeroDivisionError

    seen: list[int] = []
    loop.call_soon(fails)
    loop.spawn(fails)
    loop.call_later(0, fails)
    loop.spawn(lambda: seen.append(1))
    with caplog.at_level(logging.ERROR):
        turns(loop)
    assert seen == [1]
    assert len(caplog.records) == 3


def test_a_task_waits_until_it_is_woken_and_others_run_meanwhile(loop: Loop) -> None:
    """Loop.park."""
    seen: list[object] = []
    waiting: list[Task] = []

    def waits() -> None:
        task = loop.task
        assert task is not None
        waiting.append(task)
        seen.append(loop.park(60))

    loop.spawn(waits)
    loop.turn(0)
    loop.spawn(lambda: seen.append("other"))
    loop.turn(0)
    assert seen == ["other"]
    waiting[0].wake()
    waiting[0].wake()
    turns(loop)
    assert seen == ["other", True]
    assert waiting[0].ended


def test_a_wait_ends_when_its_time_is_over(loop: Loop) -> None:
    """Loop.park: False then."""
    seen: list[bool] = []
    loop.spawn(lambda: seen.append(loop.park(0.01)))
    loop.run(lambda: bool(seen))
    assert seen == [False]


def test_waiting_outside_a_task_runs_the_loop(loop: Loop) -> None:
    """So that commands wait by the same code as a worker's messages."""
    seen: list[str] = []
    main = loop.current
    loop.spawn(lambda: seen.append("task"))
    loop.call_later(0.01, main.wake)
    assert loop.park(10)
    assert not loop.park(0.01)
    assert seen == ["task"]


def test_a_wake_that_comes_before_the_wait_does_not_count(loop: Loop) -> None:
    """Who waits looks first: in one thread nothing comes between."""
    loop.current.wake()
    assert not loop.park(0)


def test_the_end_of_a_task_passes_every_except_at_once(loop: Loop) -> None:
    """A client that has gone: nothing on the way may hold its message."""
    seen: list[str] = []

    def waits() -> None:
        try:
            try:
                loop.park()
            except Exception:
                seen.append("caught")
            seen.append("went on")
        finally:
            seen.append("finally")

    task = loop.spawn(waits)
    loop.turn(0)
    task.end()
    assert seen == ["finally"]
    assert task.ended
    task.wake()
    turns(loop)
    assert seen == ["finally"]


def test_a_task_that_is_being_ended_cannot_wait_again(loop: Loop) -> None:
    """Not in a finally, and not after catching what nothing may catch."""
    seen: list[str] = []

    def stubborn() -> None:
        for _ in range(3):
            try:
                loop.park()
            except BaseException as error:
                seen.append(type(error).__name__)

    task = loop.spawn(stubborn)
    loop.turn(0)
    task.end()
    assert seen == ["TaskEnded"] * 3
    assert task.ended


def test_a_task_may_end_another_and_goes_on(loop: Loop) -> None:
    """The end of one runs inside the other, which is still the running task afterwards."""
    seen: list[str] = []

    def waits() -> None:
        try:
            loop.park()
        finally:
            seen.append("ended")

    victim = loop.spawn(waits)
    loop.turn(0)

    def ends() -> None:
        before = loop.task
        victim.end()
        assert loop.task is before
        seen.append("went on")
        loop.park(0.001)
        seen.append("waited")

    loop.spawn(ends)
    loop.run(lambda: "waited" in seen)
    assert seen == ["ended", "went on", "waited"]


def test_a_task_that_has_not_begun_or_is_ready_again_can_be_ended(loop: Loop) -> None:
    """Wherever it stands, it does not run afterwards."""
    seen: list[str] = []
    loop.spawn(lambda: seen.append("began")).end()

    def waits() -> None:
        loop.park()
        seen.append("went on")

    ready = loop.spawn(waits)
    loop.turn(0)
    ready.wake()
    ready.end()
    turns(loop)
    assert seen == []
    assert ready.ended


def test_a_task_can_end_itself(loop: Loop) -> None:
    """It raises TaskEnded there."""
    seen: list[bool] = []

    def ends() -> None:
        assert loop.task is not None
        with pytest.raises(TaskEnded):
            loop.task.end()
        seen.append(True)

    loop.spawn(ends)
    turns(loop)
    assert seen == [True]


def test_a_pause_gives_way_only_after_the_slice(loop: Loop) -> None:
    """SLICE: processor time is shared."""
    seen: list[str] = []

    def works(name: str, slices: int) -> None:
        for _ in range(slices):
            burn(module.SLICE)
            loop.pause()
            seen.append(name)

    def short() -> None:
        for _ in range(100):
            loop.pause()
        seen.append("short")

    loop.spawn(lambda: works("long", 2), "a")
    loop.spawn(short, "a")
    turns(loop, 5)
    assert seen == ["short", "long", "long"]


def test_a_network_with_many_tasks_has_no_more_time_than_one_with_a_single_one(
    loop: Loop,
) -> None:
    """Processor time is shared by client network, not by message."""
    seen: list[str] = []

    def works(name: str) -> None:
        for _ in range(4):
            burn(module.SLICE)
            seen.append(name)
            loop.pause()

    for _ in range(10):
        loop.spawn(lambda: works("many"), "many")
    loop.spawn(lambda: works("one"), "one")
    loop.run(lambda: seen.count("one") == 4)
    assert seen.count("many") <= 5


def test_who_comes_new_does_not_wait_behind_those_who_had_their_time(loop: Loop) -> None:
    """Twenty networks that always work: another one's message goes before all second slices."""
    seen: list[str] = []

    def works(name: str) -> None:
        for _ in range(3):
            burn(module.SLICE)
            seen.append(name)
            loop.pause()

    for number in range(5):
        loop.spawn(lambda: works("costly"), number)
    loop.run(lambda: len(seen) >= 5)
    loop.spawn(lambda: seen.append("honest"), "honest")
    loop.run(lambda: "honest" in seen)
    assert seen[5] == "honest"


def test_descriptors_are_looked_at_while_tasks_are_ready(loop: Loop, pipe: tuple[int, int]) -> None:
    """However many tasks there are: after each that has had its slice, else when the turn is
    over."""
    seen: list[str] = []
    loop.watch(pipe[0], select.EPOLLIN, lambda _: (seen.append("event"), os.read(pipe[0], 1)))
    for _ in range(3):
        loop.spawn(lambda: (burn(module.SLICE), seen.append("long")))
    for _ in range(100):
        loop.spawn(lambda: (burn(module.TURN / 40), seen.append("short")))
    loop.turn(0)
    os.write(pipe[1], b"x")
    turns(loop, 3)
    assert seen[:4] == ["long", "event", "long", "long"]
    assert 1 <= len(seen) - 4 <= 40


def test_a_task_knows_when_it_runs(loop: Loop) -> None:
    """For what is true of a running task only: the message that a death is blamed on."""
    seen: list[object] = []

    def works() -> None:
        task = loop.task
        assert task is not None
        task.on_switch = seen.append
        seen.append("begin")
        loop.park(0.001)
        seen.append("go on")
        task.on_switch = None

    loop.spawn(works)
    loop.run(lambda: "go on" in seen)
    assert seen == ["begin", False, True, "go on"]
