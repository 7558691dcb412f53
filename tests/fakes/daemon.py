"""The whole daemon as a process of its own, on a free port, with everything it writes in one
folder.

with Daemon(folder, {"dns": {"nameservers": [dns.nameserver]}}) as daemon:
    with daemon.client() as mta: ...
    daemon.log_lines(), daemon.workers(), daemon.spool, daemon.kill_worker(pid)
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from fakes.milter_client import MilterClient

ROOT = Path(__file__).parents[2]
Tables = Mapping[str, Mapping[str, Any]]
LIBRARY = os.environ.get("DMARC_MILTER_TEST_LIBRARY", "")
"""What every daemon of the tests speaks the milter protocol with; empty: its default."""


_given: set[int] = set()


def free_port() -> int:
    """A TCP port that nobody listens on at this moment, below those that connections get by
    themselves; another one each time, also in the test processes beside this one."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    while True:
        port = 10_000 + 4 * secrets.randbelow(5_500) + worker % 4
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in _given:
                _given.add(port)
                return port


def wait_for(what: Callable[[], object], seconds: float = 15.0) -> bool:
    """Whether `what` becomes true in time."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def toml(tables: Tables) -> str:
    """A configuration file. JSON's strings, numbers, booleans and lists are TOML's too; a list of
    tables becomes `[[name.key]]`."""
    lines = []
    for name, table in tables.items():
        several = {
            key: value
            for key, value in table.items()
            if isinstance(value, list) and value and isinstance(value[0], dict)
        }
        lines += [
            f"[{name}]",
            *(f"{key} = {json.dumps(value)}" for key, value in table.items() if key not in several),
        ]
        for key, entries in several.items():
            lines += [
                line
                for each in entries
                for line in (
                    f"[[{name}.{key}]]",
                    *(f"{k} = {json.dumps(v)}" for k, v in each.items()),
                )
            ]
    return "".join(f"{line}\n" for line in lines)


class Daemon:
    """`dmarc-milter serve`, or another module that takes the configuration's path last."""

    def __init__(
        self,
        folder: Path,
        tables: Tables | None = None,
        *,
        command: Iterable[str] = (),
        extra: str = "",
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.address: tuple[str, int] | str = ("127.0.0.1", self.port)
        self.config = folder / "dmarc-milter.toml"
        self.spool = folder / "spool.db"
        self.log = folder / "log"
        self.command = tuple(command) or ("-m", "dmarc_milter", "serve", "--no-jobs", "--config")
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        self.pass_fds: tuple[int, ...] = ()
        self.paths: tuple[str, ...] = ()
        """Where Python looks for modules first."""
        self.clients: list[MilterClient] = []
        self.configure(tables or {}, extra)

    def configure(self, tables: Tables, extra: str = "") -> None:
        """Write the file: these tables over defaults that suit tests. `extra` is appended as it
        is."""
        basis: dict[str, dict[str, Any]] = {
            "milter": {"socket": f"inet:{self.port}@127.0.0.1", "workers": 2},
            "authentication": {"authserv_id": "mx.example.com", "trusted_networks": []},
            "store": {"url": f"sqlite:///{self.folder}/reports.db"},
        }
        if LIBRARY:
            basis["milter"]["library"] = LIBRARY
        for name, table in tables.items():
            basis.setdefault(name, {}).update(table)
        if str(basis["milter"]["socket"]).startswith("unix:"):
            self.address = str(basis["milter"]["socket"])[5:]
        self.config.write_text(toml(basis) + extra)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start without waiting for readiness."""
        paths = os.pathsep.join((*self.paths, str(ROOT / "milter"), str(ROOT / "tests")))
        environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
        environment.pop("NOTIFY_SOCKET", None)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.command, str(self.config)],
                env=environment | self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=self.pass_fds,
            )
        return self.process

    def start(self, seconds: float = 30.0) -> None:
        """Start and wait until every worker serves."""
        process = self.spawn()
        if (
            not wait_for(lambda: self.events("ready") or process.poll() is not None, seconds)
            or process.poll() is not None
        ):
            self.stop()
            raise RuntimeError(f"the daemon did not start:\n{self.text()}")

    def stop(self) -> int | None:
        """End it for certain, workers and connections included; its exit code."""
        for client in self.clients:
            client.close()
        if self.process is None:
            return None
        children = self.children()
        if self.process.poll() is None:
            self.process.kill()
        code = self.process.wait(10)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return code

    def logged(self, event: str, count: int) -> bool:
        """Whether the log comes to hold exactly so many of these events in time."""
        return wait_for(lambda: len(self.events(event)) == count)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def client(self, *, negotiated: bool = True, timeout: float = 30.0) -> MilterClient:
        """A connection as an MTA makes it."""
        client = MilterClient(self.address, timeout=timeout)
        self.clients.append(client)
        if negotiated:
            client.negotiate()
        return client

    def children(self) -> dict[int, str]:
        """The daemon's child processes that live now; workers are named dmarc-worker."""
        found: dict[int, str] = {}
        if self.process is None:
            return found
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
            for pid in map(int, text.split()):
                with contextlib.suppress(OSError):
                    found[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
        return found

    def workers(self) -> list[int]:
        """The process ids of the workers that live now."""
        return [pid for pid, name in self.children().items() if name == "dmarc-worker"]

    def text(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def lines(self) -> list[str]:
        """Everything that was printed and logged."""
        return self.text().splitlines()

    def events(self, name: str) -> list[str]:
        """The log lines of one event."""
        return [line for line in self.lines() if f"event={name} " in line + " "]

    def spool_rows(self) -> int:
        """Messages that wait in the spool."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.spool}?mode=ro", uri=True)
        ) as connection:
            return int(connection.execute("SELECT count(*) FROM spool").fetchone()[0])
