"""The name servers to ask: as configured, or as /etc/resolv.conf says at the moment."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dns.exception
import dns.resolver

from dmarc_milter.edge.config.values import nameserver

RECHECK = 1.0  # seconds between two looks at the file
SUSPICION = 30.0  # seconds for which a silent server is asked last


class Server:
    """One name server. Until `suspect_until` (seconds, monotonic) others are asked first."""

    __slots__ = ("address", "family", "suspect_until", "text")

    def __init__(self, host: str, port: int) -> None:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)[0]
        self.family: socket.AddressFamily = info[0]
        self.address: Any = info[4]
        self.text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.suspect_until = 0.0


class Nameservers:
    """The servers in the order in which they are to be asked."""

    def __init__(self, configured: Sequence[str], resolv_conf: Path) -> None:
        self._servers = tuple(Server(*nameserver(text)) for text in configured)
        self._file = None if configured else resolv_conf
        self._seen: tuple[int, ...] = ()
        self._look_again = 0.0

    def current(self, now: float) -> tuple[Server, ...]:
        """Healthy ones first, otherwise as written; empty when there is none. `now` in seconds, monotonic."""
        if self._file is not None and now >= self._look_again:
            self._look_again = now + RECHECK
            self._read(self._file)
        servers = self._servers
        if len(servers) > 1 and any(server.suspect_until > now for server in servers):
            return tuple(sorted(servers, key=lambda server: server.suspect_until > now))
        return servers

    def _read(self, path: Path) -> None:
        try:
            status = path.stat()
        except OSError:
            self._servers, self._seen = (), ()
            return
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if seen == self._seen:
            return
        self._seen = seen
        self._servers = tuple(read_resolv_conf(path))


def read_resolv_conf(path: os.PathLike[str]) -> list[Server]:
    """The servers of a resolv.conf; its search list is never used. Empty when there is none or it cannot be read."""
    reader = dns.resolver.Resolver(configure=False)
    with contextlib.suppress(OSError, UnicodeError, ValueError, dns.exception.DNSException):
        reader.read_resolv_conf(path)
    servers = []
    for text in reader.nameservers:
        with contextlib.suppress(OSError):
            servers.append(Server(str(text), 53))
    return servers
