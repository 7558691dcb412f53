"""The jobs beside the workers: the spool is drained while the daemon runs, through deaths, reloads
and the end."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmarc_milter.ledger.spool.spool import Spool
from fakes.daemon import Daemon, wait_for
from fakes.evaluations import evaluation


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(
        tmp_path, {"milter": {"workers": 1}}, command=("-m", "dmarc_milter", "serve", "--config")
    ) as running:
        yield running


def jobs(daemon: Daemon) -> list[int]:
    """The drains that run beside this daemon."""
    found = []
    for pid in daemon.children():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"--follow" in words:
                found.append(pid)
    return found


def decided(daemon: Daemon) -> int:
    """Messages in the store."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{daemon.folder}/reports.db?mode=ro", uri=True)
        ) as connection:
            return int(connection.execute("SELECT count(*) FROM decision").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def record(daemon: Daemon) -> None:
    """As a worker does."""
    spool = Spool(daemon.spool)
    assert spool.record(evaluation())
    spool.close()


def test_the_spool_is_drained_while_the_daemon_runs(daemon: Daemon) -> None:
    """docs/design.md, Threads and processes: a job of its own; killed, it is started again."""
    record(daemon)
    assert wait_for(lambda: decided(daemon) == 1, 60)
    [job] = jobs(daemon)
    os.kill(job, signal.SIGKILL)
    record(daemon)
    assert wait_for(lambda: decided(daemon) == 2, 60)
    assert daemon.events("job_failed")


def test_a_reload_starts_the_jobs_anew_and_the_end_ends_them(daemon: Daemon) -> None:
    assert wait_for(lambda: len(jobs(daemon)) == 1, 60)
    [before] = jobs(daemon)
    daemon.signal(signal.SIGHUP)
    assert wait_for(lambda: len(jobs(daemon)) == 1 and jobs(daemon) != [before], 60)
    [after] = jobs(daemon)
    assert daemon.process is not None
    daemon.signal(signal.SIGTERM)
    assert daemon.process.wait(60) == 0
    assert not Path(f"/proc/{after}").exists()


def test_a_job_whose_daemon_was_killed_ends_by_itself(daemon: Daemon) -> None:
    """Or a second daemon would find it still at work, with the configuration of yesterday."""
    assert wait_for(lambda: len(jobs(daemon)) == 1, 60)
    [job] = jobs(daemon)
    assert wait_for(lambda: Path(f"/proc/{job}/stat").read_text().split()[2] == "S", 60)
    daemon.signal(signal.SIGKILL)
    assert wait_for(
        lambda: not Path(f"/proc/{job}").exists() or " Z " in Path(f"/proc/{job}/stat").read_text(),
        60,
    )
