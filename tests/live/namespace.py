"""A network of our own: any client address can be a source address in it. Run as a program it
starts a command inside.

    python namespace.py --host-name NAME --mount FILE:OVER --address 203.0.113.7 ... -- COMMAND
    ARGUMENTS

It needs CAP_SYS_ADMIN; many containers refuse it, and then `allowed()` is false.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
SIOCSIFFLAGS = 0x8914
SIOCSIFADDR = 0x8916
IFF_UP = 0x1

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


@cache
def allowed() -> bool:
    """Whether this machine lets us have a network of our own. DMARC_MILTER_NO_NAMESPACE=1 says
    no."""
    if os.environ.get("DMARC_MILTER_NO_NAMESPACE"):
        return False
    probe = [
        sys.executable,
        __file__,
        "--host-name",
        "probe.test.example",
        "--address",
        "203.0.113.7",
        "--address",
        "2001:db8::5",
        "--",
        "true",
    ]
    return subprocess.run(probe, check=False, capture_output=True).returncode == 0


def connect(pid: int, source: str, target: str, port: int) -> socket.socket:
    """A TCP connection from `source` inside the network of process `pid`; the socket works from
    here."""
    made: list[socket.socket] = []
    run(
        pid,
        lambda: made.append(
            socket.create_connection((target, port), timeout=60, source_address=(source, 0))
        ),
    )
    return made[0]


def run(pid: int, work: Callable[[], object]) -> None:
    """Do this inside the network of process `pid`. Raises OSError."""
    failed: list[OSError] = []

    def inside() -> None:
        try:
            with Path(f"/proc/{pid}/ns/net").open("rb") as network:
                _checked(_libc.setns(network.fileno(), CLONE_NEWNET), "setns")
            work()
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(
        target=inside
    )  # setns changes the calling thread alone, and the thread ends here
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _bring_up(addresses: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
        for number, address in enumerate(a for a in addresses if ":" not in a):
            name = f"lo:{number + 1}".encode()
            fcntl.ioctl(
                control,
                SIOCSIFADDR,
                struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address)),
            )
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        for address in (a for a in addresses if ":" in a):
            packed = socket.inet_pton(socket.AF_INET6, address)
            fcntl.ioctl(
                control, SIOCSIFADDR, struct.pack("16sIi", packed, 128, socket.if_nametoindex("lo"))
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host-name", required=True)
    parser.add_argument("--mount", action="append", default=[])
    parser.add_argument("--address", action="append", default=[])
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    _checked(_libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWNET), "unshare")
    _checked(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount")
    socket.sethostname(given.host_name)
    for pair in given.mount:
        file, over = pair.split(":")
        _checked(_libc.mount(file.encode(), over.encode(), None, MS_BIND, None), f"mount {over}")
    _bring_up(given.address)
    os.execvp(given.command[0], given.command)


if __name__ == "__main__":
    main()
