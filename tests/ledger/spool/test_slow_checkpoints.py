"""Checkpoints wait for the disk, and so they are never the mail path's."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dmarc_milter.ledger.spool.file import SpoolFile, prepare
from dmarc_milter.ledger.spool.spool import Spool
from fakes.evaluations import evaluation
from fakes.soak import LONG
from fakes.stores import spool_row

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(200)]
ROOT = Path(__file__).parents[3]
SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
#define SLOW(name) int name(int fd) { \\
    static int (*real)(int); \\
    if (!real) real = dlsym(RTLD_NEXT, #name); \\
    if (access("%(flag)s", F_OK) == 0) sleep(2); \\
    return real(fd); }
SLOW(fsync)
SLOW(fdatasync)
"""


def test_no_commit_of_the_mail_path_waits_for_a_checkpoint(tmp_path: Path) -> None:
    """Every fsync takes two seconds, messages keep coming until the journal is long past 80 MB, and
    the drain works beside: none waits for its second."""
    flag, source, library = (tmp_path / name for name in ("slow", "slow.c", "slow.so"))
    source.write_text(SYNC % {"flag": flag})
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    path = tmp_path / "spool.db"
    prepare(path)
    holds_it_open = SpoolFile(path)
    holds_it_open.waiting()
    seconds = 60 if LONG else 8
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'milter'}:{ROOT / 'tests'}",
        "LD_PRELOAD": str(library),
    }
    drain = [
        sys.executable,
        "-m",
        "fakes.slow_drain",
        str(path),
        f"sqlite:///{tmp_path}/reports.db",
    ]
    drains = subprocess.Popen([*drain, str(seconds + 5)], env=environment)
    command = [sys.executable, "-m", "fakes.slow_spool", str(path), str(seconds), "130", str(flag)]
    mail = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    longest = 0
    while mail.poll() is None:
        journal = path.with_name("spool.db-wal")
        longest = max(longest, journal.stat().st_size if journal.exists() else 0)
        time.sleep(0.1)
    said = mail.communicate()[0]
    assert drains.wait() == 0
    holds_it_open.close()
    sent, _recorded, unrecorded, lost = map(int, said.split())
    print(f"{sent} messages, journal {longest >> 20} MB: {unrecorded} unrecorded, {lost} lost")
    assert sent > 100
    assert (unrecorded, lost) == (0, 0)


def test_a_worker_that_stops_with_unwritten_records_says_how_many(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The spool fails until the end: what was answered without being written is a number in the
    log."""
    place = tmp_path / "spool.db"
    place.mkdir()  # no file can be made there
    spool = Spool(place, patience=0.2, retry=0.1)
    threads = [
        threading.Thread(target=lambda: spool.put(spool_row(evaluation()))) for _ in range(7)
    ]
    with caplog.at_level(logging.ERROR):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        spool.close()
    assert "stopped with 7 messages unwritten" in caplog.text
    assert spool.counts().lost == 7
