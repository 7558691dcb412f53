"""The daemon as the first process of a container: whatever loses its parent is reaped (OPS-14)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.daemon import ROOT, Daemon, wait_for
from fakes.dns_server import DnsServer

ORPHANS = 3
# Processes of a shell that has ended come to whoever reaps orphans, before the daemon takes this
# process over.
BEFORE = f"""
import ctypes, os, sys
if sys.argv[1] == "subreaper":
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.system("for n in 1 2 {ORPHANS}; do sleep 1.$n & done")
serve = ["-m", "dmarc_milter", "serve", "--no-jobs", "--config", sys.argv[2]]
os.execv(sys.executable, [sys.executable, *serve])
"""


def processes(parent: int) -> dict[int, str]:
    """The children of a process, each with its state."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(ppid) == parent:
                found[int(entry.name)] = state
    return found


def can_unshare() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run(
            ["unshare", "--pid", "--fork", "true"], check=False, capture_output=True
        ).returncode
        == 0
    )


@pytest.fixture(params=["subreaper", "first process"])
def first(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Daemon, int]]:
    """A daemon that orphans come to, and its process id."""
    with DnsServer({"example.org": {}}) as dns:
        daemon = Daemon(
            tmp_path, {"dns": {"nameservers": [dns.nameserver]}, "milter": {"workers": 1}}
        )
        command = [sys.executable, "-c", textwrap.dedent(BEFORE), request.param, str(daemon.config)]
        if request.param == "first process":
            if not can_unshare():
                pytest.skip("no process namespace of our own is allowed here")
            command = ["unshare", "--pid", "--fork", "--kill-child", *command]
        paths = os.environ | {"PYTHONPATH": f"{ROOT / 'milter'}"}
        with (
            daemon.log.open("ab") as log,
            subprocess.Popen(
                command, stdout=log, stderr=log, env=paths, start_new_session=True
            ) as process,
        ):
            try:
                assert wait_for(lambda: daemon.events("ready"), 30), daemon.text()
                daemon.process = process
                yield (
                    daemon,
                    (
                        process.pid
                        if request.param == "subreaper"
                        else next(iter(processes(process.pid)))
                    ),
                )
            finally:
                process.kill()


def test_orphans_are_reaped_and_nothing_else(first: tuple[Daemon, int]) -> None:
    """The daemon itself and its workers are waited for by their own parents; signals are passed on,
    the exit code comes back."""
    daemon, pid = first
    assert daemon.process is not None
    assert wait_for(lambda: len(processes(pid)) == 1, 20), processes(pid)
    (supervisor,) = processes(pid)
    (worker,) = processes(supervisor)
    os.kill(worker, signal.SIGKILL)
    assert wait_for(lambda: daemon.events("worker_died") and len(processes(supervisor)) == 1), (
        "a worker's death is not noticed"
    )
    assert "Z" not in processes(pid).values()
    os.kill(pid, signal.SIGHUP)
    assert wait_for(lambda: daemon.events("reload"))
    os.kill(pid, signal.SIGTERM)
    assert daemon.process.wait(20) == 0


@pytest.mark.parametrize("first", ["subreaper"], indirect=True)
def test_the_container_ends_with_the_daemon(first: tuple[Daemon, int]) -> None:
    """However it ends: nothing may stay behind that looks as if it served."""
    daemon, pid = first
    assert daemon.process is not None
    os.kill(next(each for each in processes(pid) if processes(each)), signal.SIGKILL)
    assert daemon.process.wait(20) == 137


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another account")
def test_a_daemon_that_became_another_account_still_ends_with_its_parent() -> None:
    """CON-40: the kernel forgets the signal for that when the account changes (prctl(2))."""
    code = """if True:
        import os
        from dmarc_milter.process import pid_one, privileges
        pid_one._be_the_daemon(os.getppid())
        privileges.drop_privileges("nobody")
        print(pid_one.bond()[0], os.geteuid() != 0)
    """
    paths = os.environ | {"PYTHONPATH": f"{ROOT / 'milter'}"}
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=paths
    )
    assert said.stdout.split() == [str(int(signal.SIGTERM)), "True"]
