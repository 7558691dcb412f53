"""Programs that a bench starts and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from bench.load import TICK, Address, Cost
from fakes.daemon import wait_for

QUIET = 1.0
"""Seconds without work after which a start is over."""
PATIENCE = 60.0


@contextmanager
def process(command: Sequence[str], address: Address, **more: Any) -> Iterator[int]:
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
            not wait_for(lambda: listens(address) or running.poll() is not None, 40)
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


def listens(address: Address) -> bool:
    """Whether a connection to the socket is taken."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as sock:
        return sock.connect_ex(address) == 0


def settle(cost: Cost) -> None:
    """Wait until these processes rest: what a start does besides serving is no message's cost.
    Raises RuntimeError where they never do."""
    deadline = time.monotonic() + PATIENCE
    before = cost.whole()
    while time.monotonic() < deadline:
        time.sleep(QUIET)
        now = cost.whole()
        if now - before <= 2 / TICK:
            return
        before = now
    raise RuntimeError("the processes do not come to rest")
