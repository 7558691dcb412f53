"""Which library speaks the milter protocol: pymilter where it is wanted, installed and able to
serve; else our own."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import WorkerSlot
from dmarc_milter.session.session import Session
from dmarc_milter.telemetry.log import Log

Library = Literal["pymilter", "native"]
MakeSession = Callable[[str], Session]
"""Makes the session of a new connection from the connection's name."""


class ConnectionLimits(NamedTuple):
    """What MTAs may ask of one worker."""

    connections: int = 1000
    silence: float = 300.0
    """Seconds without a whole packet, or with an answer that is not read."""


class Serving(NamedTuple):
    """What a milter server is made of. The listening socket is the server's from then on."""

    loop: Loop
    listening: socket.socket
    make_session: MakeSession
    slot: WorkerSlot
    """Where it counts its connections."""
    log: Log
    limits: ConnectionLimits
    takes_next: Callable[[], bool] = lambda: True
    """Whether the next connection is for this worker, not for one beside it."""


class MilterServer(Protocol):
    """All MTA connections of one worker; it serves from the moment that it is made."""

    @property
    def failure(self) -> str:
        """Why it serves no more and its worker should be replaced, one plain line; "" while it
        serves."""
        ...

    @property
    def worn_out(self) -> str:
        """Why its worker should be replaced once it has drained, one plain line: it still serves;
        "" where that is not so."""
        ...

    @property
    def forgotten(self) -> int:
        """Sessions that are open and will never end: no drain waits for them."""
        ...

    def tend(self) -> None:
        """Several times a second: hang up on those that are silent for too long or too many,
        say how many were not served."""
        ...

    def drain(self) -> None:
        """Take no more connections: they wait in the shared queue for another worker. Those that
        are open are served until they end."""
        ...


class Choice(NamedTuple):
    """`because`: why it is not the one that was wanted, a plain line; empty if it is."""

    library: Library
    because: str = ""


def choose(wanted: Library) -> Choice:
    """What serves here. pymilter is imported only if it is wanted."""
    if wanted == "native":
        return Choice("native")
    try:
        from dmarc_milter.session import libmilter_start
    except ImportError:
        return Choice("native", "pymilter is not installed")
    try:
        libmilter_start.check_platform()
    except libmilter_start.CannotServe as error:
        return Choice("native", str(error))
    return Choice("pymilter")


def serve(wanted: Library, serving: Serving) -> MilterServer:
    """Begin to serve. Raises for what makes that impossible; `str()` is one line."""
    if choose(wanted).library == "pymilter":
        from dmarc_milter.session.libmilter import PymilterServer

        return PymilterServer(serving)
    from dmarc_milter.session.native import NativeServer

    return NativeServer(serving)
