"""What the host allows the service: descriptors, threads, memory; and whether that is enough for
what the configuration asks for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.config import Config
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.process import daemons

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
BUSY = 200
"""Messages under way in one worker: fewer threads than for so many are worth a warning."""
OWN_THREADS = {"native": 4, "pymilter": 9}
"""Of a worker before the first connection: process, log, spool, and what libmilter has; and one
that is started to look whether one can be had."""
BESIDE = 10
"""Processes and threads beside the workers: supervisor, drain, reports, metrics, DNS check."""
MB = 1 << 20
WORKER_MEMORY, BESIDE_MEMORY = 100 * MB, 150 * MB
ADDRESSES = {"native": 1024 * MB, "pymilter": 4096 * MB}
"""Address space that a worker takes, most of which is never memory: stacks of threads."""


class HostLimits(NamedTuple):
    """Of one process; None: there is none. `threads` are all of the account's, or of the container
    or unit."""

    descriptors: int | None = None
    threads: int | None = None
    addresses: int | None = None
    memory: int | None = None


def connections_for(descriptors: int) -> int:
    """MTA connections that so many descriptors of a worker allow: look-ups, spool and log need some
    too."""
    return max(4, min(descriptors // 2, descriptors - 40))


def workers_of(config: Config) -> int:
    """As configured; 0 is one for each CPU that we may use."""
    return config.milter.workers or max(1, len(os.sched_getaffinity(0)))


def read(pid: int | str = "self", proc: Path = PROC, cgroups: Path = CGROUPS) -> HostLimits:
    """The limits of a process, as far as they can be read."""
    soft = dict(_soft(_text(proc / str(pid) / "limits")))
    root = re.search(r"^Uid:\s+0\s", _text(proc / str(pid) / "status"), re.MULTILINE)
    groups = list(_groups(_text(proc / str(pid) / "cgroup"), cgroups))
    threads = _least(groups, "pids.max")
    if not root:  # RLIMIT_NPROC binds nobody else
        threads = min(filter(None, (threads, soft.get("processes"))), default=None)
    return HostLimits(
        soft.get("open files"),
        threads,
        soft.get("address space"),
        _least(groups, "memory.max", "memory.limit_in_bytes"),
    )


def of_service(config: Path, proc: Path = PROC) -> HostLimits | None:
    """The limits of a worker that serves with this file; None where none does, or none can be
    looked at."""
    for path in proc.glob("[0-9]*/comm"):
        if _text(path).strip() != "dmarc-worker" or not _text(path.with_name("limits")):
            continue
        if daemons.serves(int(path.parent.name), config, proc):
            return read(path.parent.name, proc)
    return None


def findings(
    config: Config, limits: HostLimits, unit: Callable[[str], str] = lambda _: ""
) -> Iterator[Finding]:
    """What is too little. Nothing where all is enough. `unit`: the command that adds a line to the
    service's unit; "" where there is none."""
    workers, library = workers_of(config), config.milter.library
    wanted = config.milter.max_connections
    if limits.descriptors is not None and (most := connections_for(limits.descriptors)) < wanted:
        line = f"LimitNOFILE={2 * wanted + 80}"
        yield Finding(
            "warning",
            "limits",
            f"{limits.descriptors} open files: a worker serves {most} connections, not the"
            f" {wanted} of [milter] max_connections; more are answered 451",
            unit(line) or f"{line} in the unit, or `ulimit -n`",
        )
    messages = min(BUSY, wanted) if library == "pymilter" else 0
    threads = BESIDE + workers * (OWN_THREADS[library] + messages)
    if limits.threads is not None and limits.threads < threads:
        yield Finding(
            "warning",
            "limits",
            f"{limits.threads} processes and threads: {workers} workers want {threads}; connections"
            " without one are answered 451",
            unit(f"TasksMax={threads}")
            or "TasksMax= in the unit, the container's pids limit, or `ulimit -u`"
            + (', or [milter] library = "native", which needs few' if messages else ""),
        )
    memory = BESIDE_MEMORY + workers * WORKER_MEMORY
    if limits.memory is not None and limits.memory < memory:
        yield Finding(
            "warning",
            "limits",
            f"{limits.memory // MB} MB of memory: {workers} workers may want {memory // MB}",
            unit(f"MemoryMax={memory // MB}M")
            or "MemoryMax= in the unit, the container's memory, or fewer [milter] workers",
        )
    if limits.addresses is not None and limits.addresses < ADDRESSES[library]:
        yield Finding(
            "warning",
            "limits",
            f"{limits.addresses // MB} MB of address space: a worker may want"
            f" {ADDRESSES[library] // MB}",
            unit("LimitAS=infinity")
            or "no `ulimit -v` (LimitAS=): MemoryMax= limits memory instead",
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _soft(text: str) -> Iterator[tuple[str, int]]:
    """Of /proc/PID/limits (proc(5)): name without "Max", soft limit."""
    for name, soft in re.findall(r"^Max (\S+(?: \S+)*) {2,}(\d+) ", text, re.MULTILINE):
        yield name, int(soft)


def _groups(text: str, cgroups: Path) -> Iterator[Path]:
    """The control groups of a process, and those above: of version 2 and of each controller of
    version 1 (cgroups(7))."""
    for controllers, path in re.findall(r"^\d+:([^:]*):(.*)$", text, re.MULTILINE):
        root = cgroups / controllers if controllers else cgroups
        place = root / path.lstrip("/")
        while place.is_relative_to(root) and ".." not in place.parts:
            yield place
            place = place.parent


def _least(groups: list[Path], *names: str) -> int | None:
    """The smallest of these files; a limit that nobody set is `max`, or more than any memory."""
    found = (_text(place / name).strip() for place in groups for name in names)
    return min((int(each) for each in found if each.isdecimal() and len(each) < 16), default=None)
