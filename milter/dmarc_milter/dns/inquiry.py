"""A question that messages wait for, sent or not yet, and a message as the resolver knows it."""

from __future__ import annotations

import time
from collections.abc import Callable

from dmarc_milter.core.fair_sharing import Asker
from dmarc_milter.dns.answer import Answer, Key
from dmarc_milter.dns.attempt import Pending
from dmarc_milter.dns.waiting import LoopWaker


class Inquiry:
    """One question; whoever asks the same meanwhile waits for the same answer. `flight` is None as
    long as it is unsent; `answered` is when the answer came (seconds, monotonic)."""

    __slots__ = ("answer", "answered", "flight", "key", "listeners", "question", "waiters")

    def __init__(self, key: Key, question: bytes) -> None:
        self.key, self.question = key, question
        self.flight: Pending | None = None
        self.answer: Answer | None = None
        self.answered = 0.0
        self.waiters: list[LoopWaker] = []
        self.listeners: list[Callable[[], None]] = []
        """Called once there is an answer; they must not raise."""

    def settle(self, answer: Answer) -> None:
        """Publish the answer and wake who waits. The first answer counts."""
        if self.answer is None:
            self.answer, self.answered = answer, time.monotonic()
            if self.flight is not None:
                self.flight.inquiry = None  # they would hold each other, and the answer's memory
            self.wake()
            listeners, self.listeners = self.listeners, []
            for call in listeners:
                call()

    def wake(self) -> None:
        """Let those who wait look again: there is an answer, or the question has been sent."""
        for waker in self.waiters:
            waker.wake()


class Caller:
    """A message as it asks: who it is, and whether it is still there."""

    __slots__ = ("asker", "gone", "waiting")

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.gone = False
        """Nobody waits for its verdict any more: what it still asks raises Abandoned."""
        self.waiting: list[LoopWaker] = []
        """Tasks that wait for the message's sake."""

    def leave(self) -> None:
        """The message has ended; wake its tasks."""
        self.gone = True
        for waker in self.waiting:
            waker.wake()
