"""A host of several that share a store, as a process: it drains, or stops dead (SIGSTOP, as a dying
machine would look to the server) before its N-th call to the store."""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from dmarc_milter.ledger.drain import Drained, drain
from dmarc_milter.ledger.postgres import PostgresDatabase
from dmarc_milter.ledger.spool.file import SpoolFile
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import evaluation
from fakes.stores import spool_row


def filled(path: Path, messages: int, *, domains: int = 7) -> SpoolFile:
    """A spool in which as many messages wait, of the same domains and sources on every host; each
    third may make a failure report."""
    file = SpoolFile(path)
    file.write(
        [
            spool_row(
                evaluation(f"d{n % domains}.example", source_ip=f"192.0.2.{n // domains % 200}"),
                b"From: x\r\n" if n % 3 == 0 else None,
            )
            for n in range(messages)
        ]
    )
    return file


def calls(url: str, path: Path) -> list[str]:
    """The statements of one drain of this spool, in order."""
    statements: list[str] = []
    with each_call(statements.append):
        assert drain_once(url, path).problem == ""
    return statements


@contextmanager
def each_call(hook: Callable[[str], object]) -> Iterator[None]:
    """`hook`, with the statement, goes before each call to a PostgreSQL store."""
    run = PostgresDatabase._run

    def hooked(
        self: PostgresDatabase, connection: Any, sql: str, *values: Any, seconds: float = 0
    ) -> Any:
        hook(sql)
        return run(self, connection, sql, *values, seconds=seconds)

    PostgresDatabase._run = hooked  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        PostgresDatabase._run = run  # type: ignore[method-assign]


def drain_once(url: str, path: Path) -> Drained:
    spool, store = SpoolFile(path), Store(connect(url))
    try:
        return drain(spool, store)
    finally:
        store.close()
        spool.close()


def forked(work: Callable[[], bool]) -> int:
    """The process id of a child that does this work and exits with 0 if it is true."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            code = 0 if work() else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def frozen(url: str, path: Path, before: int) -> int:
    """The process id of a host that has stopped before its call number `before` of a drain."""
    numbers = count()

    def stop(_sql: str) -> None:
        if next(numbers) == before:
            os.kill(os.getpid(), signal.SIGSTOP)

    def work() -> bool:
        with each_call(stop):
            return drain_once(url, path).problem == ""

    child = forked(work)
    _, status = os.waitpid(child, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"it ended, {status}, before call {before}"
    return child


def seconds_to_drain(url: str, path: Path) -> float:
    """How long another host takes, tries included, until its spool is empty."""
    begin = time.monotonic()
    while (drained := drain_once(url, path)).problem:
        assert time.monotonic() - begin < 60, drained
    return time.monotonic() - begin


def half_a_statement(database: PostgresDatabase) -> None:
    """Begin a transaction, lock what a drain locks, and send the first half of one more statement:
    a host that stopped in the middle of sending."""
    connection = database._begin("BEGIN")
    database._run(connection, "UPDATE origin SET host = 'frozen'")
    sock = socket.socket(fileno=os.dup(connection.fileno()))
    sock.sendall(b"Q" + (1000).to_bytes(4, "big") + b"INSERT INTO parked VALUES ('")
    sock.close()
