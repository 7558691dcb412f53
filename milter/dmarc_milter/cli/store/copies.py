"""`dmarc-milter store backup | restore`."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from pathlib import Path

from dmarc_milter.cli.main import EXIT_NO, EXIT_OK
from dmarc_milter.cli.terminal import print_json
from dmarc_milter.config import Config
from dmarc_milter.config.paths import spool_path
from dmarc_milter.ledger import tombstones
from dmarc_milter.ledger.backup import backup, restore
from dmarc_milter.ledger.clock import believe
from dmarc_milter.ledger.connect import sqlite_path, store_of
from dmarc_milter.ledger.dialect import JOB
from dmarc_milter.ledger.erase import erase_again
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.sent_log import SentLog, beside
from dmarc_milter.reporting.restored import sent

POSTGRESQL_BACKUP = """\
A PostgreSQL store is backed up with the server's own tools, for instance
  pg_dump --format=custom --file={file} '{name}'"""
POSTGRESQL_RESTORE = """\
A PostgreSQL store is restored with the server's own tools, into an empty database (over a store
that is there, newer tables would stay):
  1. on every host: systemctl stop dmarc-milter-report.timer dmarc-milter-drain dmarc-milter-web
     (mail goes on)
  2. on the server: give the database another name (ALTER DATABASE ... RENAME TO ...) and make an
     empty one with the old name and owner (createdb --owner=...)
  3. pg_restore --dbname='{name}' {file}
  4. once, if this program is newer than the backup: dmarc-milter store upgrade
  5. on every host: dmarc-milter store restore     (without a file: tells what this host has sent)
  6. on every host: systemctl start dmarc-milter-drain dmarc-milter-report.timer, and
     dmarc-milter-web where it ran"""


def backup_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="FILE", help="the copy; must not be there yet")


def restore_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="a copy of `store backup`; without it only the sent logs are read",
    )
    command.add_argument(
        "--sent-log",
        type=Path,
        action="append",
        default=[],
        metavar="LOG",
        help="of another host that sends reports (may be repeated); this host's is always read",
    )


def run_backup(config: Config, arguments: argparse.Namespace) -> int:
    """0, or 1 with the commands for PostgreSQL. Raises StoreError."""
    path = sqlite_path(config)
    if path is None:
        print(POSTGRESQL_BACKUP.format(file=arguments.file, name=_name(config)))
        return EXIT_NO
    size = backup(path, arguments.file)
    if arguments.json:
        print_json({"file": str(arguments.file), "octets": size})
    else:
        print(f"{arguments.file}: {size:,} bytes")
    return EXIT_OK


def run_restore(config: Config, arguments: argparse.Namespace) -> int:
    """0, or 1 with the commands for PostgreSQL. Raises StoreError."""
    path, kept = sqlite_path(config), None
    if arguments.file is not None:
        if path is None:
            print(POSTGRESQL_RESTORE.format(file=arguments.file, name=_name(config)))
            return EXIT_NO
        kept = restore(arguments.file, path).kept
    access = Access.CREATE if arguments.file is not None else Access.CHANGE
    with closing(store_of(config, access, JOB)) as store:
        store.ready()
        logs = [beside(spool_path(config)), *arguments.sent_log]
        missing = [str(log) for log in arguments.sent_log if not log.exists()]
        if missing:
            raise StoreError("refused", f"{', '.join(missing)}: no such file")
        told = sum(store.handed_over.tell(sent(SentLog(log))) for log in logs)
        believe(store.database, int(time.time()), trusted=True)
        erased = sum(erase_again(store, _tombstones(config)).values())
    if arguments.json:
        print_json({"kept": str(kept) if kept else "", "sent_meanwhile": told, "erased": erased})
        return EXIT_OK
    if kept:
        print(f"what was there before is in {kept}")
    if erased:
        print(f"{erased} rows that this host had erased since were erased again")
    print(
        f"{told} deliveries had left since and are not sent again; the next drain applies"
        " what the spool still keeps"
    )
    return EXIT_OK


def _tombstones(config: Config) -> list[tombstones.Tombstone]:
    path = tombstones.beside(spool_path(config))
    try:
        return tombstones.read(path)
    except OSError as error:
        raise StoreError("refused", f"{path}: {error.strerror}") from None


def _name(config: Config) -> str:
    with closing(store_of(config, Access.READ)) as store:
        return store.database.name
