"""The drain beside `fakes.slow_spool`: `python -m fakes.slow_drain SPOOL URL SECONDS` drains for
that long."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from dmarc_milter.ledger.drain import keep_draining
from dmarc_milter.ledger.spool.file import SpoolFile
from dmarc_milter.ledger.store.store import Store


def main(path: str, url: str, seconds: str) -> None:
    end = time.monotonic() + float(seconds)

    def is_over(pause: float) -> bool:
        time.sleep(pause)
        return time.monotonic() > end

    keep_draining(SpoolFile(Path(path)), Store.open(url), is_over, interval=1.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
