"""Why a file cannot grow: SQLite says "disk I/O error" of a quota, a limit and a file system that
became read-only. Mail goes on, nothing is lost, and what is in the way is named."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from dmarc_milter.ledger.errors import SpoolError
from dmarc_milter.ledger.no_room import hindrance
from dmarc_milter.ledger.spool.file import SpoolFile
from dmarc_milter.ledger.sqlite_file import classify
from dmarc_milter.ledger.store.status import spool_status
from fakes.evaluations import evaluation
from fakes.stores import spool_row


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own; skipped where mounts are refused."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("mounts are refused here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def failing(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


def test_a_limit_of_a_files_size_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    """RLIMIT_FSIZE of the process (setrlimit(2))."""
    spool = SpoolFile(tmp_path / "spool.db")
    spool.write([spool_row(evaluation())])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(spool):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            rows = [spool_row(evaluation()) for _ in range(200)]
            with pytest.raises(SpoolError, match="a file of this process may have 100,000") as told:
                spool.write(rows)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert told.value.kind == "full"
        waiting = spool.waiting()
        spool.write([spool_row(evaluation())])
        assert spool.waiting() == waiting + 1


def test_a_file_system_without_inodes_is_full(tmp_path: Path) -> None:
    """Not "unable to open database file", for which the daemon would not start."""
    with mounted(tmp_path / "disk", "size=4m,nr_inodes=12") as disk:
        with closing(SpoolFile(disk / "other.db")) as spool:
            spool.write([spool_row(evaluation())])
        with suppress(OSError):
            for number in range(20):
                (disk / f"{number}").touch()
        with closing(SpoolFile(disk / "spool.db")) as spool, pytest.raises(SpoolError) as told:
            spool.write([spool_row(evaluation())])
        assert (told.value.kind, "No space left" in str(told.value)) == ("full", True)
        with closing(SpoolFile(disk / "other.db")) as spool, pytest.raises(SpoolError) as told:
            spool.write([spool_row(evaluation())])  # there is its file, and no room for a journal
        assert (told.value.kind, "inodes" in str(told.value)) == ("full", True)
        assert "inodes" in spool_status(disk / "other.db", 0).problem


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    """As after an error of the disk (mount(8), errors=remount-ro)."""
    with mounted(tmp_path / "disk", "size=4m") as disk:
        with closing(SpoolFile(disk / "spool.db")) as spool:
            spool.write([spool_row(evaluation())])
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        told = classify(disk / "spool.db", failing(sqlite3.SQLITE_IOERR_WRITE))
        assert (told.kind, "read-only" in str(told)) == ("io", True)
        with closing(SpoolFile(disk / "spool.db")) as spool, pytest.raises(SpoolError) as refused:
            spool.write([spool_row(evaluation())])
        assert (refused.value.kind, "read-only" in str(refused.value)) == ("refused", True)
        status = spool_status(disk / "spool.db", 0)
        assert "read-only" in status.problem
        assert status.remedy


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EDQUOT, "full"), (errno.ENOSPC, "full"), (errno.EIO, "io"), (errno.EOPNOTSUPP, None)],
)
def test_what_a_try_in_the_same_folder_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: str | None
) -> None:
    """A quota is the account's: only a write tells."""

    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.write", refused)
    found = hindrance(tmp_path / "spool.db")
    assert (found.kind if found else None) == kind
    if kind == "full":
        told = classify(tmp_path / "spool.db", failing(sqlite3.SQLITE_IOERR_WRITE))
        assert os.strerror(number) in str(told)


def test_where_nothing_is_in_the_way_nothing_is_made(tmp_path: Path) -> None:
    assert hindrance(tmp_path / "spool.db") is None
    assert hindrance(tmp_path / "absent/spool.db") is None
    assert list(tmp_path.iterdir()) == []
