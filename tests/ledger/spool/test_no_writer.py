"""FLT-15: the spool where no thread or no memory can be had: records wait in memory, as for any
other failure, and are written later."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from dmarc_milter.ledger.spool.file import SpoolFile
from dmarc_milter.ledger.spool.spool import Spool
from fakes.daemon import wait_for
from fakes.evaluations import evaluation


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_a_thread_records_wait_and_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost, and one line says so."""
    spool = Spool(tmp_path / "spool.db", patience=0.01)
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            spool.start()
        assert [spool.record(evaluation()) for _ in range(5)] == [False] * 5
        assert len(caplog.records) == 1, caplog.text
    assert spool.counts()[:4] == (0, 5, 0, 0)
    spool.tend()
    assert wait_for(lambda: spool.counts()[:4] == (5, 5, 5, 0))
    assert wait_for(lambda: not spool.failing)
    spool.close()


def test_a_writer_that_runs_again_with_nothing_to_write_fails_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waited, so no commit will tell; the next record keeps its sample."""
    spool = Spool(tmp_path / "spool.db")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        spool.tend()
        assert spool.failing
    spool.tend()
    assert not spool.failing
    spool.close()


def test_what_waits_for_a_writer_at_the_end_is_a_number_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    spool = Spool(tmp_path / "spool.db", patience=0.01)
    for _ in range(3):
        spool.record(evaluation())
    spool.close()
    assert "stopped with 3 messages unwritten" in caplog.text


@pytest.mark.parametrize("place", ["write", "check"])
def test_want_of_memory_ends_no_writer_and_loses_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """SQLite's SQLITE_NOMEM is a MemoryError too."""
    spool = Spool(tmp_path / "spool.db", patience=0.01, retry=0.01)
    with monkeypatch.context() as patch:

        def none_left(*_: object) -> None:
            raise MemoryError

        patch.setattr(SpoolFile, place, none_left)
        for _ in range(3):
            spool.record(evaluation())
    assert wait_for(lambda: spool.counts().recorded == 3)
    assert spool.counts().lost == 0
    spool.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_has_met_its_end_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ended it, the next one takes over what it held."""
    spool = Spool(tmp_path / "spool.db", patience=0.01, retry=0.01)
    with monkeypatch.context() as patch:

        def end(*_: object) -> None:
            raise SystemExit

        patch.setattr(SpoolFile, "write", end)
        spool.record(evaluation())
        assert wait_for(lambda: not any(each.name == "spool" for each in threading.enumerate()))
    spool.tend()
    assert wait_for(lambda: spool.counts().recorded == 1)
    spool.close()
