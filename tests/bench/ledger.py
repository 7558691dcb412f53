"""What the ledger costs: recording, draining, reading back every report, and building it.

    python -m bench.ledger --messages 1000000 --rows 100000 --reports 20000 [--postgresql]

Prints the time of each step, memory at its highest, and octets of the store for each distinct row.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import msgspec

from dmarc_milter.core.stored import encode
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolOptions, SpoolRow
from dmarc_milter.ledger.spool.spool import Spool
from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.database import connect, fetch
from dmarc_milter.ledger.store.reports import ReportState
from dmarc_milter.ledger.store.retention import Retention, expire
from dmarc_milter.ledger.store.status import size
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.reporting.build import build_report
from dmarc_milter.reporting.run import Asked, ReportContext
from dmarc_milter.reporting.smtp import Mailer, Submission
from fakes.dns_zone import Zone
from fakes.evaluations import NOON, evaluation
from fakes.report_job import organization, reporting
from live.postgres import private_postgres

PARTS = 4


@contextmanager
def step(name: str, number: int) -> Iterator[None]:
    """Prints what the block took, in all and for each of `number`."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name:<44} {wall:8.1f} s  {cpu:8.1f} s CPU  {cpu / number * 1e6:8.1f} us each  highest"
        f" memory {peak:6.0f} MiB",
        flush=True,
    )


def record(folder: Path, number: int) -> None:
    spool, messages = Spool(folder / "record.db"), [evaluation() for _ in range(number)]
    with step(f"record {number} messages", number):
        assert all(spool.record(each) for each in messages)
    spool.close()


def fill(spool: SpoolFile, numbers: range, arguments: argparse.Namespace) -> None:
    """Facts that make, over all messages, `rows` distinct rows in `reports` reports."""
    templates = [from_evaluation(evaluation(f"d{n}.example")) for n in range(arguments.reports)]
    sources = max(arguments.rows // arguments.reports, 1)
    for first in range(numbers.start, numbers.stop, 10_000):
        rows = []
        for number in range(first, min(first + 10_000, numbers.stop)):
            source = number // arguments.reports % sources
            facts = msgspec.structs.replace(
                templates[number % arguments.reports],
                id=f"{number:032x}",
                source_ip=f"10.{source >> 8}.{source & 255}.1",
            )
            rows.append(SpoolRow(facts.id, encode(facts)))
        spool.write(rows)


def run(url: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Drain in equal parts, so that the times show whether it is linear; then read every report,
    then expire."""
    store = Store(connect(url), clock=lambda: NOON.timestamp() + 86400)
    schema.upgrade(store.database)
    spool = SpoolFile(folder / "spool.db", SpoolOptions(max_bytes=1 << 34))
    share = arguments.messages // PARTS
    for part in range(PARTS):
        fill(spool, range(part * share, (part + 1) * share), arguments)
        with step(f"drain part {part + 1} of {PARTS}: {share} messages", share):
            drained = drain(spool, store)
        assert drained[:2] == (share, ""), drained
    [(rows,)] = fetch(store.database, "SELECT count(*) FROM report_row")
    with step(f"read {arguments.reports} reports, {rows} rows", arguments.reports):
        counted, identities = 0, list[str]()
        while claimed := store.reports.claim("bench", ended_before=2**60, at_once=True, limit=500):
            counted += sum(
                number for report in claimed for _, number in store.reports.rows(report.id)
            )
            identities += [report.id for report in claimed]
    assert counted == share * PARTS, counted
    build(store, identities)
    print(f"store: {octets(store, 'report_row') / rows:.0f} octets for each distinct row,", end=" ")
    print(f"{octets(store) / counted:.0f} for each message with the decision log")
    with step("expire the decision log", share * PARTS):
        expire(store.database, Retention(decision_days=0), now=int(NOON.timestamp()) + 86400)
    store.close()
    spool.close()


def build(store: Store, identities: list[str]) -> None:
    """Every report that was claimed, rendered, checked against its schema and queued; in equal
    parts."""
    zone = Zone(
        {
            "legit.example": {"MX": [(10, "mx.example")]},
            "*._report._dmarc.legit.example": {"TXT": ["v=DMARC1"]},
        }
    )
    ask = partial(Asked, zone, lambda: 3600.0)
    tools = ReportContext(
        store,
        reporting(),
        ask,
        organization,
        Mailer(Submission("127.0.0.1", 1)),
        "bench",
        random.Random(1),
    )
    share = max(1, len(identities) // PARTS)
    for first in range(0, share * PARTS, share):
        with step(f"build {share} reports", share):
            for identity in identities[first : first + share]:
                report = store.reports.get(identity)
                assert report is not None
                assert build_report(report, tools) is ReportState.QUEUED, store.reports.get(
                    identity
                )
        zone.calls.clear()


def octets(store: Store, table: str = "") -> int:
    """Of one table with its indexes, or of everything."""
    if store.database.dialect == "sqlite":
        if not table:
            return size(Path(store.database.name))
        [(number,)] = fetch(
            store.database,
            "SELECT sum(length(report_id) + length(row_key) + length(facts) + 8) FROM report_row",
        )
        return int(number)
    what = f"pg_total_relation_size('{table}')" if table else "pg_database_size(current_database())"
    return int(fetch(store.database, f"SELECT {what}")[0][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000, help="the full measure is 1000000")
    parser.add_argument("--rows", type=int, default=10_000, help="the full measure is 100000")
    parser.add_argument("--reports", type=int, default=2_000, help="the full measure is 20000")
    parser.add_argument(
        "--postgresql", action="store_true", help="a private PostgreSQL instead of SQLite"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dmarc-milter-bench-") as name:
        folder = Path(name)
        record(folder, 5000)
        with private_postgres() if arguments.postgresql else nullcontext() as server:
            run(server.url if server else f"sqlite:///{folder}/reports.db", folder, arguments)


if __name__ == "__main__":
    main()
