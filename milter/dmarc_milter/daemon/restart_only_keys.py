"""What a reload cannot change: keys that are read once, at the start or when the socket opens."""

from __future__ import annotations

from dmarc_milter.config import Config
from dmarc_milter.config.checks import socket_address

OF_A_UNIX_SOCKET = ("socket_mode", "socket_group")


def restart_only_keys(
    config: Config, *, started: Config, opened: Config, enough_workers: bool
) -> tuple[str, ...]:
    """Keys of `config` that take effect only after a restart: their values differ from those in
    `started`, or for the socket in `opened`."""
    keys = ["user"] if config.milter.user != started.milter.user else []
    if socket_address(config.milter.socket).family == "unix":
        keys += [
            key
            for key in OF_A_UNIX_SOCKET
            if getattr(config.milter, key) != getattr(opened.milter, key)
        ]
    if not enough_workers:
        keys.append("workers")
    return tuple(f"[milter] {key}" for key in keys)
