"""The daemon that runs with a configuration, if one does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from dmarc_milter.config.instance import instance
from dmarc_milter.process import daemons


def reload_daemon(config: Path) -> str:
    """Have it read its configuration again (SIGHUP); what came of it, as one sentence."""
    found = list(_supervisors(config))
    if not found:
        return "No daemon runs here with this configuration: it is read at the next start."
    for pid in found:
        try:
            os.kill(pid, signal.SIGHUP)
        except PermissionError:
            return f"The daemon belongs to another account: {_reload(config, pid)}"
        except ProcessLookupError:
            continue
    return "The daemon reads it now (`event=reload` in its log)."


def to_apply(config: Path) -> str:
    """How a change of the file comes into force, as one sentence."""
    found = list(_supervisors(config))
    if not instance(config).unit and not found:
        return "No daemon runs here with this configuration: it is read at the next start."
    return f"To apply it: {_reload(config, *found)} (or SIGHUP)"


def _reload(config: Path, *pids: int) -> str:
    """By the unit that serves this configuration, else by the process."""
    if unit := instance(config).unit:
        return f"systemctl reload {unit}"
    return f"sudo kill -HUP {' '.join(map(str, pids))}"


def _supervisors(config: Path) -> Iterator[int]:
    """Processes of `dmarc-milter serve` with this file that no other such process has made."""
    serving = {pid for pid in daemons.pids() if daemons.serves(pid, config)}
    for pid in sorted(serving):
        if daemons.parent(pid) not in serving:
            yield pid
