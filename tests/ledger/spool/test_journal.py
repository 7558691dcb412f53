"""The drain begins a large journal of the spool anew, at a moment at which the disk is quick: no
commit of the mail path waits for that."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dmarc_milter.ledger.spool import journal
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolOptions
from dmarc_milter.ledger.spool.journal import Journal
from fakes.evaluations import evaluation
from fakes.stores import spool_row

MOST = 2 << 20
LARGE = 10 * MOST


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpoolFile:
    """As the mail path has it, which never moves its journal."""
    monkeypatch.setattr(journal, "MOST", MOST)
    return SpoolFile(tmp_path / "spool.db", SpoolOptions(checkpoint=250_000))


def grow(spool: SpoolFile, octets: int) -> None:
    wal = spool.path.with_name("spool.db-wal")
    while not wal.exists() or wal.stat().st_size < octets:
        spool.write([spool_row(evaluation(), b"x" * 200_000)])


def salt(spool: SpoolFile) -> bytes:
    """Another one each time that the journal begins anew (fileformat2.html 4.1)."""
    return spool.path.with_name("spool.db-wal").read_bytes()[16:24]


def quick(monkeypatch: pytest.MonkeyPatch, *, yes: bool) -> None:
    monkeypatch.setattr(journal, "QUICK", 1e9 if yes else 0.0)


def test_a_large_journal_waits_for_a_quick_disk(
    spool: SpoolFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = Journal(spool.path, LARGE)
    grow(spool, 3 * MOST)
    before = salt(spool)
    quick(monkeypatch, yes=False)
    drain.tend()
    spool.write([spool_row(evaluation())])
    assert salt(spool) == before
    quick(monkeypatch, yes=True)
    drain.tend()
    assert salt(spool) != before
    drain.close()
    spool.close()


def test_its_new_beginning_is_written_by_the_drain(
    spool: SpoolFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next commit of the mail path finds it there, and loses nothing."""
    quick(monkeypatch, yes=True)
    drain = Journal(spool.path, LARGE)
    grow(spool, 3 * MOST)
    rows, drained = spool.waiting(), spool.drained()
    drain.tend()
    begun = salt(spool)
    spool.write([spool_row(evaluation())])
    assert salt(spool) == begun
    assert (spool.waiting(), spool.drained()) == (rows + 1, drained)
    drain.close()
    spool.close()
    with sqlite3.connect(spool.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    connection.close()


def test_on_a_disk_that_is_never_quick_it_does_not_grow_without_end(
    spool: SpoolFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`spool_max_bytes` bounds the journal too."""
    quick(monkeypatch, yes=False)
    drain = Journal(spool.path, LARGE)
    grow(spool, LARGE + MOST)
    before = salt(spool)
    drain.tend()
    assert salt(spool) != before
    drain.close()
    spool.close()
