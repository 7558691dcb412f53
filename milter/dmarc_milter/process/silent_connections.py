"""The MTA's connections as the kernel has them: those that libmilter tells us nothing about too,
because they say nothing."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import stat
import termios
import time
from collections.abc import Iterator
from typing import Any

Identity = tuple[int, int]
"""Of a connection: device and inode. A descriptor's number is given to another once it is closed;
this is not."""

MAX_TRIED = 4096
"""Numbers of descriptors that are tried where the kernel cannot list them."""
_HEAD = (
    object.__basicsize__
)  # of a Python object: pymilter's context has libmilter's pointer next (milter_ContextObject)
_AFTER_ID = ctypes.sizeof(
    ctypes.c_ulong
)  # libmilter's context begins with a thread's id, then comes the socket (struct smfi_str)


class MilterConnections:
    """The listening socket, by what is known of the connections that came in through it. Safe in
    libmilter's threads."""

    def __init__(self, listening: socket.socket) -> None:
        self._address = listening.getsockname()
        self._family = listening.family

    @property
    def is_tcp(self) -> bool:
        """Whether it listens for TCP, not on a unix socket."""
        return self._family != socket.AF_UNIX

    def is_ours(self, handle: int) -> bool:
        """Whether the descriptor is a connection that came in here."""
        try:
            if not stat.S_ISSOCK(os.fstat(handle).st_mode):
                return False
            with _borrowed(handle) as found:
                listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                return (
                    found.family == self._family
                    and not listens
                    and self._leads_here(found.getsockname())
                )
        except OSError:
            return False

    def _leads_here(self, name: Any) -> bool:
        """A listener at a wildcard address gives connections the address that was called."""
        return bool(
            name == self._address or (isinstance(name, tuple) and name[1] == self._address[1])
        )

    def handle_of(self, context: object) -> int:
        """The descriptor of a session, which neither library gives away; -1 where it cannot be told
        for certain."""
        pointer = ctypes.c_void_p.from_address(id(context) + _HEAD).value
        handle = ctypes.c_int.from_address(pointer + _AFTER_ID).value if pointer else -1
        return handle if handle > 2 and self.is_ours(handle) else -1

    def all(self) -> set[int]:
        """The descriptors of all connections, silent ones too."""
        try:
            numbers = set(map(int, os.listdir("/proc/self/fd")))
        except OSError:  # that needs a descriptor, and none is left
            numbers = set(range(3, MAX_TRIED))
        return set(filter(self.is_ours, numbers))

    def identity(self, handle: int) -> Identity | None:
        """Which connection has this number now; None where none of ours has it."""
        try:
            found = os.fstat(handle)
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if self.is_ours(handle) else None

    def unread(self, handle: int) -> int:
        """How many octets have come in that nobody has read."""
        count = ctypes.c_int(0)
        with contextlib.suppress(OSError):
            fcntl.ioctl(handle, termios.FIONREAD, count)
        return count.value

    def duplicate(self, handle: int, identity: Identity) -> socket.socket | None:
        """The same connection as a socket of the caller's own; None where the number has become
        another's, or no descriptor is left."""
        try:
            mine = os.dup(handle)
        except OSError:
            return None
        if self.identity(mine) == identity:
            with contextlib.suppress(OSError):
                return socket.socket(fileno=mine)
        os.close(mine)
        return None

    def hang_up(self, handle: int, identity: Identity | None = None) -> bool:
        """End a connection: libmilter reads its end and closes it. Whether it was one, and that
        one."""
        identity = identity or self.identity(handle)
        # The number may be closed and given to something else at any moment: ours is not.
        mine = self.duplicate(handle, identity) if identity else None
        if mine is None:
            return False
        with mine, contextlib.suppress(OSError):  # ENOTCONN: it has ended already
            mine.shutdown(socket.SHUT_RDWR)
        return True

    def knock(self, times: int) -> None:
        """Connect and hang up, so often: where no thread of libmilter is free, each makes it start
        one more, and that goes on with a connection which waits."""
        for _ in range(times):
            with contextlib.suppress(OSError), socket.socket(self._family) as caller:
                caller.settimeout(0.1)
                caller.connect(self._address)


@contextlib.contextmanager
def _borrowed(handle: int) -> Iterator[socket.socket]:
    found = socket.socket(fileno=handle)
    try:
        yield found
    finally:
        found.detach()


class Strangers:
    """Connections that have not even negotiated, and since when each is known. `count` is that of
    the last look."""

    PART = 0.02  # of the time at most is spent looking
    EVERY = 0.25  # seconds at least from one look to the next
    PATIENCE = 0.2  # seconds after which a connection that waits to be read is forgotten
    MOST = 32  # knocks at one look

    def __init__(self, door: MilterConnections) -> None:
        self._door = door
        self.since: dict[int, float] = {}
        self.waiting: dict[int, float] = {}
        """Since when something waited to be read at each look, from anybody. It may have been read
        in between: enough to knock, not to give somebody up."""
        self._next = 0.0

    @property
    def count(self) -> int:
        return len(self.since)

    def look(self, known: set[int], busy: set[int], *, at_once: bool = False) -> bool:
        """Four times a second, less often where that takes long: which there are now. `known`:
        those that have negotiated; `busy`: those for which a thread is at work. Whether it has
        looked."""
        now = time.monotonic()
        if now < self._next and not at_once:
            return False
        there = self._door.all()
        self.since = {handle: self.since.get(handle, now) for handle in there - known}
        self._serve_forgotten(there, busy, now)
        self._next = now + max(self.EVERY, (time.monotonic() - now) / self.PART)
        return True

    def _serve_forgotten(self, there: set[int], busy: set[int], now: float) -> None:
        """libmilter gives several connections at once to one free thread, and starts no other while
        that one reads half a packet. The others, who have said something, would wait with it."""
        self.waiting = {
            handle: self.waiting.get(handle, now) for handle in there if self._door.unread(handle)
        }
        forgotten = sum(
            now - since >= self.PATIENCE and handle not in busy
            for handle, since in self.waiting.items()
        )
        self._door.knock(min(forgotten, self.MOST))
