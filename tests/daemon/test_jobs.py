"""The jobs beside the workers: the spool is drained while the daemon runs, through deaths, reloads
and the end."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmarc_milter.daemon.jobs import Job, JobRunner
from dmarc_milter.ledger.spool.spool import Spool
from dmarc_milter.telemetry.log import Log
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
    return [pid for pid, name in daemon.children().items() if name == "dmarc-drain"]


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
    """docs/design.md, Processes and loops: a job of its own; killed, it is started again."""
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


def open_files(pid: int | str) -> set[str]:
    """What the process has open besides the standard streams: sockets, pipes, paths."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if int(link.name) > 2:
                found.add(os.readlink(link))
    return found


def test_a_job_holds_nothing_of_the_supervisors(daemon: Daemon) -> None:
    """Forked, it would keep the MTA's socket and the workers' control sockets open past the end of
    the daemon. The supervisor forks from its only thread."""
    assert wait_for(lambda: len(jobs(daemon)) == 1, 60)
    [job] = jobs(daemon)
    assert daemon.process is not None
    supervisor = daemon.process.pid
    assert wait_for(lambda: any("spool" in name for name in open_files(job)), 60)
    assert open_files(supervisor)
    assert not open_files(supervisor) & open_files(job)
    assert os.listdir(f"/proc/{supervisor}/task") == [str(supervisor)]
    assert all(os.readlink(f"/proc/{job}/fd/{number}") == os.devnull for number in (0, 1))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT))


def run_once(work: Callable[[], int], log: Log) -> None:
    """Until the job has ended, and that is noted."""
    runner = JobRunner([Job("work", work, 3600.0)], log)
    runner.tend(0.0)
    assert wait_for(lambda: runner.tend(1.0) or not runner.running(), 20)


def test_a_jobs_exit_code_is_logged_and_an_exception_is_shown(
    tmp_path: Path,
    log: Log,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """docs/design.md, Processes and loops: a job that fails is logged once."""
    # What pytest puts there writes to a descriptor that a job closes.
    monkeypatch.setattr(sys, "stdout", open(1, "w", closefd=False))  # noqa: SIM115
    monkeypatch.setattr(sys, "stderr", open(2, "w", closefd=False))  # noqa: SIM115

    def broken() -> int:
        print("for nobody")
        raise ValueError("a bug")

    run_once(lambda: 75, log)
    run_once(broken, log)
    run_once(lambda: 0, log)
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.partition("exit=")[2].split()[0] for line in lines] == ["75", "1"]
    shown = capfd.readouterr()
    assert "ValueError: a bug" in shown.err
    assert "for nobody" not in shown.out


def test_what_a_job_needs_is_loaded_before_it_is_forked(log: Log) -> None:
    """So that the next run finds it loaded. What cannot be loaded is a job that failed."""
    loaded = []

    def missing() -> None:
        raise ImportError("no such module")

    runner = JobRunner(
        [
            Job("work", lambda: len(loaded) - 1, 3600.0, lambda: loaded.append(1)),
            Job("broken", lambda: 0, 3600.0, missing),
        ],
        log,
    )
    runner.tend(0.0)
    assert wait_for(lambda: runner.tend(1.0) or not runner.running(), 20)
    assert loaded == [1]


def test_a_job_that_ignores_the_end_is_killed(log: Log) -> None:
    """docs/design.md, Processes and loops: every job may die at any moment without loss."""

    def stubborn() -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
        return 0

    runner = JobRunner([Job("work", stubborn, 3600.0)], log)
    runner.tend(0.0)
    [pid] = runner.running()
    runner.stop(0.3)
    assert not Path(f"/proc/{pid}").exists()
    assert not runner.running()
