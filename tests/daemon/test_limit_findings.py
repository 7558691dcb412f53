"""FLT-15: what the host allows and what the configuration asks for; said at the start and
by doctor."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from dmarc_milter.checks.limits import MB, HostLimits, connections_for, findings, of_service, read
from dmarc_milter.config import Config
from dmarc_milter.config.schema import MilterSection
from fakes.daemon import Daemon

FEW_FILES = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
runpy.run_module("dmarc_milter", run_name="__main__")
"""


def config(library: str = "pymilter", *, workers: int = 2, connections: int = 1000) -> Config:
    return Config(
        milter=MilterSection(library=library, workers=workers, max_connections=connections)  # type: ignore[arg-type]
    )


def test_enough_of_everything_is_not_mentioned() -> None:
    for limits in (HostLimits(), HostLimits(65536, 16384, None, 8192 * MB)):
        assert not list(findings(config(), limits))


@pytest.mark.parametrize(
    ("limits", "what", "remedy"),
    [
        (HostLimits(descriptors=1024), "serves 512 connections", "LimitNOFILE=2080"),
        (HostLimits(threads=100), "2 workers want 428", "TasksMax="),
        (HostLimits(addresses=512 * MB), "512 MB of address space", "ulimit -v"),
        (HostLimits(memory=128 * MB), "128 MB of memory", "MemoryMax="),
    ],
)
def test_too_little_is_said_with_its_remedy(limits: HostLimits, what: str, remedy: str) -> None:
    (found,) = findings(config(), limits)
    assert found.level == "warning"
    assert what in found.text
    assert remedy in found.remedy


def test_our_own_protocol_needs_few_threads() -> None:
    """Its connections have none."""
    assert not list(findings(config("native"), HostLimits(threads=30)))
    assert list(findings(config("native"), HostLimits(threads=10)))


def test_a_worker_has_descriptors_for_more_than_connections() -> None:
    assert [connections_for(number) for number in (16, 64, 1024, 65536)] == [4, 24, 512, 32768]


def process(place: Path, *, uid: int, cgroup: str) -> Path:
    """/proc with one process."""
    folder = place / "proc/7"
    folder.mkdir(parents=True)
    (folder / "limits").write_text(
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max processes             400                  unlimited            processes \n"
        "Max open files            1024                 524288               files     \n"
        "Max address space         unlimited            unlimited            bytes     \n"
    )
    (folder / "status").write_text(f"Name:\tdmarc-worker\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
    (folder / "comm").write_text("dmarc-worker\n")
    (folder / "cgroup").write_text(cgroup)
    return place / "proc"


def test_the_smallest_limit_of_account_and_control_groups_counts(tmp_path: Path) -> None:
    """cgroups(7): a group above may allow less than the one that a process is in; `max` is none.
    Root is bound by no RLIMIT_NPROC (setrlimit(2))."""
    groups = tmp_path / "cgroup"
    inner = groups / "system.slice/dmarc-milter.service"
    inner.mkdir(parents=True)
    (inner / "pids.max").write_text("max\n")
    (inner.parent / "pids.max").write_text("512\n")
    (inner / "memory.max").write_text(f"{300 * MB}\n")
    cgroup = "0::/system.slice/dmarc-milter.service\n"
    assert read(7, process(tmp_path / "a", uid=990, cgroup=cgroup), groups) == HostLimits(
        1024, 400, None, 300 * MB
    )
    assert read(7, process(tmp_path / "b", uid=0, cgroup=cgroup), groups).threads == 512


def test_control_groups_of_version_1_are_read_too(tmp_path: Path) -> None:
    group = tmp_path / "cgroup/pids/docker/x"
    group.mkdir(parents=True)
    (group / "pids.max").write_text("64\n")
    proc = process(tmp_path, uid=0, cgroup="9:name=systemd:/\n8:pids:/docker/x\n7:cpu,cpuacct:/\n")
    assert read(7, proc, tmp_path / "cgroup").threads == 64


def test_nothing_is_said_where_nothing_can_be_read(tmp_path: Path) -> None:
    assert read(7, tmp_path, tmp_path) == HostLimits()
    assert of_service(tmp_path / "c.toml", tmp_path) is None


def test_our_own_limits_are_read() -> None:
    assert read().descriptors == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_lowered_limits_are_one_line_at_the_start(tmp_path: Path) -> None:
    """What it means, and the remedy."""
    daemon = Daemon(
        tmp_path,
        {"milter": {"workers": 1}},
        command=("-c", FEW_FILES, "serve", "--no-jobs", "--config"),
    )
    with daemon:
        (line,) = [each for each in daemon.lines() if "warning: limits: " in each]
    assert "256 open files: a worker serves 128 connections" in line
    assert "LimitNOFILE=" in line
