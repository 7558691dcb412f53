"""Where a bench runs: a network of its own, so that the peers' DNS too is the loopback server, and
that server as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.message
import dns.query

from bench.corpus import Zone
from fakes.daemon import ROOT
from fakes.dns_server import COUNTER
from live import namespace

ADDRESS = "198.51.100.53"
"""Of the DNS server: not 127/8, which libunbound refuses to ask."""
INSIDE = "DMARC_MILTER_BENCH_INSIDE"


def enter() -> bool:
    """Run this program again in a network of its own, where allowed; whether this is that run
    already."""
    if os.environ.get(INSIDE):
        return True
    if not namespace.allowed():
        return False
    with tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False) as file:
        file.write(f"nameserver {ADDRESS}\noptions timeout:5 attempts:2\n")
    Path(file.name).chmod(0o644)
    program = [
        sys.executable,
        namespace.__file__,
        "--host-name",
        "mx.bench.example",
        "--mount",
        f"{file.name}:/etc/resolv.conf",
    ]
    paths = os.pathsep.join((str(ROOT / "milter"), str(ROOT / "tests")))
    command = [*program, "--address", ADDRESS, "--", sys.executable, "-m", "bench", *sys.argv[1:]]
    status = subprocess.call(command, env=os.environ | {INSIDE: "1", "PYTHONPATH": paths})
    Path(file.name).unlink()
    sys.exit(status)


class Dns:
    """A running DNS server. `nameserver` is "ADDRESS:PORT"."""

    def __init__(self, nameserver: str) -> None:
        self.nameserver = nameserver

    def answered(self) -> int:
        """Queries so far."""
        host, _, port = self.nameserver.rpartition(":")
        reply = dns.query.udp(
            dns.message.make_query(COUNTER, "TXT"), host, port=int(port), timeout=10
        )
        return int(str(reply.answer[0][0]).strip('"')) - 1


@contextmanager
def dns_server(
    zone: Zone, *, delay: float = 0.0, ttl: int = 3600, private: bool = True
) -> Iterator[Dns]:
    """The scriptable server in a process of its own; on port 53 of our own network where there is
    one."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(zone, file)
        file.flush()
        command = [
            sys.executable,
            "-m",
            "fakes.dns_server",
            file.name,
            "--delay",
            str(delay),
            "--ttl",
            str(ttl),
        ]
        if private:
            command += ["--address", ADDRESS, "--port", "53"]
        running = subprocess.Popen(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True)
        try:
            assert running.stdout
            yield Dns(running.stdout.readline().strip())
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait()
