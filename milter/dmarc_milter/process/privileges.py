"""Who the daemon runs as, and how far its socket reaches: root's privileges given up, or said to be
there for nothing."""

from __future__ import annotations

import os
import pwd

from dmarc_milter.config import Config, ConfigError
from dmarc_milter.config.checks import socket_address


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
    try:
        os.initgroups(name, entry.pw_gid)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except OSError as error:
        raise CannotDropPrivileges(
            f"[milter] user: cannot become {name}: {error.strerror}"
        ) from None


def warnings(config: Config) -> tuple[str, ...]:
    """Lines for the start: what is more than the daemon needs."""
    found = []
    if os.geteuid() == 0:
        found.append(
            "warning: runs as root, which it has no need of: set [milter] user, or start it by its"
            " systemd unit"
        )
    address = socket_address(config.milter.socket)
    if address.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        found.append(
            f"warning: {config.milter.socket} listens on all addresses: whoever reaches that port"
            " can speak to the milter"
        )
    return tuple(found)
