"""Where live tests put things: private folders that other accounts can walk into, free ports, and
programs unpacked by the set-up."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
UNPACKED = REPOSITORY / ".test" / "root"
"""Debian packages unpacked by tools/setup_tests.sh."""
NOBODY = 65534


def cannot_run() -> str:
    """Why a private Postfix or Sendmail cannot run here; "" when it can."""
    if os.geteuid() != 0:
        return "a private Postfix or Sendmail needs root"
    if not (UNPACKED / "usr/sbin/postfix").exists():
        return "run tools/setup_tests.sh (make test does) first"
    return ""


def require_live() -> None:
    """Skip where a private MTA cannot run; continuous integration sets DMARC_MILTER_LIVE=required,
    and then it is a failure."""
    give_up(cannot_run())


def give_up(reason: str) -> None:
    """Skip the test for that reason, or fail it where the live tests are required; "" goes on."""
    if reason and os.environ.get("DMARC_MILTER_LIVE") == "required":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def library_path() -> dict[str, str]:
    """The environment in which unpacked programs find the libraries unpacked with them."""
    root = UNPACKED.resolve()
    folders = [
        root / "usr/lib/postfix",
        *root.glob("usr/lib/*-linux-gnu*"),
        *root.glob("lib/*-linux-gnu*"),
    ]
    return {"LD_LIBRARY_PATH": ":".join(map(str, folders))}


@contextmanager
def private_folder(name: str, *, parent: str = "/tmp") -> Iterator[Path]:
    """A new folder that every account may enter and only we may write; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"dmarc-milter-{name}-", dir=parent))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def eventually(found: Callable[[], object], *, seconds: float = 20.0, what: str = "") -> None:
    """Wait until `found()` is true; fail with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not found():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds} s: {what or found}")
        time.sleep(0.02)


def within(seconds: float, work: Callable[[], object]) -> bool:
    """Whether it ended in that time; for what would otherwise take minutes or hang."""
    begin = time.monotonic()
    work()
    return time.monotonic() - begin < seconds


def answers(port: int, address: str = "127.0.0.1") -> bool:
    """Whether something accepts connections there."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, port)) == 0
