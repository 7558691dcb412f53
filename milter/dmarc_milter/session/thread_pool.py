"""Threads for everything that takes time.

A pool of our own because concurrent.futures serves whoever came first: here who waits for a thread
waits in turn with other client networks and messages (core/fair_sharing.py). A hand-over costs the
same (docs/performance.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from dmarc_milter.core.fair_sharing import Asker, Pool, Shares, State, Ticket

T = TypeVar("T")
NOBODY: Final = Asker(None, None)


class Task(Generic[T]):
    """One call on its way; taken either by a thread, which runs it, or by `cancel`."""

    __slots__ = (
        "_arguments",
        "_claim",
        "_done",
        "_error",
        "_function",
        "_ticket",
        "_value",
        "_withdraw",
        "begun",
    )

    def __init__(
        self,
        function: Callable[..., T],
        arguments: tuple[Any, ...],
        withdraw: Callable[[Ticket], None] | None = None,
    ) -> None:
        self._ticket = Ticket(self)
        self._withdraw = withdraw
        self.begun = 0.0
        """When a thread took it; seconds, monotonic."""
        self._function = function
        self._arguments = arguments
        self._claim = threading.Lock()
        self._done = threading.Lock()
        self._done.acquire()
        self._value: T | None = None
        self._error: BaseException | None = None

    def cancel(self) -> bool:
        """Whether it will never run: no thread had begun it. It then leaves the queue."""
        if not self._claim.acquire(blocking=False):
            return False
        if self._withdraw is not None:
            self._withdraw(self._ticket)
        return True

    def result(self, timeout: float | None = None) -> T:
        """What the call returned or raised. Raises TimeoutError after `timeout` seconds. Not for a
        cancelled task."""
        if not self._done.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError("not done in time")
        self._done.release()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def run(self) -> None:
        """By a thread of the pool."""
        if not self._claim.acquire(blocking=False):
            return
        self.begun = time.monotonic()
        try:
            self._value = self._function(*self._arguments)
        except BaseException as error:
            self._error = error
        finally:
            self._done.release()


class ThreadPool:
    """At most `limit` daemon threads, `share` of them for one client network, started when there is
    work and none is free.

    They live as long as the process.
    """

    def __init__(self, limit: int, name: str, share: int = 0) -> None:
        self._limit, self._name = limit, name
        self._pool = Pool(Shares(limit, share or limit, limit))
        self._queue: SimpleQueue[Task[Any]] = SimpleQueue()
        """Tasks that have a thread: the next one that is free, or is being started."""
        self._lock = threading.Lock()
        self._free = 0
        """Threads that wait, less the tasks that are on their way to them."""
        self._count = 0

    @property
    def busy(self) -> bool:
        """Whether more than half of the threads have something to do: what can be done without one
        should be."""
        return self._pool.used * 2 > self._limit

    def submit(self, function: Callable[..., T], *arguments: Any, asker: Asker = NOBODY) -> Task[T]:
        """Have it called by one of the threads, in its turn. Raises RuntimeError when not even one
        thread can be started."""
        task = Task(function, arguments, self._withdraw)
        with self._lock:
            if self._pool.enter(task._ticket, asker, 0.0):
                self._give_thread(task)
        return task

    def _give_thread(self, task: Task[Any]) -> None:
        """Under the lock."""
        if self._free <= 0 and self._count < self._limit:
            self._count += 1
            try:
                threading.Thread(
                    target=self._run, name=f"{self._name}-{self._count}", daemon=True
                ).start()
            except RuntimeError:  # no more threads to be had: those that are there do the work
                self._count -= 1
                if not self._count:
                    self._pool.done(task._ticket)
                    raise
                self._free -= 1
        else:
            self._free -= 1
        self._queue.put(task)

    def _run(self) -> None:
        while True:
            task: Task[Any] | None = self._queue.get()
            while task is not None:
                task.run()
                task = self._next_after(task)

    def _next_after(self, task: Task[Any]) -> Task[Any] | None:
        """What this thread does now: tasks that were given a thread while none was free come
        first."""
        with self._lock:
            self._pool.done(task._ticket)
            found = self._pool.next(0.0)
            if found is None:
                self._free += 1
                return None
            following: Task[Any] = found.item
            return following

    def _withdraw(self, ticket: Ticket) -> None:
        with self._lock:
            if ticket.state is State.WAITING:
                self._pool.done(ticket)
