"""A limit of descriptors that was lowered below what this process has open (prlimit(1)): it can
open none until as many are closed, and no connection is taken."""

from __future__ import annotations

import fcntl
import os
import resource
from contextlib import suppress

LOOKED_AT = 4096
"""Numbers from the limit on of which one may be open."""


class DescriptorLimit:
    """The limit when this was made, to compare with."""

    def __init__(self) -> None:
        self._begin = _limit()

    def lowered(self) -> str:
        """Why nothing can be opened any more, or "": a process that has used up its limit is in no
        need of another one. The former limit is asked for, so that what is under way can end."""
        now = _limit()
        if now >= self._begin or not any(map(_is_open, range(now, now + LOOKED_AT))):
            return ""
        with suppress(OSError):
            os.close(os.dup(0))
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
