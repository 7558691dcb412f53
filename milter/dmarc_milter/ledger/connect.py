"""Spool and store as the commands need them, from the configuration."""

from __future__ import annotations

import sys

from dmarc_milter.config import Config
from dmarc_milter.config.paths import spool_path
from dmarc_milter.config.secrets import store_password
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolOptions
from dmarc_milter.ledger.store.daily_caps import Caps
from dmarc_milter.ledger.store.database import Database, connect
from dmarc_milter.ledger.store.retention import STALE, Retention
from dmarc_milter.ledger.store.store import Store, StoreOptions


def database_of(config: Config) -> Database:
    """The store's database, not opened yet. Raises ConfigError for a password file that cannot be
    read."""
    return connect(config.store.url, store_password(config))


def store_of(config: Config) -> Store:
    """The store, not opened yet: `ready()` or the first use does."""
    return Store(
        database_of(config),
        StoreOptions(
            Caps(rows=config.store.max_rows),
            config.reporting.honor_ri,
            config.store.decision_days,
        ),
    )


def spool_of(config: Config) -> SpoolFile:
    """This host's spool, not opened yet."""
    return SpoolFile(spool_path(config), SpoolOptions(max_bytes=config.store.spool_max_bytes))


def retention_of(config: Config) -> Retention:
    """What is kept; a report at least until it is too old to begin with, and for its retry window
    after that."""
    store, retry_days = config.store, config.reporting.retry_hours / 24
    return Retention(
        store.decision_days,
        store.decision_max_rows,
        store.report_days,
        max(STALE / DAY, retry_days) + 1,
    )


def drained_store(config: Config) -> Store:
    """The store with everything counted that this host has answered so far. Raises StoreError; says
    so when the spool cannot be drained."""
    store = store_of(config)
    store.ready()
    if spool_path(config).exists():
        spool = spool_of(config)
        drained = drain(spool, store)
        spool.close()
        if drained.problem:
            print(
                f"dmarc-milter: the latest messages are not in this answer: {drained.problem}",
                file=sys.stderr,
            )
    return store
