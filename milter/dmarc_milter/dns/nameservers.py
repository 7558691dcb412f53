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

from dmarc_milter.config.checks import nameserver
from dmarc_milter.dns.wire import opt_flags

RECHECK = 1.0  # seconds between two looks at the file
SUSPICION = 30.0  # seconds for which a silent server is asked last
# Seconds for which a server that understood only queries without OPT is sent no other (RFC 6891
# 6.2.2).
PLAIN = 900.0
SURE = 3600.0  # seconds for which one answer with OPT proves that a server understands it
LOOK_AGAIN = 60.0  # seconds between two looks for that proof


class Server:
    """One name server. Until `suspect_until` (seconds, monotonic) others are asked first;
    `heard_at` is when it last answered."""

    __slots__ = (
        "_opt_seen",
        "_plain_until",
        "address",
        "family",
        "heard_at",
        "suspect_until",
        "text",
    )

    def __init__(self, host: str, port: int) -> None:
        info = socket.getaddrinfo(
            host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )[0]
        self.family: socket.AddressFamily = info[0]
        self.address: Any = info[4]
        self.text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.suspect_until = self.heard_at = 0.0
        self._plain_until = 0.0
        self._opt_seen = -SURE

    def heard(self, now: float) -> None:
        """It has answered something."""
        self.heard_at, self.suspect_until = now, 0.0

    def missed(self, begun: float, now: float) -> None:
        """It has not answered what it was asked at `begun`. That makes it suspect only if it has
        answered nothing at all since then: any sender can have a name for which nobody answers, and
        it says nothing about the server."""
        if self.heard_at < begun:
            self.suspect_until = now + SUSPICION

    def is_asked_plainly(self, now: float) -> bool:
        """Whether queries to it go without OPT for the time being."""
        return now < self._plain_until

    def knows_opt(self, now: float) -> bool:
        """Whether it has answered with OPT lately: what looks otherwise is then about one question,
        not about the server."""
        return now - self._opt_seen < SURE

    def answered(self, packet: bytes, now: float, *, edns: bool, instead: bool) -> None:
        """A good answer came, to a query with OPT or without, the latter perhaps `instead` of one
        with it.

        Only that proves what the server understands: an error alone may be forged, or be the doing
        of one name.
        """
        self.heard(now)
        if edns and now - self._opt_seen >= LOOK_AGAIN and opt_flags(packet) is not None:
            self._opt_seen = now
        elif instead and not self.knows_opt(now):
            self._plain_until = now + PLAIN


class Nameservers:
    """The servers in the order in which they are to be asked."""

    def __init__(self, configured: Sequence[str], resolv_conf: Path) -> None:
        self._servers = tuple(Server(*nameserver(text)) for text in configured)
        self._file = None if configured else resolv_conf
        self._seen: tuple[int, ...] = ()
        self._look_again = 0.0

    def current(self, now: float) -> tuple[Server, ...]:
        """Healthy ones first, as written; of suspects first who answered last. Empty when there is
        none. `now`: seconds, monotonic."""
        if self._file is not None and now >= self._look_again:
            self._look_again = now + RECHECK
            self._read(self._file)
        servers = self._servers
        if len(servers) > 1 and any(server.suspect_until > now for server in servers):
            return tuple(
                sorted(
                    servers,
                    key=lambda server: (server.suspect_until > now) * (1 + now - server.heard_at),
                )
            )
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
    """The servers of a resolv.conf; its search list is never used. Empty when there is none or it
    cannot be read."""
    reader = dns.resolver.Resolver(configure=False)
    with contextlib.suppress(OSError, UnicodeError, ValueError, dns.exception.DNSException):
        reader.read_resolv_conf(path)
    servers = []
    for text in reader.nameservers:
        with contextlib.suppress(OSError):
            servers.append(Server(str(text), 53))
    return servers
