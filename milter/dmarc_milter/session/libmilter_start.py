"""Starting libmilter: whether it can be used here at all, its loop in a thread of its own, and the
listening socket that it is given."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from Milter import milter  # the C module: by its own name mypy would find the source root

MAX_DATA = 1 << 20
"""Octets of one packet from the MTA. libmilter's own 64 KiB would drop the connection at a larger
header field."""
THREADS, POOL_THREADS = 2, 5
"""Threads that libmilter has before the first connection: listener and signals; in a build with a
pool its controller and two that serve."""
TOO_LITTLE = (
    "it found too few threads, descriptors or memory; raise TasksMax=, LimitNOFILE= of the unit,"
    ' the container\'s limits or `ulimit -u`, or set [milter] library = "native", which needs fewer'
)
STARTING = 2.0
"""Seconds that they have to begin; where there are fewer in another build, it goes on all the
same."""


class CannotServe(Exception):
    """`str()` is one line: why libmilter cannot be used here."""


def check_platform() -> None:
    """Raises CannotServe where the process would crash (Python 3.14 or later with a libmilter that
    pools its threads)."""
    if sys.version_info >= (3, 14) and hasattr(_library(), "mi_pool_controller_init"):
        raise CannotServe(
            f"Python {sys.version_info.major}.{sys.version_info.minor} crashes with this libmilter"
            " (built with a thread pool)"
        )


class Main:
    """libmilter's own loop, which is never expected to return, in a daemon thread: on the main
    thread it would take the signals."""

    def __init__(self) -> None:
        """Raises CannotServe, RuntimeError, where a thread of it cannot be had."""
        self.ended = ""
        """Why it has ended, one plain line."""
        pool = hasattr(_library(), "mi_pool_controller_init")
        wanted = _threads() + (POOL_THREADS if pool else THREADS)
        threading.Thread(target=self._run, name="libmilter", daemon=True).start()
        until = time.monotonic() + STARTING
        while _threads() < wanted and not self.ended and time.monotonic() < until:
            time.sleep(0.002)
        if self.ended:
            raise CannotServe(self.ended)

    def _run(self) -> None:
        try:
            milter.main()
            self.ended = "libmilter has ended"
        except BaseException as error:
            self.ended = f"libmilter: {error}: {TOO_LITTLE}"


def _threads() -> int:
    """Of this process."""
    return len(os.listdir("/proc/self/task"))


def start(sock: socket.socket, timeout: float) -> tuple[int, Main]:
    """Start libmilter on a listening socket.

    The Callbacks must be registered. The socket is libmilter's afterwards; the answer is the
    descriptor that it listens on: to drain, put another socket in its place. Raises CannotServe,
    RuntimeError.
    """
    _library().smfi_setmaxdatasize(ctypes.c_size_t(MAX_DATA))
    milter.settimeout(max(1, int(timeout)))
    try:
        milter.setconn(f"fd:{sock.fileno()}")
        milter.opensocket(False)
        number = sock.detach()
    except milter.error:
        number = _open_by_replacement(sock)
    return number, Main()


def _open_by_replacement(sock: socket.socket) -> int:
    """For a libmilter that does not know `fd:` (only Debian's and Fedora's do): let it open a
    socket and put ours in its place."""
    before = _sockets()
    with tempfile.TemporaryDirectory(prefix="dmarc-milter-") as folder:
        match sock.family:
            case socket.AF_UNIX:
                place = f"unix:{folder}/s"
            case socket.AF_INET6:
                place = "inet6:0@[::1]"
            case _:
                place = "inet:0@[127.0.0.1]"
        try:
            milter.setconn(place)
            milter.opensocket(False)
        except milter.error as error:
            raise CannotServe(f"libmilter cannot open a socket: {error}") from None
        opened = _sockets() - before
        if len(opened) != 1:
            raise CannotServe("cannot tell which socket libmilter opened")
        number = opened.pop()
        os.dup2(sock.fileno(), number)
        sock.close()
        return number


def _sockets() -> set[int]:
    """The numbers of this process's open sockets."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(entry).startswith("socket:"):
                found.add(int(entry.name))
    return found


def _library() -> ctypes.CDLL:
    """libmilter's own symbols, found through pymilter's module, which is linked with it."""
    return ctypes.CDLL(milter.__file__)
