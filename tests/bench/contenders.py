"""What is compared, each as processes on sockets of their own: the daemon, an empty pymilter,
rspamd, OpenDKIM then OpenDMARC."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.load import Address, Cost
from fakes.daemon import ROOT, Daemon, wait_for

PEERS = ROOT / ".test/peers"
AUTHSERV_ID = "mx.bench.example"
SUFFIX_LIST = "/usr/share/publicsuffix/public_suffix_list.dat"
ACCOUNT = "nobody"
RSPAMD = """
options {
    pidfile = "$RUNDIR/pid"; control_socket = "$RUNDIR/control"; hs_cache_dir = "$RUNDIR";
    url_tld = "$RUNDIR/tlds";
    filters = "dkim"; local_addrs = "192.0.2.255"; disable_monitoring = true; history_file = "";
    dns { nameserver = ["%(nameserver)s"]; timeout = 5s; retransmits = 2; }
}
logging { type = "file"; filename = "$RUNDIR/log"; level = "warning"; }
actions { reject = null; }
modules {
    path = "$PLUGINSDIR/spf.lua"; path = "$PLUGINSDIR/dmarc.lua"; path = "$PLUGINSDIR/arc.lua";
    path = "$PLUGINSDIR/milter_headers.lua";
}
lua = "$RUNDIR/none.lua";
spf { } dkim { } dmarc { } arc { }
milter_headers { use = ["authentication-results"]; }
worker "rspamd_proxy" {
    bind_socket = "$RUNDIR/socket mode=0666"; milter = true; timeout = 120s; count = 2;
    upstream "local" { default = yes; self_scan = yes; }
}
"""


@dataclass(frozen=True, slots=True)
class Contender:
    """Milters that a message passes one after the other, and the processes that they are."""

    name: str
    chain: tuple[Address, ...]
    cost: Cost


@contextmanager
def ours(
    folder: Path,
    nameserver: str,
    *,
    workers: int = 2,
    settings: dict[str, dict[str, Any]] | None = None,
) -> Iterator[Contender]:
    """The daemon with its defaults but for the trusted networks, its log in a file."""
    tables: dict[str, dict[str, Any]] = {
        "milter": {
            "workers": workers,
            "socket": f"unix:{folder}/milter.sock",
            "socket_mode": "0666",
        },
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
    with process(
        command, path, cwd=ROOT / "tests", env=os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    ) as pid:
        yield Contender("empty pymilter", (path,), Cost([pid]))


@contextmanager
def rspamd(folder: Path, nameserver: str) -> Iterator[Contender]:
    """Only what is compared: SPF, DKIM, ARC, DMARC and the field, in two processes of its proxy
    worker; no rules, no Redis."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rspamd.conf").write_text(RSPAMD % {"nameserver": nameserver})
    (folder / "tlds").write_text("com\nexample\nnet\norg\ntest\n")
    (folder / "none.lua").touch()
    shutil.chown(folder, ACCOUNT)
    share = PEERS / "usr/share/rspamd"
    places = {name: folder for name in ("RUNDIR", "CONFDIR", "LOCAL_CONFDIR", "DBDIR", "LOGDIR")}
    places |= {
        "SHAREDIR": share,
        "PLUGINSDIR": share / "plugins",
        "LUALIBDIR": share / "lualib",
        "RULESDIR": share / "rules",
    }
    command = [
        str(PEERS / "usr/bin/rspamd"),
        "-f",
        "-u",
        ACCOUNT,
        "-g",
        "nogroup",
        "-c",
        f"{folder}/rspamd.conf",
    ]
    command += [word for name, place in places.items() for word in ("--var", f"{name}={place}")]
    libraries = f"{PEERS}/usr/lib/{os.uname().machine}-linux-gnu:{PEERS}/usr/lib/rspamd"
    with process(
        command, f"{folder}/socket", env=os.environ | {"LD_LIBRARY_PATH": libraries}
    ) as pid:
        yield Contender("rspamd", (f"{folder}/socket",), Cost([pid]))


@contextmanager
def chain(folder: Path, nameserver: str) -> Iterator[Contender]:
    """OpenDKIM verifies and writes its field; OpenDMARC reads that, checks SPF itself and keeps a
    history file."""
    folder.mkdir(parents=True, exist_ok=True)
    one, two = f"{folder}/opendkim.sock", f"{folder}/opendmarc.sock"
    (folder / "opendkim.conf").write_text(
        f"Mode v\nUMask 000\nSocket local:{one}\nBackground no\nSyslog no\nAuthservID"
        f" {AUTHSERV_ID}\nAlwaysAddARHeader yes\nNameservers"
        f" {nameserver.partition(':')[0]}\nInternalHosts {folder}/none\nOn-BadSignature"
        f" accept\nUserID {ACCOUNT}\n"
    )
    (folder / "none").write_text("192.0.2.255\n")
    (folder / "opendmarc.conf").write_text(
        f"UMask 000\nSocket local:{two}\nBackground no\nSyslog no\nAuthservID"
        f" {AUTHSERV_ID}\nTrustedAuthservIDs {AUTHSERV_ID}\nSPFSelfValidate yes\nSPFIgnoreResults"
        f" yes\nHistoryFile {folder}/history\nPublicSuffixList {SUFFIX_LIST}\nIgnoreHosts"
        f" {folder}/none\nRejectFailures no\nUserID {ACCOUNT}\n"
    )
    shutil.chown(folder, ACCOUNT)
    libraries = {
        "LD_LIBRARY_PATH": f"{PEERS}/usr/lib/{os.uname().machine}-linux-gnu:{PEERS}/usr/lib"
    }
    with ExitStack() as stack:
        pids = [
            stack.enter_context(
                process(
                    [str(PEERS / "usr/sbin" / name), "-f", option, f"{folder}/{name}.conf"],
                    path,
                    env=os.environ | libraries,
                )
            )
            for name, option, path in (("opendkim", "-x", one), ("opendmarc", "-c", two))
        ]
        yield Contender("OpenDKIM + OpenDMARC", (one, two), Cost(pids))


@contextmanager
def process(command: Sequence[str], path: str, **more: Any) -> Iterator[int]:
    """A program, once it listens on this socket; its process id."""
    running = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **more,
    )
    try:
        if (
            not wait_for(lambda: listens(path) or running.poll() is not None)
            or running.poll() is not None
        ):
            raise RuntimeError(f"{command[0]} does not start")
        yield running.pid
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(3)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # what it forked and left behind


def listens(path: str) -> bool:
    """Whether a connection to the socket is taken."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path) == 0
