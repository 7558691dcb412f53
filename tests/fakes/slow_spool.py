"""A mail path on a disk that takes its time: `python -m fakes.slow_spool SPOOL SECONDS RATE FLAG`
writes messages, and prints what became of them. FLAG is made after the first."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from dmarc_milter.ledger.spool.spool import Spool
from fakes.evaluations import evaluation
from fakes.stores import spool_row


def main(path: str, seconds: str, rate: str, flag: str) -> None:
    spool = Spool(Path(path))
    sample = b"x" * 50_000  # the journal grows as in minutes of ordinary mail
    assert spool.put(spool_row(evaluation(), sample))
    Path(flag).touch()
    begin, number = time.monotonic(), 0
    while (now := time.monotonic() - begin) < float(seconds):
        if number < now * float(rate):
            number += 1
            spool.put(spool_row(evaluation(f"d{number % 7}.example"), sample))
        else:
            time.sleep(0.001)
    counts = spool.counts()
    Path(flag).unlink()
    print(number, counts.recorded, counts.unrecorded, counts.lost)
    spool.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
