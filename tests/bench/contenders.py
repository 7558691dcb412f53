"""What is compared, each as processes on sockets of their own: the daemon with each milter library,
an empty pymilter; peers.py has the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.load import Address, Cost
from bench.running import process
from dmarc_milter.config.schema import MilterSection
from fakes.daemon import ROOT, Daemon, free_port

AUTHSERV_ID = "mx.bench.example"
NATIVE, PYMILTER, FLOOR = "native", "pymilter", "empty"
"""Ours by its milter library, and the empty milter."""
AS_INSTALLED = {
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPYCACHEPREFIX": str(ROOT / ".test/bench/pycache"),
}
"""An installation has its modules compiled."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Milters that a message passes one after the other, and the processes that they are."""

    name: str
    chain: tuple[Address, ...]
    cost: Cost


@dataclass(frozen=True, slots=True)
class Where:
    """A folder for what a contender writes, and whether it listens on TCP or on UNIX sockets."""

    folder: Path
    tcp: bool = False

    def address(self, name: str) -> Address:
        """A socket of this name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return ("127.0.0.1", free_port()) if self.tcp else f"{self.folder}/{name}.sock"


Start = Callable[[Where, str], AbstractContextManager[Contender]]
"""Starts a contender that asks the name server at this "ADDRESS:PORT"."""


def spelled(address: Address) -> str:
    """As libmilter reads it."""
    return f"unix:{address}" if isinstance(address, str) else f"inet:{address[1]}@{address[0]}"


def has_library() -> bool:
    """Whether this version can be told how to speak with the MTA."""
    return "library" in MilterSection.__struct_fields__


def milter_of(library: str) -> dict[str, str]:
    """What [milter] says for it."""
    return {"library": library} if has_library() else {}


def by_library() -> dict[str, Start]:
    """The daemon with each way in that it has. Says which it has not."""
    names = (NATIVE, PYMILTER) if has_library() else (PYMILTER,)
    if NATIVE not in names:
        print(f"no column {NATIVE}: [milter] has no key `library` yet")
    return {name: partial(ours, name=name, settings={"milter": milter_of(name)}) for name in names}


@contextmanager
def ours(
    where: Where,
    nameserver: str,
    *,
    name: str = PYMILTER,
    workers: int = 2,
    settings: dict[str, dict[str, Any]] | None = None,
) -> Iterator[Contender]:
    """The daemon with its defaults but for the trusted networks, its log in a file."""
    address = where.address("milter")
    tables: dict[str, dict[str, Any]] = {
        "milter": {"workers": workers, "socket": spelled(address), "socket_mode": "0666"},
        "authentication": {"authserv_id": AUTHSERV_ID},
        "dns": {"nameservers": [nameserver]},
    }
    for section, table in (settings or {}).items():
        tables.setdefault(section, {}).update(table)
    command = ("-m", "bench.plain", "serve", "--no-jobs", "--config")
    daemon = Daemon(where.folder, tables, command=command)
    daemon.environment |= AS_INSTALLED
    with daemon:
        assert daemon.process
        yield Contender(name, (address,), Cost([daemon.process.pid]))


@contextmanager
def floor(where: Where, _nameserver: str) -> Iterator[Contender]:
    """bench/empty.py."""
    address = where.address("empty")
    command = [sys.executable, "-m", "bench.empty", spelled(address), "2"]
    with process(
        command, address, cwd=ROOT / "tests", env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    ) as pid:
        yield Contender(FLOOR, (address,), Cost([pid]))
