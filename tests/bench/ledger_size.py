"""Every page and command over a large decision log, which is filled by SQL and not drained.

    python -m bench.ledger_size --messages 10000000 --postgresql
    python -m bench.ledger_size --messages 2000000
    python -m bench.ledger_size --messages 2000000 --keep /var/tmp/filled
    python -m bench.ledger_size --messages 2000000 --filled /var/tmp/filled

Prints the shortest, the middle and the longest of five times for each question, the middle of the
processor time that it and the server spend, what filling and the schema steps took, and what
forgetting a day takes. A page is asked of the application, a command is a process of its own: the
start of Python is part of it. Needs 1.2 KB of disk for each message, below --folder.
"""

from __future__ import annotations

import argparse
import compileall
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import dmarc_milter
from bench.ledger_hosts import server_seconds
from dmarc_milter.core.policy.decide import Disposition
from dmarc_milter.core.stored import encode
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.ledger.store import partitions, schema
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, connect, fetch
from dmarc_milter.ledger.store.retention import Retention, expire
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web import WebOptions, create_app
from fakes.evaluations import evaluation
from fakes.filled import NUMBERS
from live.place import private_folder
from live.postgres import Postgres, private_postgres

DAY = 86400
DAYS = 14
TIMES = 5
DOMAINS = 50_000
CLIENTS = 200_000


def cycle(step: int, length: int) -> str:
    """A number below `length` for each n, in no order that an index would like."""
    return f"((n * {step} + 13) - (n * {step} + 13) / {length} * {length})"


SHARE = f"({cycle(7919, 10007)} / 10007.0)"
"""A number from 0 to 1 for each n."""
AUTHOR = (
    f"'d' || CAST({SHARE} * {SHARE} * {SHARE} * {SHARE} * {DOMAINS} AS BIGINT) || CASE WHEN"
    f" {cycle(17, 5)} = 0 THEN '.news' ELSE '' END || '.example'"
)
"""Few domains with much mail, many with little; every fifth has its subdomain."""
OWN = f"CASE WHEN {cycle(41, 10)} < 9 THEN {cycle(7919, 10007)} * 37 ELSE {cycle(31, 1000)} END"
OUTCOME = f"(({OWN}) - ({OWN}) / 1000 * 1000)"
"""A number below 1000: for nine of ten messages that of their author domain."""
STATUS = (
    f"CASE WHEN {OUTCOME} < 640 THEN 'pass' WHEN {OUTCOME} < 900 THEN 'none' WHEN {OUTCOME} < 990"
    f" THEN 'fail' WHEN {OUTCOME} < 998 THEN 'temperror' ELSE 'permerror' END"
)
DISPOSITION = (
    f"CASE WHEN {OUTCOME} < 640 THEN 'pass' WHEN {OUTCOME} < 940 THEN 'none' WHEN {OUTCOME} < 970"
    f" THEN 'reject' WHEN {OUTCOME} < 990 THEN 'quarantine' WHEN {OUTCOME} < 998 THEN 'tempfail'"
    " ELSE 'none' END"
)
WOULD_BE = f"CASE WHEN {OUTCOME} BETWEEN 930 AND 939 THEN 'reject' ELSE '' END"
DEFERRAL = f"CASE WHEN {OUTCOME} BETWEEN 990 AND 997 THEN 'dns' ELSE '' END"


@contextmanager
def step(name: str) -> Iterator[None]:
    """Prints how long the block took."""
    started = time.perf_counter()
    yield
    print(f"{name:<60} {time.perf_counter() - started:9.2f} s", flush=True)


