"""Lines to systemd's journal: with fields of their own where standard error is the journal's, and
never lost for its sake."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmarc_milter.telemetry import journald as journal
from dmarc_milter.telemetry.log import Log


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """What stands for standard error."""
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


@pytest.fixture
def journald(
    tmp_path: Path, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """A journal whose stream the pipe is."""
    path = str(tmp_path / "journal")
    found = os.fstat(pipe[1])
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    monkeypatch.setattr(journal, "connect", lambda fd, connect=journal.connect: connect(fd, path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(5)
        yield sock


@pytest.mark.parametrize("threaded", [False, True])
def test_a_line_comes_with_its_fields(
    journald: socket.socket, pipe: tuple[int, int], threaded: bool
) -> None:
    log = Log(pipe[1])
    if threaded:
        log.start()
    log.warning("message", id="4Q", helo="evil\nPRIORITY=0", seconds=0.25, empty="")
    fields = dict(
        line.split("=", 1) for line in journald.recv(65536).decode().removesuffix("\n").split("\n")
    )
    log.stop()
    log.close()
    assert fields["MESSAGE"].startswith("id=4Q event=message level=warning ")
    assert fields["PRIORITY"] == "4"
    assert (fields["DMARC_EVENT"], fields["DMARC_ID"], fields["DMARC_SECONDS"]) == (
        "message",
        "4Q",
        "0.25",
    )
    assert fields["DMARC_HELO"] == "evil\\x0aPRIORITY=0"
    assert "DMARC_EMPTY" not in fields


def test_another_stream_gets_plain_lines(
    journald: socket.socket, monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    """JOURNAL_STREAM names a stream that was redirected meanwhile."""
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    Log(pipe[1]).info("ready")
    assert os.read(pipe[0], 1000) == b"event=ready level=info\n"


def test_without_a_journal_the_line_goes_to_the_descriptor(
    journald: socket.socket, pipe: tuple[int, int]
) -> None:
    """A journal that stops taking datagrams loses nothing."""
    log = Log(pipe[1])
    journald.close()
    log.info("ready")
    log.close()
    assert os.read(pipe[0], 1000) == b"event=ready level=info\n"
