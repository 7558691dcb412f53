"""Processes for fault tests, to be killed at any moment: `python -m fakes.ledger_jobs
record|drain|send ...`, each without end."""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import time
import uuid
from pathlib import Path

from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.spool.file import SpoolFile
from dmarc_milter.ledger.spool.spool import Spool
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.ledger.store.deliveries import DeliveryState
from dmarc_milter.ledger.store.reports import Document, NewDelivery
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import evaluation

SPEED = 300
"""Seconds of the senders' clock in one second: leases of dead senders end while the test runs."""
ADDRESSES = ("a@x.example", "b@y.example")


def announce(log: int, text: str) -> None:
    """One line, whole or not at all: the test's own memory, which no kill loses."""
    os.write(log, text.encode() + b"\n")


def record(spool: Spool, log: int) -> None:
    """A worker: whatever was recorded before `announce` was answered."""
    while True:
        one = evaluation(
            f"d{random.randrange(5)}.example",
            id=uuid.uuid4().hex,
            source_ip=f"192.0.2.{random.randrange(9)}",
        )
        if spool.record(one):
            announce(log, one.id)
        time.sleep(0.001)


def send(store: Store, log: int) -> None:
    """The report job, with a file for an MTA: what stands there was delivered, whatever became of
    us afterwards."""
    owner = uuid.uuid4().hex
    while True:
        for report in store.reports.claim(owner, ended_before=2**60, at_once=True, limit=2):
            total = sum(number for _, number in store.reports.rows(report.id))
            document = Document("rfc9990", f"{report.id}.xml.gz", str(total).encode())
            store.reports.queue(
                report.id,
                owner,
                [document],
                [NewDelivery(each, "rfc9990", 0) for each in ADDRESSES],
            )
        for delivery in store.deliveries.claim(owner, limit=2):
            built = store.reports.document(delivery.report_id, "rfc9990")
            assert built is not None
            announce(log, f"{delivery.report_id} {delivery.address} {built.content.decode()}")
            store.deliveries.settle(delivery, owner, DeliveryState.SENT, "250 ok")
        time.sleep(0.01)


def main(job: str, place: str, log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    logging.disable()
    if job == "record":
        spool = Spool(Path(place))
        for _ in range(4):
            threading.Thread(target=record, args=(spool, descriptor), daemon=True).start()
        threading.Event().wait()
    elif job == "drain":
        path, _, url = place.partition("|")
        while True:
            drain(SpoolFile(Path(path)), Store(connect(url)), batch=random.randrange(1, 80))
            time.sleep(0.005)
    else:
        send(Store.open(place, clock=lambda: time.time() * SPEED), descriptor)


if __name__ == "__main__":
    main(*sys.argv[1:])
