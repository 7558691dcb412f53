"""/metrics, /healthz and /readyz, served by a process of its own: requests cannot disturb mail or
the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace

from dmarc_milter.config import Config
from dmarc_milter.config.checks import SocketAddress, metrics_address
from dmarc_milter.config.paths import spool_path
from dmarc_milter.core.stored import UnreadableFacts, decode
from dmarc_milter.daemon.http import HttpServer, Page
from dmarc_milter.ledger.connect import database_of
from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.spool.reader import SpoolReader
from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.database import Database, fetch
from dmarc_milter.ledger.store.status import check_writable, size
from dmarc_milter.process import sockets
from dmarc_milter.process.back_off import BackOff
from dmarc_milter.process.child import Child, detach_from_supervisor, fork
from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.telemetry.counters import INDEX
from dmarc_milter.telemetry.log import Log
from dmarc_milter.telemetry.prometheus import (
    CONTENT_TYPE,
    StorageStatus,
    WorkerReading,
    metrics_text,
)

STORAGE_EVERY = 10.0
"""Seconds between readings of spool and store."""
STALLED = 10.0
"""Seconds without a heartbeat after which /healthz says that the supervisor hangs."""
RESTART_PAUSE = 2.0
"""Seconds before the process is started again, doubled each time: a host at its limits gets no line
every two seconds."""
LONGEST_PAUSE = 60.0
"""The longest of these; a process that lived longer is one that worked."""


class MetricsServer:
    """The supervisor's side: opens the socket, keeps the process alive. Only `stop` waits."""

    def __init__(self, shared_memory: SharedMemory) -> None:
        self._shared_memory = shared_memory
        self._sock: socket.socket | None = None
        self._address: SocketAddress | None = None
        self._config: Config | None = None
        self._child: Child | None = None
        self._back_off = BackOff(RESTART_PAUSE, LONGEST_PAUSE)
        self._started = 0.0

    def prepare(self, config: Config) -> Callable[[Log], None]:
        """Open the socket if it is not the same as before. The result, when called, makes the
        change. Raises CannotListen."""
        address = metrics_address(config.metrics.listen)
        same = address == self._address
        sock = (
            self._sock if same else None if address is None else sockets.listen(address, mode=0o600)
        )

        def adopt(log: Log) -> None:
            self._end()
            if not same and self._sock is not None and self._address is not None:
                sockets.close(self._sock, self._address)
            self._config, self._sock, self._address = config, sock, address
            self._back_off.reset()
            if address is not None and not _is_local(address):
                log.warning(
                    "metrics",
                    text=(
                        f"{sockets.describe(address)} can be reached from the network: there is no"
                        " password"
                    ),
                )

        return adopt

    def tend(self, now: float, log: Log) -> None:
        """Start the process, or start it again."""
        if self._child is not None and self._child.poll() is not None:
            log.error("metrics_died", pid=self._child.pid)
            self._child = None
            if now - self._started > LONGEST_PAUSE:
                self._back_off.reset()
            self._back_off.failed(now)
        if (
            self._sock is not None
            and self._config is not None
            and self._child is None
            and self._back_off.is_over(now)
        ):
            sock, config = self._sock, self._config
            try:
                self._child = fork(lambda: _run_child(sock, self._shared_memory, config))
            except OSError as error:
                log.error("no_process", failure=error.strerror or str(error))
                self._back_off.failed(now)
            else:
                self._started = now

    def stop(self) -> None:
        """End the process and close the socket."""
        self._end()
        if self._sock is not None and self._address is not None:
            sockets.close(self._sock, self._address)
        self._sock = self._address = self._config = None

    def disown(self) -> None:
        """In a forked worker: close what is the supervisor's."""
        if self._sock is not None:
            self._sock.close()

    def _end(self) -> None:
        """Kill the process: it holds nothing that could be lost."""
        if self._child is not None:
            self._child.end()
            self._child = None


def _is_local(address: SocketAddress) -> bool:
    if address.family == "unix" or address.host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address.host).is_loopback
    return False


def _run_child(sock: socket.socket, shared_memory: SharedMemory, config: Config) -> None:
    """In the child. Nothing of the supervisor's stays open but the socket and the shared memory."""
    parent = os.getppid()
    detach_from_supervisor("dmarc-metrics", sock.fileno())
    # Whoever ends the daemon may send this to all of its processes: the supervisor ends this one.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asyncio.run(_Process(shared_memory, config, parent).run(sock))