def fill(database: Database, number: int, now: int) -> None:
    """So many decisions of the last fourteen days, without indexes meanwhile; then the sums, by the
    schema's own steps."""
    first = now // DAY * DAY - (DAYS - 1) * DAY
    if database.dialect == "postgresql":
        partitions.make(database, range(first, now, DAY))
    indexes = _take_indexes(database)
    hexadecimal = (
        "printf('%032x', n)" if database.dialect == "sqlite" else "lpad(to_hex(n), 32, '0')"
    )
    hosts = cycle(5, 3) if database.dialect == "postgresql" else "1"
    found = evaluation("legit.example")
    found = replace(found, verdict=replace(found.verdict, disposition=Disposition.REJECT))
    sql = (
        "INSERT INTO decision (id, at, host, queue_id, message_id, author_domain, policy_domain,"
        " source_ip, status, disposition, would_be, deferral, failing_name, facts)"
        f" {NUMBERS[database.dialect].replace('(0,', '(CAST(? AS BIGINT),')} {hexadecimal},"
        f" {first} + n * {now - first} / {number}, 'mx' || {hosts}, '4Q' || n, n ||"
        f" '.message@mail.example', {AUTHOR}, {AUTHOR}, '192.0.' || {cycle(104729, CLIENTS)},"
        f" {STATUS}, {DISPOSITION}, {WOULD_BE}, {DEFERRAL}, {DEFERRAL}, ? FROM t"
    )
    facts = encode(from_evaluation(found))
    with step(f"fill {number:,} decisions"):
        if database.dialect == "sqlite":
            attempt(database, lambda transaction: transaction.run(sql, (number, facts)))
        else:
            share = number // 20
            for part in range(20):
                values = (part * share, (part + 1) * share, facts)
                attempt(database, lambda transaction, v=values: transaction.run(sql, v))
    with step("its indexes"):
        for definition in indexes:
            _at_length(database, definition)
    with step("the totals"):
        _at_length(
            database,
            "INSERT INTO daily (day, status, disposition, would_be, messages) SELECT at / 86400 *"
            " 86400, status, disposition, would_be, count(*) FROM decision GROUP BY 1, 2, 3, 4",
        )
    with step("the schema steps that make the sums and their indexes"):
        schema.upgrade(database)
    with step("ANALYZE"):
        database.alone(
            "ANALYZE" if database.dialect == "sqlite" else "VACUUM ANALYZE", seconds=3600
        )


def _at_length(database: Database, sql: str) -> None:
    def work(transaction: Transaction) -> None:
        transaction.at_length()
        if database.dialect == "postgresql":
            transaction.run("SET LOCAL maintenance_work_mem = '512MB'")
        transaction.run(sql)

    attempt(database, work)


def _take_indexes(database: Database) -> list[str]:
    """Drop the log's indexes; the statements that make them again."""
    if database.dialect == "sqlite":
        rows = fetch(
            database,
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'decision' AND"
            " sql IS NOT NULL",
        )
        drops, again = [f"DROP INDEX {name}" for name, _ in rows], [sql for _, sql in rows]
    else:
        rows = fetch(
            database,
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'decision' AND schemaname"
            " = current_schema() AND indexname !~ 'pkey'",
        )
        key = "ALTER TABLE decision"
        drops = [f"DROP INDEX {name}" for name, _ in rows]
        again = [sql.replace(" ON ONLY ", " ON ") for _, sql in rows]
        drops.append(f"{key} DROP CONSTRAINT {_primary(database)}")
        again.insert(0, f"{key} ADD PRIMARY KEY (id, at)")
    for sql in drops:
        attempt(database, lambda transaction, s=sql: transaction.run(s))
    return again


def _primary(database: Database) -> str:
    sql = (
        "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass('decision') AND contype ="
        " 'p'"
    )
    return str(fetch(database, sql)[0][0])


SERVER: list[Path] = []
"""The data directory of the PostgreSQL whose processor time is counted."""


