"""A daemon under limits of its host that can be changed while it runs.

RLIMIT_NPROC, which stands for TasksMax and a container's pids limit (all of them make clone(2) fail
with EAGAIN), binds no process of root's: the daemon runs under a number that nobody else has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from fakes.daemon import Daemon, Tables

MANY = 20_000


def cannot_limit() -> str:
    """Why nothing can be limited here; "" where it can."""
    if os.geteuid() != 0:
        return "another account needs root"
    return "" if shutil.which("setpriv") and shutil.which("prlimit") else "util-linux is needed"


class LimitedDaemon(Daemon):
    """Of an account of its own. `threads`: how many it may have in all, processes included, from
    the start on."""

    def __init__(
        self,
        folder: Path,
        tables: Tables | None = None,
        *,
        threads: int = MANY,
        command: Iterable[str] = (),
    ) -> None:
        super().__init__(folder, tables, command=command)
        self.account = 100_000 + os.getpid()
        os.chown(folder, self.account, self.account)
        capability = "+dac_override"  # the tests' folders are root's
        self._as_account = ["setpriv", f"--reuid={self.account}", "--clear-groups"]
        words = [
            *self._as_account,
            f"--inh-caps={capability}",
            f"--ambient-caps={capability}",
            "prlimit",
            f"--nproc={threads}:{MANY}",
        ]
        script = (
            f"import os, sys; os.execvp('setpriv', [*{words!r}, sys.executable, *sys.argv[1:]])"
        )
        self.command = ("-c", script, *self.command)

    def allow_threads(self, number: int) -> None:
        """How many threads its account may have from now on."""
        for pid in (self.process.pid if self.process else 0, *self.children()):
            subprocess.run(
                [*self._as_account, "prlimit", "--pid", str(pid), f"--nproc={number}:"],
                check=False,  # it may have just ended
                timeout=30,
            )
