"""Where the ledger's files lie, as the configuration says."""

from __future__ import annotations

from pathlib import Path

from dmarc_milter.config.schema import Config

STATE = Path("/var/lib/dmarc-milter")


def spool_path(config: Config) -> Path:
    """The local spool: as configured, beside the SQLite store, or in the daemon's state
    directory."""
    if config.store.spool:
        return Path(config.store.spool)
    if config.store.url.startswith("sqlite:///"):
        return Path(config.store.url.removeprefix("sqlite:///")).with_name("spool.db")
    return STATE / "spool.db"
