"""Drops root's privileges, and warns where the daemon has more than it needs."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from dmarc_milter.config import Config, ConfigError
from dmarc_milter.config.checks import socket_address
from dmarc_milter.process import pid_one


class CannotDropPrivileges(Exception):
    """We may not become that account. `str()` is one line."""


def drop_privileges(name: str) -> None:
    """Give up root for that account and its groups, for good; nothing where it is "" or ours
    already. Raises ConfigError, CannotBecome."""
    if not name:
        return
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"[milter] user: there is no account {name}") from None
    if os.geteuid() == entry.pw_uid:
        return
    bond = pid_one.bond()
    try:
        os.initgroups(name, entry.pw_gid)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except OSError as error:
        raise CannotDropPrivileges(
            f"[milter] user: cannot become {name}: {error.strerror}"
        ) from None
    pid_one.bind_again(bond)


def warnings(config: Config) -> tuple[str, ...]:
    """Lines for the start: what is more than the daemon needs."""
    lines = []
    if os.geteuid() == 0:
        lines.append(
            "warning: runs as root, which it has no need of: set [milter] user, or start it by its"
            " systemd unit"
        )
    address = socket_address(config.milter.socket)
    if address.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        lines.append(
            f"warning: {config.milter.socket} listens on all addresses: whoever reaches that port"
            " can speak to the milter"
        )
    if address.family == "unix":
        folder = Path(os.path.realpath(Path(address.path).parent))
        if _is_for_all(folder):
            lines.append(
                f"warning: everybody can write to {folder} and so put another socket in the place"
                f" of {config.milter.socket}: chmod o-w {folder}"
            )
    return tuple(lines)


def _is_for_all(folder: Path) -> bool:
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX
