"""What a message's SPF check will ask, asked from MAIL FROM on while the message arrives: each as
soon as the answer that leads to it has come."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from dmarc_milter.core.fair_sharing import client_network
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.resolver import Resolver, telling
from dmarc_milter.core.spf.early import EarlyQuestions
from dmarc_milter.core.spf.options import SpfOptions
from dmarc_milter.process.loop import Loop


class EarlySpf:
    """Of one message, until `end`. Hints alone: the check asks again, gets what has come, and waits
    for the rest."""

    def __init__(
        self,
        envelope: Envelope,
        resolver: Resolver,
        options: SpfOptions,
        loop: Loop,
        blamed: Callable[[], AbstractContextManager[object]],
        queries: int,
    ) -> None:
        """At most so many questions. `blamed`: in it a death of the worker is the message's doing
        (crash_guard.py)."""
        self._loop, self._blamed = loop, blamed
        self._network = client_network(envelope.source_ip)
        self._questions = EarlyQuestions(envelope, options)
        self._due = False
        self._resolver: Resolver | None = telling(resolver, self._notice, queries)
        self._resolver.prefetch(self._questions.first())
        self._go_on()

    def end(self) -> None:
        """Nothing more is asked ahead. What is in flight ends with the message."""
        self._resolver = None
        self._blamed = nullcontext  # questions without an answer would hold the message, it them

    def _notice(self) -> None:
        """An answer has come. It is read in a task, as part of its client's share."""
        if not self._due and self._resolver is not None:
            self._due = True
            self._loop.spawn(self._go_on, self._network)

    def _go_on(self) -> None:
        self._due = False
        with self._blamed():
            while self._resolver is not None and (
                questions := self._questions.next(self._resolver)
            ):
                self._resolver.prefetch(questions)
