"""One thread's loop: descriptors, timers, and tasks that wait without a thread of their own.

A task is plain synchronous code in a greenlet. Where it must wait it parks, and the loop goes on
with something else. Processor time is shared by client network (fair_queue.py): a task that has run
for SLICE gives way at its next `pause`. Nothing of DNS, milter or SQLite is here.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final

import greenlet

from dmarc_milter.process.fair_queue import FairQueue
from dmarc_milter.process.timers import Callback, Timer, Timers

SLICE: Final = 0.01
"""Seconds that a task may run before its next `pause` gives way. Descriptors are looked at then:
whoever has just said something may have to go first."""
TURN: Final = 0.05
"""Seconds of shorter tasks after which descriptors and timers are looked at again. Not fewer: what
they leave is recorded together."""
EVENTS: Final = 32
"""Descriptors served in one turn; the others come next."""
SPARE: Final = 64
"""Greenlets that are kept for the next tasks: making one costs more than most tasks' waits."""
log = logging.getLogger("dmarc_milter.loop")


class TaskEnded(BaseException):
    """Raised where a task waits, when it is ended. Nothing on the way may catch it, nor wait."""


class Waker:
    """Whoever waits in `Loop.park`. Only the loop's own thread may wake it."""

    __slots__ = ("parked", "woken")

    def __init__(self) -> None:
        self.parked = self.woken = False

    def wake(self) -> None:
        """End its wait. Without effect where it does not wait: it looks before it parks."""
        self.woken |= self.parked


class Task(Waker):
    """A function that runs in the loop, for a client network.

    `network` may change while it runs. `waited`: seconds that it was ready and others ran.
    `on_switch`, if any, is called with True whenever the task
    is about to run and with False when it stops running: for what is true of a running task only.
    """

    __slots__ = (
        "_ending",
        "_loop",
        "_queued",
        "_ready",
        "ended",
        "function",
        "greenlet",
        "network",
        "on_switch",
        "waited",
    )

    def __init__(self, loop: Loop, function: Callback, network: Hashable) -> None:
        super().__init__()
        self._loop, self.network = loop, network
        self.ended = self._ending = self._ready = False
        self.waited = self._queued = 0.0
        self.on_switch: Callable[[bool], None] | None = None
        self.function = function
        self.greenlet: greenlet.greenlet | None = None
        """While it runs or waits."""

    def wake(self) -> None:
        """See Waker."""
        if self.parked:
            self.parked, self.woken = False, True
            self._loop._make_ready(self)

    def end(self) -> None:
        """Raise TaskEnded where it waits, now. One that has not begun never will."""
        if not self.ended:
            self._loop._end(self)


