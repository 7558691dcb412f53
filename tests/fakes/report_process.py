"""The report job as a process to be killed at any moment: `python -m fakes.report_process STORE_URL
SMTP_PORT EPOCH`, without end.

Its clock runs SPEED times as fast, so that leases of dead processes end while the test runs.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
import uuid

from dmarc_milter.ledger.store.store import Store
from dmarc_milter.reporting.run import Asked, ReportContext, run
from dmarc_milter.reporting.smtp import Mailer, Submission
from fakes.dns_zone import Zone
from fakes.report_job import TOMORROW, organization, reporting

SPEED = 120
ADDRESSES = ("a@legit.example", "b@legit.example")
ZONE = {
    "legit.example": {"MX": [(10, "mx.example")]},
    "*._report._dmarc.legit.example": {"TXT": ["v=DMARC1"]},
}


def main(url: str, port: str, epoch: str) -> None:
    logging.disable()
    start = float(epoch)
    store = Store.open(url, clock=lambda: TOMORROW + 1000 + (time.time() - start) * SPEED)
    options = reporting(max_per_day=10**6, max_per_destination=10**6, retry_hours=700.0)
    mailer = Mailer(Submission("127.0.0.1", int(port), timeout=10.0, helo="mx.example"))
    owner = f"{os.getpid()}-{uuid.uuid4().hex}"
    zone = Zone(ZONE)
    while True:
        run(
            ReportContext(
                store,
                options,
                lambda: Asked(zone, lambda: 3600.0),
                organization,
                mailer,
                owner,
                random.Random(),
            ),
            now=True,
        )
        time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
