"""The daemon that runs with a configuration, if one does, as /proc shows it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from dmarc_milter.config import DEFAULT_PATH


def reload_daemon(config: Path) -> str:
    """Have it read its configuration again (SIGHUP); what came of it, as one sentence."""
    found = list(_supervisors(config))
    if not found:
        return "No daemon runs here with this configuration: it is read at the next start."
    for pid in found:
        try:
            os.kill(pid, signal.SIGHUP)
        except PermissionError:
            return f"The daemon belongs to another account: systemctl reload {unit(config)}"
        except ProcessLookupError:
            continue
    return "The daemon reads it now (`event=reload` in its log)."


def unit(config: Path) -> str:
    """The packaged unit that serves this configuration: one of several instances by its folder."""
    found = re.fullmatch(r"/etc/dmarc-milter-([\w.-]+)/dmarc-milter\.toml", os.path.abspath(config))
    return f"dmarc-milter@{found[1]}" if found else "dmarc-milter"


def _supervisors(config: Path) -> Iterator[int]:
    """Processes of `dmarc-milter serve` with this file that no other such process has made."""
    serving = {pid for pid in _pids() if _serves(_arguments(pid), config)}
    for pid in sorted(serving):
        if _parent(pid) not in serving:
            yield pid


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _arguments(pid: int) -> list[str]:
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _serves(arguments: list[str], config: Path) -> bool:
    program = any(Path(word).name in ("dmarc-milter", "dmarc_milter") for word in arguments[:4])
    if not program or "serve" not in arguments:
        return False
    named = str(DEFAULT_PATH)
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--config":
            named = following
        elif word.startswith("--config="):
            named = word.partition("=")[2]
    return os.path.realpath(named) == os.path.realpath(config)
