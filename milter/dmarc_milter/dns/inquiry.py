"""A question that messages wait for, sent or not yet, and a message as the resolver knows it."""

from __future__ import annotations

from dmarc_milter.core.fair_sharing import Asker
from dmarc_milter.dns.alarm import Alarm
from dmarc_milter.dns.answer import Answer, Key
from dmarc_milter.dns.attempt import Pending


class Inquiry:
    """One question; whoever asks the same meanwhile waits for the same answer. `flight` is None as
    long as it is unsent."""

    __slots__ = ("_waiters", "answer", "flight", "key", "question")

    def __init__(self, key: Key, question: bytes) -> None:
        self.key, self.question = key, question
        self.flight: Pending | None = None
        self.answer: Answer | None = None
        self._waiters: list[Alarm] = []

    def settle(self, answer: Answer) -> None:
        """Publish the answer and wake who waits. The first answer counts."""
        if self.answer is None:
            self.answer = answer
            self.wake()

    def wake(self) -> None:
        """Let those who wait look again: there is an answer, or the question has been sent."""
        for alarm in tuple(self._waiters):
            alarm.ring()

    def wait(self, alarm: Alarm, seconds: float) -> None:
        """Until something has changed, or the time is up."""
        self._waiters.append(alarm)
        try:
            if self.answer is None:
                alarm.wait(seconds)
        finally:
            self._waiters.remove(alarm)


class Caller:
    """A message as it asks: who it is, and whether it is still there. Shared by the threads that
    work on it."""

    __slots__ = ("_alarms", "asker", "gone")

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.gone = False
        """Nobody waits for its verdict any more: what it still asks raises Abandoned."""
        self._alarms: list[Alarm] = []

    def attend(self, alarm: Alarm) -> None:
        """This thread is about to wait for the message's sake."""
        self._alarms.append(alarm)
        if self.gone:
            alarm.ring()

    def turn_away(self, alarm: Alarm) -> None:
        """It does not any more."""
        self._alarms.remove(alarm)

    def leave(self) -> None:
        """The message has ended; wake its threads."""
        self.gone = True
        for alarm in tuple(self._alarms):
            alarm.ring()