class Loop:
    """Belongs to the thread that makes it, which alone uses it (except `call_from_thread`).

    Outside a task `park` runs the loop until it is woken, so code that waits works with a task and
    without one.
    """

    def __init__(self) -> None:
        self._hub = greenlet.getcurrent()
        self._epoll = select.epoll()
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._signalled = False
        self._from_threads: deque[Callback] = deque()
        self._watched: dict[int, Callable[[int], None]] = {}
        self._forgotten: set[int] = set()
        """Descriptors forgotten in this turn: a number may be in use again by now."""
        self._soon: deque[Callback] = deque()
        self._timers = Timers()
        self._hooks: list[Callback] = []
        self._spare: list[greenlet.greenlet] = []
        self._main = Waker()
        self._running: Task | None = None
        self._since = 0.0
        """When the running task was switched to; seconds, monotonic."""
        self._queue: FairQueue[Task] = FairQueue()
        self.watch(self._signal, select.EPOLLIN, self._take_signal)

    @property
    def current(self) -> Waker:
        """Who would wait: the running task, or whoever runs the loop."""
        return self._running or self._main

    @property
    def task(self) -> Task | None:
        """The running task, if any."""
        return self._running

    def close(self) -> None:
        """Give the descriptors back. What is still to be called never is. Safe to repeat."""
        if not self._epoll.closed:
            self._epoll.close()
            os.close(self._signal)

    __del__ = close

    # Descriptors, timers and calls.

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call back with the events (select.EPOLLIN and so on) as long as there are any."""
        self._epoll.register(fd, events)
        self._watched[fd] = callback

    def change(self, fd: int, events: int) -> None:
        """Watch for other events."""
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Before the descriptor is closed. It is not called back any more, not in this turn
        either."""
        if self._watched.pop(fd, None) is not None:
            self._forgotten.add(fd)
            self._epoll.unregister(fd)

    def call_soon(self, callback: Callback) -> None:
        """In the next turn, or later in this one."""
        self._soon.append(callback)

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        """After so many seconds."""
        return self._timers.add(time.monotonic() + seconds, callback)

    def call_from_thread(self, callback: Callback) -> None:
        """As call_soon; for other threads."""
        self._from_threads.append(callback)
        if not self._signalled:
            self._signalled = True
            os.eventfd_write(self._signal, 1)

    def at_end_of_turn(self, callback: Callback) -> None:
        """At the end of every turn: for what is done once for all that a turn has brought."""
        self._hooks.append(callback)

    # Tasks.

    def spawn(self, function: Callback, network: Hashable = None) -> Task:
        """A task, which begins when the turn of its network comes. It costs some 20 KiB as long as
        it has not ended: for a message, not for a connection that is idle."""
        task = Task(self, function, network)
        self._make_ready(task)
        return task

    def charge(self, network: Hashable, seconds: float) -> None:
        """What is done for a client network outside its tasks is part of its share too."""
        self._queue.charge(network, seconds)

    def is_behind(self, network: Hashable) -> bool:
        """Whether it has had so much that what is to be done for it should be a task: others
        wait."""
        return self._queue.is_behind(network)

    def park(self, seconds: float | None = None) -> bool:
        """Wait until woken or for so long; whether it was woken. Raises TaskEnded in a task that is
        ended."""
        task = self._running
        if task is None:
            return self._drive(seconds)
        if task._ending:
            raise TaskEnded
        task.parked, task.woken = True, False
        timer = None if seconds is None else self.call_later(seconds, lambda: self._time_over(task))
        try:
            self._hub.switch()
        finally:
            task.parked = False
            if timer is not None:
                timer.cancel()
        return task.woken

    def pause(self) -> None:
        """Let others go on if this task has run for its time. Cheap if not."""
        task = self._running
        if task is not None and time.monotonic() - self._since >= SLICE:
            if task._ending:
                raise TaskEnded
            self._make_ready(task)
            self._hub.switch()

    def run(self, until: Callable[[], bool]) -> None:
        """Until that is so, looked at after every turn."""
        while not until():
            self.turn()

    def turn(self, longest: float | None = None) -> None:
        """Wait for something to do, `longest` seconds at most (None: without end), and do it."""
        self._forgotten.clear()
        for fd, events in self._wait(longest):
            callback = self._watched.get(fd)
            if callback is not None and fd not in self._forgotten:
                try:
                    callback(events)
                except Exception:
                    log.exception("an event could not be handled")
        self._call_due()
        self._run_ready()
        self._end_turn()

    # What follows is the loop's own.

    def _wait(self, longest: float | None) -> list[tuple[int, int]]:
        patience = self._patience(longest)
        if patience == 0.0:
            return self._epoll.poll(0.0, EVENTS)
        before = time.monotonic()
        events = self._epoll.poll(patience, EVENTS)
        self._queue.rest(time.monotonic() - before)
        return events

    def _end_turn(self) -> None:
        for hook in self._hooks:
            self._call(hook)

    def _patience(self, longest: float | None) -> float | None:
        if self._queue or self._soon:
            return 0.0
        due = self._timers.next_at()
        if due is None:
            return longest
        left = max(0.0, due - time.monotonic())
        return left if longest is None else min(left, longest)

    def _call_due(self) -> None:
        timers, soon = self._timers, self._soon
        if timers:
            now = time.monotonic()
            while (callback := timers.take_due(now)) is not None:
                self._call(callback)
        for _ in range(len(soon)):
            self._call(soon.popleft())

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception:
            log.exception("a callback failed")

    def _take_signal(self, _events: int) -> None:
        os.eventfd_read(self._signal)
        self._signalled = False
        calls = self._from_threads
        for _ in range(len(calls)):
            self._call(calls.popleft())

    def _make_ready(self, task: Task) -> None:
        task._ready, task._queued = True, time.monotonic()
        self._queue.put(task.network, task)

    def _run_ready(self) -> None:
        """Tasks in the order of their networks, until nothing is ready, one has had its slice, or
        the turn is over."""
        queue = self._queue
        if not queue:
            return
        begun = now = time.monotonic()
        used = time.thread_time()
        while queue and now - begun < TURN:
            network, task = queue.take()
            before, since = used, now
            if task._ready:  # not ended meanwhile
                self._since = now
                task.waited += max(0.0, now - task._queued)
                self._switch(task)
                now, used = time.monotonic(), time.thread_time()
            queue.served(network, used - before)
            if now - since >= SLICE:
                return

    def _switch(self, task: Task) -> None:
        task._ready, self._running = False, task
        try:
            if task.on_switch is not None:
                task.on_switch(True)
            if task.greenlet is None:
                spare = self._spare
                task.greenlet = spare.pop() if spare else greenlet.greenlet(self._work, self._hub)
                task.greenlet.switch(task)
            else:
                task.greenlet.switch()
        finally:
            self._running = None
            if task.on_switch is not None:
                task.on_switch(False)

    def _work(self, task: Task | None) -> None:
        """The whole of a greenlet: one task after the other."""
        own, spare = greenlet.getcurrent(), self._spare
        while task is not None:
            self._run_task(task)
            if task._ending or len(spare) >= SPARE:
                return  # to whoever has ended it, or made it
            spare.append(own)
            task = self._hub.switch()

    def _run_task(self, task: Task) -> None:
        try:
            task.function()
        except TaskEnded:
            pass
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            log.exception("a task failed")
        finally:
            task.ended, task.greenlet = True, None
            task.function = _nothing  # its greenlet remembers the task, and may be kept for others

    def _time_over(self, task: Task) -> None:
        if task.parked:
            task.parked = False
            self._make_ready(task)

    def _end(self, task: Task) -> None:
        task._ending, task._ready = True, False
        if task is self._running:
            raise TaskEnded
        found = task.greenlet
        if found is None:  # not begun
            task.ended, task.function = True, _nothing
            return
        before, since = self._running, self._since
        found.parent = greenlet.getcurrent()  # where it goes on when the task has ended
        self._running = task
        try:
            found.throw(TaskEnded)
        finally:
            self._running, self._since = before, since
            if before is not None and before.on_switch is not None:
                before.on_switch(True)

    def _drive(self, seconds: float | None) -> bool:
        """Run turns until the main waker is woken, or time is over."""
        main = self._main
        main.parked, main.woken = True, False
        over = None if seconds is None else time.monotonic() + seconds
        try:
            self._end_turn()  # of whoever waits now
            while not main.woken:
                left = None if over is None else over - time.monotonic()
                if left is not None and left < 0:
                    break
                self.turn(left)
        finally:
            main.parked = False
        return main.woken


def _nothing() -> None:
    """What a task that has ended does."""
