"""A limit of descriptors that was lowered below what this process has open (prlimit(1)): it can
open none until as many are closed, and no connection is taken."""

from __future__ import annotations

import fcntl
import math
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress

LOOKED_AT = 4096
"""Numbers from the limit on of which one may be open."""
LOOK = 1.0
"""Seconds between looks: each may ask for all of these."""


class DescriptorLimit:
    """The limit when this was made, to compare with."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._begin, self._clock = _limit(), clock
        self._next_look = -math.inf

    def lowered(self) -> str:
        """Why nothing can be opened any more, or "": a process that has used up its limit is in no
        need of another one. The former limit is asked for, so that what is under way can end.
        Looked at once in LOOK, however often it is asked."""
        if self._clock() < self._next_look:
            return ""
        self._next_look = self._clock() + LOOK
        now = _limit()
        if now >= self._begin:
            return ""
        with suppress(OSError):
            os.close(os.dup(0))
            return ""
        if not any(map(_is_open, range(now, now + LOOKED_AT))):
            return ""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = self._begin if hard == resource.RLIM_INFINITY else min(self._begin, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return f"the limit of descriptors was lowered to {now}, and more are open"


def _limit() -> int:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**31 if soft == resource.RLIM_INFINITY else soft


def _is_open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True
