"""`dmarc-milter store upgrade | expire | drain | compact | backup | restore |
erase | status`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import signal
import threading
import time
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from dmarc_milter.cli.actions import add_action
from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, EXIT_TEMPFAIL
from dmarc_milter.cli.store.copies import (
    backup_arguments,
    restore_arguments,
    run_backup,
    run_restore,
)
from dmarc_milter.cli.store.erasing import erase_arguments, run_erase
from dmarc_milter.cli.times import shown
from dmarc_milter.config import Config, load
from dmarc_milter.config.paths import spool_path
from dmarc_milter.ledger.connect import database_of, retention_of, spool_of, store_of
from dmarc_milter.ledger.dialect import COMMAND, DRAIN, JOB
from dmarc_milter.ledger.drain import drain, keep_draining
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.compact import compact
from dmarc_milter.ledger.store.database import Database
from dmarc_milter.ledger.store.gaps import Lost
from dmarc_milter.ledger.store.retention import clean_up
from dmarc_milter.ledger.store.status import (
    MOST_COUNTED,
    SpoolStatus,
    StoreStatus,
    spool_status,
    store_status,
)
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.telemetry.log import open_log

LOG = logging.getLogger("dmarc_milter.ledger")

ARGUMENTS = {
    "backup": backup_arguments,
    "restore": restore_arguments,
    "erase": erase_arguments,
}
ONE_DRAIN = replace(COMMAND, statement=DRAIN.statement)
"""Somebody waits for it; a statement of a large batch may take as long as while it follows."""
EXPIRE_EVERY = 3600
"""Seconds between clean-ups of the following drain."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True)
    for name, sentence in (
        ("upgrade", "bring the store's schema up to this program"),
        ("expire", "delete what is older than the retention settings allow"),
        ("drain", "move this host's spool into the store"),
        ("compact", "give the room of deleted rows in a SQLite store back to the disk"),
        ("backup", "copy a SQLite store while the daemon runs; for PostgreSQL say how"),
        (
            "restore",
            "put a copy in the store's place; reports that were sent meanwhile are not sent again",
        ),
        ("erase", "forget a domain, an address that reports go to, or a source"),
        ("status", "the state of spool and store, and what to do if something is wrong"),
    ):
        command = add_action(what, "store", name, sentence)
        command.add_argument("--json", action="store_true", help="one JSON object")
        if name == "drain":
            command.add_argument(
                "--follow",
                action="store_true",
                help="repeat every few seconds until SIGTERM; expire every hour",
            )
            command.add_argument("--parent", type=int, default=0, help=argparse.SUPPRESS)
        elif name in ARGUMENTS:
            ARGUMENTS[name](command)
        elif name == "expire":
            command.add_argument(
                "--clock-is-right",
                action="store_true",
                help="believe this host's clock although the store has seen another time",
            )


def run(arguments: argparse.Namespace) -> int:
    config = load(arguments.config)
    actions = {
        "upgrade": _upgrade,
        "expire": _expire,
        "drain": _drain,
        "compact": _compact,
        "backup": run_backup,
        "restore": run_restore,
        "erase": run_erase,
        "status": _status,
    }
    try:
        return actions[arguments.what](config, arguments)
    except StoreError as error:
        from dmarc_milter.cli.terminal import unavailable

        return unavailable(error)


def _print(document: object, sentence: str, *, as_json: bool) -> None:
    print(msgspec.json.encode(document).decode() if as_json else sentence)


def _upgrade(config: Config, arguments: argparse.Namespace) -> int:
    with closing(database_of(config, Access.CREATE, JOB)) as database:
        steps = schema.upgrade(database, by_day=config.store.decision_partitions)
    sentence = (
        f"{database.name}: applied {', '.join(steps)}"
        if steps
        else f"{database.name}: is up to date"
    )
    _print(
        {"store": database.name, "applied": steps, "schema": len(schema.STEPS)},
        sentence,
        as_json=arguments.json,
    )
    return EXIT_OK


def _expire(config: Config, arguments: argparse.Namespace) -> int:
    with closing(store_of(config, Access.CREATE, JOB)) as store:
        store.ready()
        gone = clean_up(
            store.database,
            retention_of(config),
            now=int(time.time()),
            trusted=arguments.clock_is_right,
        )
    words = ", ".join(f"{number} of {table}" for table, number in gone.items()) or "nothing was due"
    _print({"removed": gone}, words, as_json=arguments.json)
    return EXIT_OK


def _compact(config: Config, arguments: argparse.Namespace) -> int:
    """0, or 1 when there is nothing that could be done."""
    with closing(store_of(config, Access.CREATE)) as store:
        store.ready()
        done = compact(store.database)
    _print(
        {"bytes_before": done.before, "bytes_after": done.after, "problem": done.problem},
        done.problem or f"{done.before:,} bytes before, {done.after:,} bytes now",
        as_json=arguments.json,
    )
    return EXIT_NO if done.problem else EXIT_OK


