"""The milter's listening sockets: the one in use, and those that reloads replaced."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

from dmarc_milter.config import Config
from dmarc_milter.config.checks import SocketAddress, socket_address
from dmarc_milter.process import sockets

RETIRED = 6.0
"""Seconds after which no worker has a socket any more that was replaced: a poll of libmilter's
keeps it for 5."""


@dataclass(slots=True)
class Listening:
    """A socket and what it was opened for."""

    sock: socket.socket
    text: str
    address: SocketAddress
    config: Config


def open_socket(config: Config) -> Listening:
    """Raises CannotListen, ConfigError."""
    address = socket_address(config.milter.socket)
    sock = sockets.listen(
        address, mode=int(config.milter.socket_mode, 8), group=config.milter.socket_group
    )
    return Listening(sock, sockets.describe(address), address, config)


class ListeningSockets:
    """`current` is in use. A replaced socket stays open until no worker can have it any more."""

    def __init__(self, current: Listening) -> None:
        self.current = current
        self._retired: list[tuple[float, Listening]] = []
        """Since when (seconds, monotonic), and the socket."""

    def all(self) -> tuple[Listening, ...]:
        """The one in use and the replaced ones."""
        return (self.current, *self.retired())

    def retired(self) -> tuple[Listening, ...]:
        """The replaced ones."""
        return tuple(listening for _, listening in self._retired)

    def wanted_by(self, config: Config) -> Listening:
        """One that is open already, however it is spelled, or a new one. Raises CannotListen."""
        open_ones = {listening.address: listening for listening in (*self.retired(), self.current)}
        return open_ones.get(socket_address(config.milter.socket)) or open_socket(config)

    def use(self, listening: Listening) -> None:
        """From now on this one; the former one retires."""
        self._retired = [entry for entry in self._retired if entry[1] is not listening]
        if listening is not self.current:
            self._retired.append((time.monotonic(), self.current))
            self.current = listening

    def still_in_use(self, now: float) -> None:
        """Old workers serve, so the replaced sockets' time begins only now."""
        self._retired = [(now, listening) for _, listening in self._retired]

    def close_retired(self, now: float) -> None:
        """Close those that no worker can have any more."""
        for since, listening in tuple(self._retired):
            if now - since > RETIRED:
                self._retired.remove((since, listening))
                sockets.close(listening.sock, listening.address)

    def close(self) -> None:
        """Close all."""
        for listening in self.all():
            sockets.close(listening.sock, listening.address)
