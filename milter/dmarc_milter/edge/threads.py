"""Python's own threads for everything that takes time: a pool that costs half of what concurrent.futures does for each hand-over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Task(Generic[T]):
    """One call on its way; taken either by a thread, which runs it, or by `cancel`."""

    __slots__ = ("_arguments", "_claim", "_done", "_error", "_function", "_value")

    def __init__(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._arguments = arguments
        self._claim = threading.Lock()
        self._done = threading.Lock()
        self._done.acquire()
        self._value: T | None = None
        self._error: BaseException | None = None

    def cancel(self) -> bool:
        """Whether it will never run: no thread had begun it."""
        return self._claim.acquire(blocking=False)

    def result(self, timeout: float | None = None) -> T:
        """What the call returned or raised. Raises TimeoutError after `timeout` seconds. Not for a cancelled task."""
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
        try:
            self._value = self._function(*self._arguments)
        except BaseException as error:
            self._error = error
        finally:
            self._done.release()


class Threads:
    """At most `limit` daemon threads, started when there is work and none is free. They live as long as the process."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit, self._name = limit, name
        self._queue: SimpleQueue[Task[Any]] = SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0
        """Threads that wait, less the tasks that are on their way to them."""
        self._count = 0

    def submit(self, function: Callable[..., T], *arguments: Any) -> Task[T]:
        """Have it called by one of the threads. Raises RuntimeError when not even one thread can be started."""
        task = Task(function, arguments)
        with self._lock:
            start = self._free <= 0 and self._count < self._limit
            if start:
                self._count += 1
            else:
                self._free -= 1
        if start:
            self._start()
        self._queue.put(task)
        return task

    def _start(self) -> None:
        try:
            threading.Thread(target=self._run, name=f"{self._name}-{self._count}", daemon=True).start()
        except RuntimeError:  # no more threads to be had: those that are there do the work
            with self._lock:
                self._count -= 1
                self._free -= 1
                if not self._count:
                    self._free += 1
                    raise

    def _run(self) -> None:
        while True:
            self._queue.get().run()
            with self._lock:
                self._free += 1
