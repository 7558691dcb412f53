"""Spool and store as the commands need them, from the configuration."""

from __future__ import annotations

import logging
import math
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

from dmarc_milter.config import Config
from dmarc_milter.config.identities import identify
from dmarc_milter.config.paths import spool_path
from dmarc_milter.config.secrets import store_password
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.dialect import COMMAND, JOB, Waits
from dmarc_milter.ledger.drain import BATCH, Drained, drain, host_name
from dmarc_milter.ledger.errors import SpoolError, StoreError
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.postgres import Password
from dmarc_milter.ledger.read_only_store import ReadOnlySqlite, in_memory
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolOptions
from dmarc_milter.ledger.spool.reader import SpoolReader
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.daily_caps import Caps, StoreOptions
from dmarc_milter.ledger.store.database import Database, connect
from dmarc_milter.ledger.store.retention import STALE, Retention
from dmarc_milter.ledger.store.status import is_there
from dmarc_milter.ledger.store.store import Store

DRAIN_SECONDS = 4.0
"""That a command which shows something drains before."""

NOT_ALL = "the latest messages are not in this answer: %s"
LOG = logging.getLogger("dmarc_milter.ledger")


def database_of(config: Config, access: Access, waits: Waits = COMMAND) -> Database:
    """The store's database, not opened yet. Raises ConfigError for a password file that cannot be
    read."""
    path = sqlite_path(config)
    if path is not None and access is Access.READ:
        return ReadOnlySqlite(path)
    return connect(config.store.url, _password_of(config), access, waits)


def _password_of(config: Config) -> Password:
    """Asked for again with each connection: who changes the password has to start nothing anew.
    Raises ConfigError where it cannot be read now."""
    store_password(config)
    return partial(store_password, config)


def sqlite_path(config: Config) -> Path | None:
    """The file of a store on one machine; None for PostgreSQL."""
    url, scheme = config.store.url, "sqlite:///"
    return Path(url.removeprefix(scheme)) if url.startswith(scheme) else None


def store_of(config: Config, access: Access, waits: Waits = COMMAND) -> Store:
    """The store, not opened yet: `ready()` or the first use does."""
    return _store_on(config, database_of(config, access, waits))


def _store_on(config: Config, database: Database) -> Store:
    options = StoreOptions(
        Caps(rows=config.store.max_rows),
        config.reporting.honor_ri,
        config.store.decision_days,
        identify(config.reporting.identities),
    )
    return Store(database, options)


def reading_store(config: Config) -> Store:
    """The store for questions, its schema checked: the replica that `read_url` names, or while that
    does not answer the store itself. Raises StoreError."""
    if config.store.read_url and sqlite_path(config) is None:
        replica = _store_on(
            config, connect(config.store.read_url, _password_of(config), Access.READ, COMMAND)
        )
        try:
            replica.ready()
            return replica
        except StoreError as error:
            replica.close()
            LOG.warning("[store] read_url: %s; [store] url is asked", error)
    store = store_of(config, Access.READ)
    store.ready()
    return store


def replica_problem(config: Config) -> str:
    """Why questions go to [store] url although `read_url` names another server; "" where they do
    not. Raises ConfigError for a password that cannot be read."""
    if not config.store.read_url or sqlite_path(config) is not None:
        return ""
    replica = _store_on(
        config, connect(config.store.read_url, _password_of(config), Access.READ, COMMAND)
    )
    try:
        replica.ready()
    except StoreError as error:
        return str(error)
    finally:
        replica.close()
    return ""


def spool_of(config: Config, access: Access) -> SpoolFile:
    """This host's spool, not opened yet."""
    options = SpoolOptions(
        max_bytes=config.store.spool_max_bytes,
        access=access,
        keep_seconds=config.store.keep_drained_hours * 3600,
    )
    return SpoolFile(spool_path(config), options)


def retention_of(config: Config) -> Retention:
    """What is kept; a report at least until it is too old to begin with, and for its retry window
    after that."""
    store, retry_days = config.store, config.reporting.retry_hours / 24
    return Retention(
        store.decision_days,
        store.decision_max_rows,
        store.report_days,
        max(STALE / DAY, retry_days) + 1,
        keep_untried=config.reporting.is_on,
        keep_untried_failures=config.reporting.is_on and config.reporting.failure_reports,
    )


def answering_store(config: Config) -> Store:
    """The store for a command that only asks, with everything counted that this host has answered
    so far. Raises StoreError; says so when the spool cannot be drained.

    No file is made, renamed or brought up to date: where there is no store yet, or an empty file,
    the answer comes from the spool alone, which stays as it is.
    """
    path = sqlite_path(config)
    if path is None and config.store.read_url:
        drained_store(config, Access.CHANGE).close()
        return reading_store(config)
    if path is None or not _is_empty(path) or not is_there(path.parent):
        return drained_store(config, Access.CHANGE)
    store = _store_on(config, in_memory(path))
    if is_there(spool_path(config)):
        return _told(store, _copied(SpoolReader(spool_path(config)), store))
    return _told(store, Drained(0, f"{path}: there is no store yet, and no spool"))


def _is_empty(path: Path) -> bool:
    """Whether nothing is there, or a file without content."""
    try:
        return path.is_file() and path.stat().st_size == 0 if is_there(path) else True
    except OSError:
        return False


def drained_store(config: Config, access: Access = Access.CREATE, waits: Waits = COMMAND) -> Store:
    """The same for a command that changes something: a missing store is made. A job drains
    everything, a command what it can in a few seconds; one that met a store which does not answer
    ends there, before somebody waits a second time. Raises StoreError."""
    store = store_of(config, access, waits)
    store.ready()
    seconds = DRAIN_SECONDS if waits == COMMAND else math.inf
    drained = _drained(config, store, seconds)
    if waits == JOB:
        if drained.problem:
            LOG.warning(NOT_ALL, drained.problem)
        return store
    if drained.problem and store.database.silent:
        store.close()
        raise StoreError("unreachable", drained.problem)
    return _told(store, drained)


def _told(store: Store, drained: Drained) -> Store:
    if drained.problem:
        print(
            f"dmarc-milter: {NOT_ALL % drained.problem}",
            file=sys.stderr,
        )
    return store


def _drained(config: Config, store: Store, seconds: float) -> Drained:
    if not is_there(spool_path(config)):
        return Drained(0)
    with closing(spool_of(config, Access.CHANGE)) as spool:
        return drain(spool, store, seconds=seconds)


def _copied(spool: SpoolReader, store: Store) -> Drained:
    """What waits in the spool, which keeps it. Raises StoreError."""
    messages = last = 0
    with closing(spool):
        try:
            identity = spool.identity()
            while rows := spool.rows(last, BATCH):
                messages += store.apply(Batch(identity, host_name(), rows))
                last = rows[-1][0]
        except SpoolError as error:
            return Drained(messages, str(error))
    return Drained(messages)
