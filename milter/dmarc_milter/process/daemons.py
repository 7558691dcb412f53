"""The daemons that run here, as /proc shows them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dmarc_milter.config.instance import config_option
from dmarc_milter.config.load import CONFIG_VARIABLE, DEFAULT_PATH

PROC = Path("/proc")


def pids(proc: Path = PROC) -> Iterator[int]:
    """Of all processes."""
    return (int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())


def parent(pid: int, proc: Path = PROC) -> int:
    """0 where it is not known."""
    try:
        return int((proc / f"{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def serves(pid: int, config: Path, proc: Path = PROC) -> bool:
    """Whether it is a `dmarc-milter serve` with this file, or a process that such a one has made
    by itself."""
    try:
        arguments = os.fsdecode((proc / f"{pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return False
    program = any(Path(word).name in ("dmarc-milter", "dmarc_milter") for word in arguments[:4])
    if not program or "serve" not in arguments:
        return False
    named = config_option(arguments) or _variable(pid, proc) or str(DEFAULT_PATH)
    return os.path.realpath(named) == os.path.realpath(config)


def _variable(pid: int, proc: Path) -> str:
    """What its environment names; "" where that cannot be read."""
    try:
        held = os.fsdecode((proc / f"{pid}/environ").read_bytes()).split("\0")
    except OSError:
        return ""
    return next(
        (one.partition("=")[2] for one in held if one.startswith(f"{CONFIG_VARIABLE}=")), ""
    )
