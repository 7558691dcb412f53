"""What a worker has once, for all messages, and the protocols of what it is made of."""

from __future__ import annotations

import itertools
import random
import secrets
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from dmarc_milter.core import budget
from dmarc_milter.core.actions.plan import Marking
from dmarc_milter.core.authenticate import Options
from dmarc_milter.core.dmarc.rewritten_from import Canonify
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.message import Headers
from dmarc_milter.core.resolver import Resolver
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import SharedMemory, WorkerSlot
from dmarc_milter.telemetry.counters import Meter
from dmarc_milter.telemetry.log import Log


class Recorder(Protocol):
    """The ledger's spool."""

    def record(self, evaluation: Evaluation, sample: bytes | None = None) -> bool:
        """Durable when true; takes at most a second. `sample` is what a failure report will
        quote."""
        ...


class MessageResolvers(Protocol):
    """The process's DNS."""

    def for_message(self, seconds: float, max_queries: int, network: Hashable) -> Resolver:
        """For one message from that client network."""
        ...


def attempt_ids() -> Callable[[], str]:
    """Gives one process's ids of delivery attempts, 32 hexadecimal digits each."""
    return partial(_next_id, secrets.token_hex(6), itertools.count())


def _next_id(prefix: str, numbers: Iterator[int]) -> str:
    """Unique to a delivery attempt, and in the order of time: milliseconds since 1970, the
    process's random part, a number."""
    return f"{time.time_ns() // 1_000_000:012x}{prefix}{next(numbers):08x}"


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What a worker has once, for all messages."""

    loop: Loop
    options: Options
    marking: Marking
    dns: MessageResolvers
    recorder: Recorder
    log: Log
    meter: Meter
    slot: WorkerSlot
    shared_memory: SharedMemory
    max_queries: int = budget.MESSAGE_QUERIES
    header_sample: Callable[[Evaluation, Headers], bytes | None] = lambda _evaluation, _headers: (
        None
    )
    """What is kept for a failure report, redacted; None where none is asked for, or failure reports
    are off."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    pct_draw: Callable[[], float] = field(
        default_factory=lambda: partial(
            random.Random(secrets.randbits(128)).uniform,  # noqa: S311 - pct is no secret
            0.0,
            99.999999,
        )
    )
    canonify: Callable[[str], Canonify | None] = lambda _mta: None
    """How an MTA (Envelope.mta) changes From after us."""
    new_id: Callable[[], str] = field(default_factory=attempt_ids)