class _Process:
    """The child."""

    def __init__(self, shared_memory: SharedMemory, config: Config, parent: int) -> None:
        self._shared_memory, self._config, self._parent = shared_memory, config, parent
        self._storage = StorageStatus()
        self._reader = StorageReader(config)

    async def run(self, sock: socket.socket) -> None:
        pages = {"/metrics": self._metrics, "/healthz": self._health, "/readyz": self._ready}
        reading = [
            asyncio.create_task(self._keep_reading(read))
            for read in (self._reader.spool, self._reader.store)
        ]
        serving = asyncio.create_task(HttpServer(pages).serve(sock))
        while os.getppid() == self._parent and not serving.done():  # noqa: ASYNC110 - nothing tells of a parent's end
            await asyncio.sleep(0.5)
        for task in reading:
            task.cancel()
        serving.cancel()
        os._exit(0)  # without waiting for a reading of the store

    async def _keep_reading(self, read: Callable[[StorageStatus], StorageStatus]) -> None:
        """Spool and store by turns of their own: each changes its part of what is shown."""
        while True:
            before = self._storage
            found = await asyncio.to_thread(read, before)
            changed = {
                field.name: getattr(found, field.name)
                for field in fields(found)
                if getattr(found, field.name) != getattr(before, field.name)
            }
            self._storage = replace(self._storage, **changed)
            await asyncio.sleep(STORAGE_EVERY)

    def _metrics(self) -> Page:
        reading = WorkerReading(
            self._shared_memory.totals(),
            self._shared_memory.sessions(),
            self._config.policy.enforce,
            self._storage,
        )
        return Page(200, metrics_text(reading), CONTENT_TYPE)

    def _health(self) -> Page:
        age = time.monotonic() - self._shared_memory.own.heartbeat
        return (
            Page(200, b"ok\n")
            if age < STALLED
            else Page(503, b"the supervisor shows no sign of life\n")
        )

    def _ready(self) -> Page:
        counters = self._shared_memory.own.counters
        if not counters[INDEX["workers_ready"]] or self._health().status != 200:
            return Page(503, b"no worker serves\n")
        return (
            Page(503, b"no name server can be used\n")
            if counters[INDEX["dns_down"]]
            else Page(200, b"ready\n")
        )


class StorageReader:
    """Reads the state of spool and store, each by itself: the spool is read however long the store
    takes. Each method is called from one thread at a time and never raises."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._database: Database | None = None
        self._identity = ""

    def spool(self, before: StorageStatus) -> StorageStatus:
        """`before` with what the spool says now."""
        try:
            return self._spool(before)
        except (SpoolError, OSError, UnreadableFacts):
            return replace(before, spool_messages=None, spool_octets=None, spool_oldest=None)

    def store(self, before: StorageStatus) -> StorageStatus:
        """`before` with what the store says now; where it says nothing, what it said last of when
        it was drained."""
        try:
            last_drained, lost, reports = self._store()
        except Exception:
            return replace(before, store_up=False)
        return replace(
            before, store_up=True, last_drained=last_drained, store_lost=lost, reports=reports
        )

    def _spool(self, before: StorageStatus) -> StorageStatus:
        path = spool_path(self._config)
        if not path.exists():
            return replace(before, spool_messages=0, spool_octets=0, spool_oldest=None)
        with closing(SpoolReader(path)) as file:
            self._identity = file.identity()
            waiting, rows = file.waiting(), file.rows(0, 1)
        at = int(decode(rows[0][1].facts).at) if rows else None
        return replace(before, spool_messages=waiting, spool_octets=size(path), spool_oldest=at)

    def _store(self) -> tuple[int, int, dict[str, int]]:
        if self._database is None:
            self._database = database_of(self._config, Access.READ)
        schema.check(self._database)
        check_writable(self._database)
        drained = fetch(
            self._database,
            "SELECT coalesce(max(drained_at), 0) FROM origin WHERE identity = ?",
            (self._identity,),
        )[0][0]
        lost = fetch(self._database, "SELECT coalesce(sum(lost), 0) FROM origin")[0][0]
        states = fetch(self._database, "SELECT state, count(*) FROM report GROUP BY state")
        return int(drained), int(lost), {str(state): int(number) for state, number in states}
