"""What is compared, each as processes on sockets of their own: the daemon, an empty pymilter, OpenDKIM then OpenDMARC."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load import Address, Cost
from fakes.daemon import ROOT, Daemon, wait_for

PEERS = ROOT / ".test/peers"
AUTHSERV_ID = "mx.bench.example"
SUFFIX_LIST = "/usr/share/publicsuffix/public_suffix_list.dat"
ACCOUNT = "nobody"


@dataclass(frozen=True, slots=True)
class Contender:
    """Milters that a message passes one after the other, and the processes that they are."""

    name: str
    chain: tuple[Address, ...]
    cost: Cost


@contextmanager
def ours(folder: Path, nameserver: str, *, workers: int = 2, settings: dict[str, dict[str, Any]] | None = None) -> Iterator[Contender]:
    """The daemon with its defaults but for the trusted networks, its log in a file."""
    tables: dict[str, dict[str, Any]] = {
        "milter": {"workers": workers, "socket": f"unix:{folder}/milter.sock", "socket_mode": "0666"},
        "authentication": {"authserv_id": AUTHSERV_ID},
        "dns": {"nameservers": [nameserver]},
    }
    for name, table in (settings or {}).items():
        tables.setdefault(name, {}).update(table)
    folder.mkdir(parents=True, exist_ok=True)
    with Daemon(folder, tables) as daemon:
        assert daemon.process
        yield Contender("dmarc-milter", (daemon.address,), Cost([daemon.process.pid]))


@contextmanager
def floor(folder: Path, _nameserver: str) -> Iterator[Contender]:
    """bench/empty.py."""
    path = f"{folder}/empty.sock"
    command = [sys.executable, "-m", "bench.empty", path, "2"]
    with process(command, path, cwd=ROOT / "tests", env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}) as pid:
        yield Contender("empty pymilter", (path,), Cost([pid]))


@contextmanager
def chain(folder: Path, nameserver: str) -> Iterator[Contender]:
    """OpenDKIM verifies and writes its field; OpenDMARC reads that, checks SPF itself and keeps a history file."""
    folder.mkdir(parents=True, exist_ok=True)
    one, two = f"{folder}/opendkim.sock", f"{folder}/opendmarc.sock"
    (folder / "opendkim.conf").write_text(
        f"Mode v\nUMask 000\nSocket local:{one}\nBackground no\nSyslog no\nAuthservID {AUTHSERV_ID}\nAlwaysAddARHeader yes\n"
        f"Nameservers {nameserver.partition(':')[0]}\nInternalHosts {folder}/none\nOn-BadSignature accept\nUserID {ACCOUNT}\n"
    )
    (folder / "none").write_text("192.0.2.255\n")
    (folder / "opendmarc.conf").write_text(
        f"UMask 000\nSocket local:{two}\nBackground no\nSyslog no\nAuthservID {AUTHSERV_ID}\nTrustedAuthservIDs {AUTHSERV_ID}\n"
        f"SPFSelfValidate yes\nSPFIgnoreResults yes\nHistoryFile {folder}/history\nPublicSuffixList {SUFFIX_LIST}\n"
        f"IgnoreHosts {folder}/none\nRejectFailures no\nUserID {ACCOUNT}\n"
    )
    shutil.chown(folder, ACCOUNT)
    libraries = {"LD_LIBRARY_PATH": f"{PEERS}/usr/lib/{os.uname().machine}-linux-gnu:{PEERS}/usr/lib"}
    with ExitStack() as stack:
        pids = [
            stack.enter_context(
                process([str(PEERS / "usr/sbin" / name), "-f", option, f"{folder}/{name}.conf"], path, env=os.environ | libraries)
            )
            for name, option, path in (("opendkim", "-x", one), ("opendmarc", "-c", two))
        ]
        yield Contender("OpenDKIM + OpenDMARC", (one, two), Cost(pids))


@contextmanager
def process(command: Sequence[str], path: str, **more: Any) -> Iterator[int]:
    """A program, once it listens on this socket; its process id."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **more)
    try:
        if not wait_for(lambda: listens(path) or running.poll() is not None) or running.poll() is not None:
            raise RuntimeError(f"{command[0]} does not start")
        yield running.pid
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(3)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def listens(path: str) -> bool:
    """Whether a connection to the socket is taken."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path) == 0