def _drain(config: Config, arguments: argparse.Namespace) -> int:
    if arguments.follow:
        return _follow(config, arguments.parent)
    with (
        closing(spool_of(config, Access.OWN)) as spool,
        closing(store_of(config, Access.OWN, ONE_DRAIN)) as store,
    ):
        drained = drain(spool, store)
    sentence = f"{drained.messages} messages" + (
        f"; stopped early: {drained.problem}" if drained.problem else ""
    )
    _print(
        {"messages": drained.messages, "problem": drained.problem}, sentence, as_json=arguments.json
    )
    return EXIT_TEMPFAIL if drained.problem else EXIT_OK


def _follow(config: Config, parent: int) -> int:
    """The background job: drain every few seconds, expire every hour, until SIGTERM or SIGINT, or
    until `parent` is gone."""
    open_log(config, ours=logging.WARNING)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    spool, store = spool_of(config, Access.OWN), store_of(config, Access.OWN, DRAIN)
    last = time.monotonic()

    def wait(seconds: float) -> bool:
        nonlocal last
        if time.monotonic() - last > EXPIRE_EVERY:
            last = time.monotonic()
            _forget(config, store)
        return stopping.wait(seconds) or (parent > 0 and os.getppid() != parent)

    keep_draining(spool, store, wait)
    spool.close()
    store.close()
    return EXIT_OK


def _forget(config: Config, store: Store) -> None:
    """By a connection of its own, since to count a large day takes longer than a batch; a file has
    one, whose locks the end of another would give up."""
    job: AbstractContextManager[Database] = (
        nullcontext(store.database)
        if store.database.dialect == "sqlite"
        else closing(database_of(config, Access.OWN, JOB))
    )
    try:
        with job as database:
            clean_up(database, retention_of(config), now=int(time.time()))
    except StoreError as error:
        LOG.error("expire: %s", error)


def _status(config: Config, arguments: argparse.Namespace) -> int:
    """0 when all is well, 1 when something needs the administrator."""
    with closing(database_of(config, Access.READ)) as database:
        spool, store = (
            spool_status(spool_path(config), config.store.spool_max_bytes),
            store_status(database),
        )
    if arguments.json:
        print(msgspec.json.encode({"spool": _plain(spool), "store": _plain(store)}).decode())
    else:
        print("\n".join((*_spool_lines(spool), *_kept(spool), *_store_lines(store), *_kept(store))))
    return (
        EXIT_NO
        if store.problem or store.moved_aside or spool.remedy or spool.moved_aside
        else EXIT_OK
    )


def _plain(status: SpoolStatus | StoreStatus) -> dict[str, object]:
    document = dataclasses.asdict(status) | {
        "moved_aside": [str(file) for file in status.moved_aside]
    }
    if isinstance(status, SpoolStatus):
        return document | {"path": str(status.path)}
    return document | {"lost": [loss._asdict() for loss in status.lost]}


def _spool_lines(spool: SpoolStatus) -> list[str]:
    waiting = (
        f"{spool.waiting} messages waiting, " if spool.waiting or not spool.remedy else ""
    )  # else it may not have let us count
    kept = f"{waiting}{spool.octets:,} bytes" if spool.octets or not spool.problem else ""
    problem = spool.problem.removeprefix(f"{spool.path}: ")
    lines = [f"spool  {spool.path}: {'; '.join(line for line in (problem, kept) if line)}"]
    if spool.remedy:
        lines.append(f"       what to do: {spool.remedy}")
    return lines


def _kept(status: SpoolStatus | StoreStatus) -> list[str]:
    return [
        f"       damaged file that was kept: {file}; remove it when it is no longer needed"
        for file in status.moved_aside
    ]


def _loss_line(loss: Lost) -> str:
    return (
        f"       {loss.lost:>10,} messages of {loss.host} were lost by the store (a restored"
        f" backup, a failover), {loss.again:,} more were applied again from its spool; found"
        f" {shown(loss.at)} UTC"
    )


def _at_most(number: int, table: str) -> str:
    """Of a table that is not counted to its end that there is more."""
    more = table != "decision" and number > MOST_COUNTED
    return f"over {MOST_COUNTED:,}" if more else f"{number:,}"


def _store_lines(store: StoreStatus) -> list[str]:
    if store.problem and store.rows is None:
        return [f"store  {store.problem}", f"       what to do: {store.remedy}"]
    drained = (
        datetime.fromtimestamp(store.last_drained, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        if store.last_drained
        else "never"
    )
    lines = [
        f"store  {store.name}: schema {store.schema}, last drained {drained}"
        + (f", {store.octets:,} bytes" if store.octets else "")
    ]
    lines += [
        f"       {_at_most(number, table):>10} {table.replace('_', ' ')}"
        for table, number in (store.rows or {}).items()
    ]
    lines += [
        f"       {number:>10,} reports {state}" for state, number in (store.reports or {}).items()
    ]
    if store.problem:
        lines[1:1] = [f"       {store.problem}", f"       what to do: {store.remedy}"]
    lines += [_loss_line(loss) for loss in store.lost]
    if store.folded:
        lines.append(
            f"       {store.folded:>10,} messages of this week counted without a row of their own"
            " (caps reached)"
        )
    if store.unlogged:
        lines.append(
            f"       {store.unlogged:>10,} messages counted and not in the decision log: they came"
            " too late for it"
        )
    return lines
