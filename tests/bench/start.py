"""What a start costs: `python -m bench.start [TRIES]`.

Processor time of all processes of the daemon, from exec until the workers serve, the drain has
moved a row into the store and a report run has ended. Reports are switched on, none is due.
"""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.contenders import AS_INSTALLED, PYMILTER, milter_of
from bench.load import Cost
from dmarc_milter.ledger.spool.spool import Spool
from fakes.daemon import Daemon
from fakes.evaluations import evaluation

TRIES = 5
PATIENCE = 60.0
"""Seconds that a start may take on a busy machine."""
TABLES: dict[str, dict[str, Any]] = {
    "milter": {"workers": 2},
    "dns": {"nameservers": ["127.0.0.1:9"]},
    "reporting": {"org_name": "Bench", "email": "dmarc@bench.example", "smtp": "127.0.0.1:9"},
}


def measure(tries: int = TRIES, library: str = PYMILTER) -> tuple[list[float], list[float]]:
    """For each start with this milter library: seconds of processor time until the workers serve,
    and until the jobs have run once. The first start, which may compile, does not count."""
    ready: list[float] = []
    whole: list[float] = []
    tables = TABLES | {"milter": TABLES["milter"] | milter_of(library)}
    for _ in range(tries + 1):
        with tempfile.TemporaryDirectory(prefix="dmarc-start-") as folder:
            command = ("-m", "bench.plain", "serve", "--config")
            daemon = Daemon(Path(folder), tables, command=command)
            daemon.environment |= AS_INSTALLED
            spool = Spool(daemon.spool)
            spool.record(evaluation())
            spool.close()
            try:
                daemon.start()
                assert daemon.process is not None
                cost = Cost([daemon.process.pid])
                ready.append(cost.whole())
                jobs_have_run(daemon)
                whole.append(cost.whole())
            finally:
                daemon.stop()
    return ready[1:], whole[1:]


def jobs_have_run(daemon: Daemon) -> None:
    """Wait until the drain has moved the row and the report run has come and gone. Raises
    RuntimeError."""
    deadline = time.monotonic() + PATIENCE
    seen = False
    while time.monotonic() < deadline:
        running = any("report" in name for name in names(daemon))
        seen = seen or running
        if seen and not running and drained(daemon):
            return
        time.sleep(0.002)
    raise RuntimeError(f"the jobs do not run:\n{daemon.text()}")


def names(daemon: Daemon) -> list[str]:
    """What the daemon's children call themselves, with their command lines."""
    found = []
    for pid, name in daemon.children().items():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            found.append(f"{name} {'report' if 'report' in words else ''}")
    return found


def drained(daemon: Daemon) -> bool:
    """Whether the store has the message."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{daemon.folder}/reports.db?mode=ro", uri=True)
        ) as connection:
            return bool(connection.execute("SELECT count(*) FROM decision").fetchone()[0])
    except sqlite3.OperationalError:
        return False


def show() -> None:
    """Print one line."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else TRIES
    ready, whole = measure(tries)
    print(
        f"a start takes {min(whole):.2f} s of processor time (best of {len(whole)}; median"
        f" {statistics.median(whole):.2f} s), {min(ready):.2f} s of it until the workers serve"
    )


if __name__ == "__main__":
    show()
