"""Spool and store: whether they can be used, and the command that mends what is wrong."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from dmarc_milter.checks import service
from dmarc_milter.config import Config, ConfigError
from dmarc_milter.config.commands import set_command
from dmarc_milter.config.paths import STATE, spool_path
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.ledger.connect import database_of
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.store.status import (
    REMEDIES,
    SpoolStatus,
    StoreStatus,
    is_there,
    spool_status,
    store_status,
)

LOCAL = ("", "localhost", "127.0.0.1", "::1")


def ledger(config: Config) -> Iterator[Finding]:
    """Spool and store: reachable, of the right schema, writable."""
    path = spool_path(config)
    spool = spool_status(path, config.store.spool_max_bytes) if is_there(path) else None
    if spool is not None and spool.remedy:
        text = f"{spool.problem}: {spool.remedy}"
        yield Finding("error", "spool", text, _command(config, "spool", path, spool))
    elif spool is not None:
        yield Finding("ok", "spool", f"{path}: {spool.waiting} messages waiting")
    else:
        yield _to_be_created(config, "spool", path)
    yield _store(config)


def _store(config: Config) -> Finding:
    try:
        with closing(database_of(config, Access.READ)) as database:
            store = store_status(database)
            path = Path(database.name) if database.dialect == "sqlite" else None
            if path is not None and store.problem and not is_there(path):
                return _to_be_created(config, "store", path)
            if store.problem:
                text = f"{store.problem}: {store.remedy}"
                return Finding("error", "store", text, _command(config, "store", path, store))
            return Finding("ok", "store", f"{store.name}: schema {store.schema}")
    except ConfigError as error:
        return Finding("error", "store", str(error))


def _to_be_created(config: Config, what: str, path: Path) -> Finding:
    folder, (account, group) = path.parent, service.names(config)
    if not folder.is_dir() and folder != STATE:
        text = f"{folder} does not exist: create it, writable by the account of the service"
        remedy = f"install -d -o {account} -g {group} -m 0750 {shlex.quote(str(folder))}"
        return Finding("error", what, text, remedy)
    if not folder.is_dir():
        text = f"{folder} does not exist yet; systemd creates it when the service starts"
        return Finding("warning", what, text, "systemctl start dmarc-milter")
    if not os.access(folder, os.W_OK):
        text = f"{folder} cannot be written by this account; the service's account must be able to"
        return Finding("warning", what, text, "sudo dmarc-milter doctor")
    return Finding("ok", what, f"{path} will be created")


def _command(
    config: Config, what: str, path: Path | None, status: SpoolStatus | StoreStatus
) -> str:
    """For what `store status` says in words; the words themselves where no command mends it."""
    words = status.remedy
    kind = next((name for name, text in REMEDIES.items() if text == words), "")
    account, group = service.names(config)
    file = shlex.quote(str(path)) if path else ""
    folder = shlex.quote(str(path.parent)) if path else ""
    here = path is None and urlsplit(config.store.url).hostname in (None, *LOCAL)
    commands = {
        "older": "dmarc-milter store upgrade",
        "newer": "apt-get install --only-upgrade dmarc-milter",
        "corrupt": "dmarc-milter store drain" if path else "",
        "foreign": _other_file(what, path) if path else "",
        "refused": f"chown {account}:{group} {folder} && chown -f {account}:{group} {file}*"
        if path
        else "",
        "full": set_command("store.spool_max_bytes", 2 * config.store.spool_max_bytes)
        if what == "spool" and "at its limit" in status.problem
        else f"df -h {folder}  # {words}",
        "absent": f"{sys.executable} -m pip install 'psycopg[binary]>=3.1,<4'",
        "unreachable": f"systemctl start postgresql  # {words}" if here else "",
        "locked": f"fuser -v {file}  # {words}" if path else "",
        "clock": service.synchronise(),
    }
    return commands.get(kind) or words


def _other_file(what: str, path: Path) -> str:
    """Another name in the same folder: what is there belongs to somebody."""
    for number in itertools.count(1):
        other = path.with_name(f"dmarc-milter-{what}{number if number > 1 else ''}.db")
        if not other.exists():
            break
    key, value = (
        ("store.url", f"sqlite:///{other}") if what == "store" else ("store.spool", str(other))
    )
    return set_command(key, value)
