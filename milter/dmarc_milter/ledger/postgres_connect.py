"""A connection to PostgreSQL within a bounded time.

libpq's connect_timeout is for one address after its name was resolved. A name server that is
silent, or several servers of one URL that are, take a multiple of it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]


def hosts_of(url: str) -> int:
    """How many servers a URL names."""
    return urlsplit(url).netloc.rpartition("@")[2].count(",") + 1


def shut(connection: Connection) -> None:
    """End a connection from another thread: whoever waits for its socket sees the end of it."""
    with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as sock:
        sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def cut_after(seconds: float, connection: Connection) -> Iterator[None]:
    """Whatever the block waits for ends then; no thread is left behind."""
    timer = threading.Timer(seconds, shut, (connection,))
    timer.daemon = True
    with suppress(RuntimeError):  # no thread to be had: then without this bound
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()


class _Attempt:
    """One attempt, in a thread that may outlive the waiting for it."""

    def __init__(self, url: str, parameters: dict[str, Any]) -> None:
        self._url, self._parameters = url, parameters
        self._mutex, self._given_up = threading.Lock(), False
        self.ended = threading.Event()
        self.connection: Connection | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        import psycopg

        try:
            connection = psycopg.connect(self._url, **self._parameters)
        except Exception as error:
            self.error = error
        else:
            with self._mutex:
                if self._given_up:
                    with suppress(Exception):
                        connection.close()
                else:
                    self.connection = connection
        self.ended.set()

    def give_up(self) -> Connection | None:
        """What came at the last moment, else nothing: what comes later is closed."""
        with self._mutex:
            self._given_up = True
            return self.connection


def connect_within(seconds: float, url: str, **parameters: Any) -> Connection | None:
    """The connection, or None when it takes longer. Raises psycopg.Error."""
    attempt = _Attempt(url, parameters)
    try:
        threading.Thread(target=attempt.run, name="store", daemon=True).start()
    except RuntimeError:  # no thread to be had: then without this bound
        attempt.run()
    if not attempt.ended.wait(seconds):
        return attempt.give_up()
    if attempt.error is not None:
        raise attempt.error
    return attempt.connection
