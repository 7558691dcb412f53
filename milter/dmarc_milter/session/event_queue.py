"""From libmilter's threads to the loop: a connection's events are handed over many at once, obeyed
in their order by a task, and the answer to a message is handed back.

libmilter's threads collect and wait, nothing else (connection.py); all else runs in the loop's.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

from dmarc_milter.core.actions.plan import Action
from dmarc_milter.process.loop import Loop, Task
from dmarc_milter.session.choose_library import MakeSession
from dmarc_milter.session.handler import TRY_LATER
from dmarc_milter.session.session import Macros, Session

Event = tuple[Callable[..., Any], tuple[Any, ...]]
"""A method of Session, and its arguments after the session."""


class EventAnswer:
    """What the loop gives back for events; one thread waits for it."""

    __slots__ = ("_given", "actions")

    def __init__(self) -> None:
        self.actions: Sequence[Action] = (TRY_LATER,)
        self._given = threading.Lock()
        self._given.acquire()

    def give(self) -> None:
        """In the loop, once."""
        self._given.release()

    def wait(self, seconds: float) -> bool:
        """In libmilter's thread, once; False when it did not come in time."""
        return self._given.acquire(timeout=seconds)


class EventQueue:
    """One connection's events on their way to its Session, which is made in the loop."""

    def __init__(self, loop: Loop, make_session: MakeSession, name: str) -> None:
        self._loop, self._make_session, self._name = loop, make_session, name
        self.network: Hashable = None
        """Whose share of the processor the next events use."""
        self.wants_body = True
        """Whether the session wanted more when it was last given a piece of a body."""
        self._session: Session | None = None
        self._waiting: deque[tuple[list[Event], Macros | None, EventAnswer | None]] = deque()
        self._task: Task | None = None

    def put(
        self, events: list[Event], answer: EventAnswer | None = None, end: Macros | None = None
    ) -> None:
        """From libmilter's thread: have the events obeyed, and the end of the message with its
        macros where there is one; then the answer is given."""
        self._loop.call_from_thread(partial(self._take, events, end, answer))

    def give_up(self) -> None:
        """From libmilter's thread: nobody waits for what is under way any more."""
        self._loop.call_from_thread(self._end)

    def _take(self, events: list[Event], end: Macros | None, answer: EventAnswer | None) -> None:
        self._waiting.append((events, end, answer))
        if self._task is None:
            self._task = self._loop.spawn(self._work, self.network)

    def _end(self) -> None:
        task, self._task = self._task, None
        self._waiting.clear()
        if task is not None:
            task.end()

    def _work(self) -> None:
        if self._session is None:
            self._session = self._make_session(self._name)
        try:
            while self._waiting:
                events, end, answer = self._waiting.popleft()
                try:
                    self._obey(self._session, events)
                    if end is not None and answer is not None:
                        answer.actions = self._session.end_of_message(end)
                finally:
                    if answer is not None:
                        answer.give()
        finally:
            self._task = None

    def _obey(self, session: Session, events: list[Event]) -> None:
        header, body, pause = Session.header, Session.body, self._loop.pause
        for method, arguments in events:
            wanted = method(session, *arguments)
            if method is header:
                continue  # the most frequent one, and cheap
            if method is body:
                self.wants_body = wanted
            pause()
