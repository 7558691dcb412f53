"""Small processes that the supervisor forks for work of its own: what they leave behind."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from pathlib import Path


def detach_from_supervisor(name: str, keep: int) -> None:
    """In the child: nothing of the supervisor's stays, neither signals nor descriptors but `keep`;
    `name` is shown by ps."""
    signal.set_wakeup_fd(-1)
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for number in sorted(int(each) for each in os.listdir("/proc/self/fd")):
        if number > 2 and number != keep:
            with contextlib.suppress(OSError):
                os.close(number)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")
    gc.unfreeze()
