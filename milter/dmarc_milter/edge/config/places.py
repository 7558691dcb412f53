"""Where the ledger's files lie and how the store is reached, as the configuration says."""

from __future__ import annotations

import os
from pathlib import Path

from dmarc_milter.edge.config.load import ConfigError
from dmarc_milter.edge.config.schema import Config

STATE = Path("/var/lib/dmarc-milter")


def spool_path(config: Config) -> Path:
    """The local spool: as configured, beside the SQLite store, or in the daemon's state directory."""
    if config.store.spool:
        return Path(config.store.spool)
    if config.store.url.startswith("sqlite:///"):
        return Path(config.store.url.removeprefix("sqlite:///")).with_name("spool.db")
    return STATE / "spool.db"


def store_password(config: Config) -> str:
    """From password_file, or systemd's credential store-password; "" leaves it to the URL and libpq. Raises ConfigError."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    credential = Path(folder, "store-password")
    if config.store.password_file:
        path = Path(config.store.password_file)
    elif folder and credential.exists():
        path = credential
    else:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the store's password cannot be read: {error}") from None
