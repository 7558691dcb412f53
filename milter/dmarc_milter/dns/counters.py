"""What the resolver counts, and how much it may have under way."""

from __future__ import annotations

import resource

IN_FLIGHT_LIMIT = 1000  # questions
# That a question may hold while nobody answers: the time-out leaves room for two retries, some of
# them without OPT.
SOCKETS = 4


class Counters:
    """What the client did since the process started."""

    __slots__ = (
        "failures",
        "hits",
        "ignored",
        "queries",
        "retries",
        "shortages",
        "stale",
        "tcp",
        "timeouts",
        "waits",
    )

    def __init__(self) -> None:
        self.queries = self.retries = self.tcp = self.failures = self.timeouts = self.ignored = (
            self.hits
        ) = self.stale = 0
        self.waits = self.shortages = 0


def in_flight_limit() -> int:
    """How many questions may be in flight, at most IN_FLIGHT_LIMIT: their sockets take a third of
    the process's descriptors."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        IN_FLIGHT_LIMIT
        if descriptors == resource.RLIM_INFINITY
        else min(IN_FLIGHT_LIMIT, max(16, descriptors // (3 * SOCKETS)))
    )
