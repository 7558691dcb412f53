"""What one message has asked and got, and where its answers come from."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from dmarc_milter.dns.answer import Answer, Key
from dmarc_milter.dns.cache import Derived
from dmarc_milter.dns.inquiry import Caller, Inquiry
from dmarc_milter.dns.stale_cache import Stale
from dmarc_milter.dns.waiting import EventLoop

# Of a message's seconds: an answer that has not come within them is the DNS's failure, whatever
# else the message asked.
FAIR = 0.2


class AnswerSource(Protocol):
    """What a process-wide resolver offers its messages."""

    @property
    def loop(self) -> EventLoop:
        """Where its messages wait."""
        ...

    def cached(self, key: Key) -> Answer | None:
        """The remembered answer, if any."""
        ...

    def derived(self, key: Hashable) -> Derived | None:
        """What was derived under this key, if all of its answers are still good."""
        ...

    def keep_derived(self, key: Hashable, derived: Derived) -> None:
        """Let other messages have it."""
        ...

    def encode(self, key: Key) -> bytes | None:
        """The question section, None for a name that cannot be asked."""
        ...

    def hold(self, key: Key, answer: Answer) -> None:
        """Learn what the DNS said, aliases followed."""
        ...

    def stale(self, key: Key) -> Stale | None:
        """An older answer that may be used because the DNS has failed."""
        ...

    def start(self, key: Key, question: bytes, caller: Caller, *, policy: bool) -> Inquiry | Answer:
        """Have the question asked as soon as there is a place for it, or join those who ask it."""
        ...

    def leave(self, caller: Caller) -> None:
        """The message has ended."""
        ...

    def count_shortage(self) -> None:
        """A question was unsent when its message's time ended."""
        ...


class Progress:
    """What a message has asked and got; shared by its shares. `patience`: seconds it may still
    spend waiting; `fair`: seconds that every look-up should have; `delayed`: seconds that it has
    waited for room or for the processor, which are our doing."""

    __slots__ = (
        "caller",
        "delayed",
        "derived",
        "fair",
        "given",
        "patience",
        "stale",
        "started",
    )

    def __init__(self, patience: float, caller: Caller) -> None:
        self.patience, self.fair, self.delayed = patience, patience * FAIR, 0.0
        self.caller = caller
        self.given: dict[Key, Answer] = {}
        self.started: dict[Key, Inquiry | Answer] = {}
        self.derived: dict[Hashable, Derived] = {}
        self.stale: dict[str, float] = {}