def processors() -> float:
    """Processor seconds of this process, its children that have ended, and the server, so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = time.process_time() + children.ru_utime + children.ru_stime
    return own + sum(map(server_seconds, SERVER))


def measure(name: str, ask: Callable[[], object]) -> float:
    """Prints the shortest, the middle and the longest of a few times; the longest."""
    times, cpu = [], []
    for _ in range(TIMES):
        started, before = time.perf_counter(), processors()
        ask()
        times.append(time.perf_counter() - started)
        cpu.append(processors() - before)
    mark = "" if max(times) < 0.5 else "   over 0.5 s"
    print(
        f"{name:<60} {min(times):7.3f} {median(times):7.3f} {max(times):7.3f} s by the clock,"
        f" {median(cpu):6.3f} s of processors{mark}",
        flush=True,
    )
    return max(times)


def questions(url: str, folder: Path, number: int) -> None:
    """Every page and command that reads."""
    compileall.compile_dir(Path(dmarc_milter.__file__).parent, quiet=1)  # as it is installed
    config = folder / "c.toml"
    config.write_text(
        f'[store]\nurl = "{url}"\nspool = "{folder}/spool.db"\ndecision_max_rows = 100000000\n'
        '[web]\nlisten = "127.0.0.1:0"\n'
    )
    client = create_app(WebOptions(lambda: Store(connect(url)), folder / "spool.db")).test_client()
    with closing(connect(url)) as database:
        sql = "SELECT author_domain FROM decision GROUP BY 1 ORDER BY count(*) LIMIT 1"
        [(rare,)] = fetch(database, sql)
    deep = f"{int(time.time()) - 6 * DAY}-{'f' * 32}"
    for page in (
        "/",
        "/?days=14",
        "/domains?days=14",
        "/domains?days=14&failing=1&page=3",
        "/domains/d0.example?days=14",
        f"/domains/{rare}?days=14",
        "/decisions?days=14",
        f"/decisions?days=14&after={deep}",
        "/decisions?days=14&author_domain=d0.example",
        "/decisions?days=14&author_domain=example",
        f"/decisions?days=14&author_domain={rare}",
        "/decisions?days=14&source_ip=192.0.77",
        "/decisions?days=14&status=permerror",
        "/decisions?days=14&disposition=quarantine",
        "/decisions?days=14&status=pass&disposition=reject",
        f"/decisions?days=14&key=4Q{number // 2}",
        f"/decisions/{number // 2:032x}",
        "/impact?days=7",
        "/impact?days=14",
        "/reports",
        "/health",
    ):
        assert client.get(page).status_code == 200, page
        measure(f"page {page}"[:60], lambda page=page: client.get(page))
    for words in (
        ("why", f"4Q{number // 3}"),
        ("why",),
        ("why", "--domain", "d0.example"),
        ("why", "--domain", "example"),
        ("why", "--result", "permerror"),
        ("why", "--would-be", "reject"),
        ("why", "--disposition", "tempfail"),
        ("impact",),
        ("impact", "--domain", "d0.example"),
        ("impact", "--days", "1"),
        ("stats",),
        ("stats", "--json"),
        ("store", "status"),
        ("summary",),
        ("report", "list"),
    ):
        measure(" ".join(words), lambda words=words: quietly(*words, "--config", str(config)))


def quietly(*words: str) -> None:
    """The command as it is typed: a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "dmarc_milter", *words], check=False, capture_output=True
    )
    assert run.returncode in (0, 1), run.stderr.decode()


def forgetting(database: Database, number: int, now: int) -> None:
    """The bound by number, and the oldest day."""
    sql = "SELECT at FROM decision ORDER BY at DESC LIMIT 1 OFFSET ?"
    measure("the query for decision_max_rows", lambda: fetch(database, sql, (number * 9 // 10,)))
    with step(f"expire the oldest day ({number // DAYS:,} decisions)"):
        later = (now // DAY + 1) * DAY
        expire(database, Retention(decision_days=DAYS, decision_rows=10**9), now=later)


def _before_sums(database: Database) -> None:
    """An empty store of the last version that knew no sums: its log is filled, and brought up to
    date."""
    steps = schema.STEPS
    schema.STEPS = steps[: [step.name for step in steps].index("rollups")]
    try:
        schema.upgrade(database)
    finally:
        schema.STEPS = steps


def filled(url: str, number: int) -> int:
    """Fill an empty store; when that began."""
    now = int(time.time())
    with closing(connect(url)) as database:
        _before_sums(database)
        fill(database, number, now)
    return now


def run(url: str, folder: Path, number: int) -> None:
    now = filled(url, number)
    questions(url, folder, number)
    with closing(connect(url)) as database:
        forgetting(database, number, now)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--folder", default="/var/tmp")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="the store stays there")
    parser.add_argument("--filled", metavar="FOLDER", type=Path, help="one that was kept there")
    arguments = parser.parse_args()
    os.environ["COLUMNS"] = "120"
    with private_folder("bench", parent=arguments.folder) as folder:
        if arguments.filled or arguments.keep:
            with kept(arguments.filled or arguments.keep, arguments.postgresql) as url:
                if arguments.keep:
                    filled(url, arguments.messages)
                with closing(connect(url)) as database:
                    schema.upgrade(database)  # of a program that was older then
                questions(url, folder, arguments.messages)
            return
        if not arguments.postgresql:
            run(f"sqlite:///{folder}/reports.db", folder, arguments.messages)
            return
        with private_postgres(parent=arguments.folder) as server:
            SERVER.append(server.folder / "data")
            run(server.url, folder, arguments.messages)


@contextmanager
def kept(folder: Path, postgresql: bool) -> Iterator[str]:
    """The URL of a store that stays in that folder."""
    folder.mkdir(mode=0o755, exist_ok=True)
    if not postgresql:
        yield f"sqlite:///{folder}/reports.db"
        return
    there = (folder / "pg").is_dir()
    (folder / "pg").mkdir(mode=0o755, exist_ok=True)
    server = Postgres(folder / "pg", there=there)
    SERVER.append(server.folder / "data")
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


if __name__ == "__main__":
    main()
