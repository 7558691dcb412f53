"""Writes to systemd's journal in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) where
standard error leads there."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""syslog(3)."""
PREFIX = "DMARC_"


def connect(fd: int, path: str = SOCKET) -> socket.socket | None:
    """A socket to the journal where `fd` is the stream that it gave us ($JOURNAL_STREAM,
    systemd.exec(5)); else None."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    with contextlib.suppress(OSError):
        found = os.fstat(fd)
        if (device, inode) != (str(found.st_dev), str(found.st_ino)):
            return None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            return None
        return sock
    return None


def entry(level: str, line: bytes, fields: Mapping[str, str]) -> bytes:
    """One datagram: the line as it would be printed, and each field by a name of its own,
    DMARC_EVENT, DMARC_FROM and so on.

    `line` and the values are printable ASCII, names lower-case ASCII with underscores.
    """
    parts = [
        b"MESSAGE=" + line,
        f"PRIORITY={PRIORITIES[level]}".encode(),
        b"SYSLOG_IDENTIFIER=dmarc-milter",
    ]
    parts += [
        f"{PREFIX}{name.upper()}={value}".encode("ascii", "replace")
        for name, value in fields.items()
        if value
    ]
    return b"\n".join(parts) + b"\n"
