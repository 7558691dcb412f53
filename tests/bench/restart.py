"""How long a killed worker is missing: from SIGKILL to its successor's first answer."""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from fakes.daemon import Daemon, wait_for

KILLS = 10


def replaced(daemon: Daemon, old: int) -> bool:
    """Whether another worker runs in the place of this one."""
    return daemon.workers() not in ([], [old])


def measure(kills: int = KILLS) -> tuple[list[float], list[float]]:
    """For each kill of the only worker: seconds until its successor runs, and until that answers an
    MTA."""
    forked, served = [], []
    with (
        tempfile.TemporaryDirectory(prefix="dmarc-restart-") as folder,
        Daemon(Path(folder), {"milter": {"workers": 1}}) as daemon,
    ):
        for number in range(1, kills + 1):
            # One that is killed before it has said that it is ready counts as a start that failed,
            # and the next one waits.
            daemon.logged("ready", number)
            (old,) = daemon.workers()
            began = time.monotonic()
            os.kill(old, signal.SIGKILL)
            wait_for(partial(replaced, daemon, old))
            forked.append(time.monotonic() - began)
            daemon.client().close()  # waits in the shared socket until somebody takes it
            served.append(time.monotonic() - began)
    return forked, served


def show() -> None:
    """Print one line."""
    forked, served = measure()
    print(
        f"a killed worker is replaced after {statistics.median(forked) * 1000:.0f} ms, its"
        f" successor serves after {statistics.median(served) * 1000:.0f} ms (median of"
        f" {len(served)} kills; highest {max(served) * 1000:.0f} ms)"
    )


if __name__ == "__main__":
    show()
