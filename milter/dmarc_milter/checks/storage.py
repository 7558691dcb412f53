"""Spool and store: whether they can be used, and the command that mends what is wrong."""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from dmarc_milter.checks import folders, service
from dmarc_milter.config import Config, ConfigError
from dmarc_milter.config.commands import set_command
from dmarc_milter.config.instance import FIRST, Instance
from dmarc_milter.config.paths import spool_path
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.ledger.connect import database_of, replica_problem
from dmarc_milter.ledger.ownership import Access, Kind
from dmarc_milter.ledger.store.status import (
    REMEDIES,
    SpoolStatus,
    StoreStatus,
    is_there,
    spool_status,
    store_status,
)

LOCAL = ("", "localhost", "127.0.0.1", "::1")


def ledger(config: Config, of: Instance = FIRST) -> Iterator[Finding]:
    """Spool and store: reachable, of the right schema, writable."""
    if of.name and (found := [*_of_the_first(config, of)]):
        yield from found
        return
    path = spool_path(config)
    spool = spool_status(path, config.store.spool_max_bytes) if is_there(path) else None
    if spool is not None and spool.remedy:
        text = f"{spool.problem}: {spool.remedy}"
        yield Finding("error", "spool", text, _command(config, "spool", path, spool, of))
    elif spool is not None:
        yield Finding("ok", "spool", f"{path}: {spool.waiting} messages waiting")
    else:
        yield _to_be_created(config, "spool", path, of)
    yield _store(config, of)
    yield from _replica(config)


def _of_the_first(config: Config, of: Instance) -> Iterator[Finding]:
    """Another instance's unit may not write there, and what it wrote would be mixed up."""
    for what, path in folders.paths(config).items():
        if path.is_relative_to(FIRST.state):
            text = f"{path} is the first instance's; this one's lie below {of.state}"
            yield Finding("error", what, text, folders.elsewhere(what, of))


def _store(config: Config, of: Instance) -> Finding:
    try:
        with closing(database_of(config, Access.READ)) as database:
            store = store_status(database)
            path = Path(database.name) if database.dialect == "sqlite" else None
            if path is not None and store.problem and not is_there(path):
                return _to_be_created(config, "store", path, of)
            if store.problem:
                text = f"{store.problem}: {store.remedy}"
                command = _command(config, "store", path, store, of)
                return Finding("error", "store", text, command)
            return Finding("ok", "store", f"{store.name}: schema {store.schema}")
    except ConfigError as error:
        return Finding("error", "store", str(error))


def _replica(config: Config) -> Iterator[Finding]:
    with contextlib.suppress(ConfigError):  # the password's, said already
        if problem := replica_problem(config):
            yield Finding(
                "warning",
                "store",
                f"[store] read_url: {problem}; [store] url is asked instead",
                set_command("store.read_url", ""),
            )


def _to_be_created(config: Config, what: Kind, path: Path, of: Instance) -> Finding:
    folder, (account, group) = path.parent, service.names(config)
    if folders.is_missing(folder) and folder != of.state:
        text = f"{folder} does not exist: create it, writable by the account of the service"
        remedy = f"install -d -o {account} -g {group} -m 0750 {shlex.quote(str(folder))}"
        return Finding("error", what, text, remedy)
    if folders.is_missing(folder):
        text = f"{folder} does not exist yet; systemd creates it when the service starts"
        return Finding("warning", what, text, service.start(of))
    if not os.access(folder, os.W_OK):
        text = f"{folder} cannot be written by this account; the service's account must be able to"
        return Finding("warning", what, text, "sudo dmarc-milter doctor")
    return Finding("ok", what, f"{path} will be created")


def _command(
    config: Config,
    what: Kind,
    path: Path | None,
    status: SpoolStatus | StoreStatus,
    of: Instance,
) -> str:
    """For what `store status` says in words; the words themselves where no command mends it."""
    words = status.remedy
    kind = next((name for name, text in REMEDIES.items() if text == words), "")
    file = shlex.quote(str(path)) if path else ""
    folder = shlex.quote(str(path.parent)) if path else ""
    here = path is None and urlsplit(config.store.url).hostname in (None, *LOCAL)
    commands = {
        "older": "dmarc-milter store upgrade",
        "newer": "apt-get install --only-upgrade dmarc-milter",
        "corrupt": "dmarc-milter store drain" if path else "",
        "foreign": _other_file(what, path) if path else "",
        "refused": _allowed(config, what, path, of) if path else "",
        "full": set_command("store.spool_max_bytes", 2 * config.store.spool_max_bytes)
        if what == "spool" and "at its limit" in status.problem
        else f"df -h {folder}  # {words}",
        "absent": f"{sys.executable} -m pip install 'psycopg[binary]>=3.1,<4'",
        "unreachable": f"systemctl start postgresql  # {words}" if here else "",
        "locked": f"fuser -v {file}  # {words}" if path else "",
        "clock": service.synchronise(),
    }
    return commands.get(kind) or words


def _allowed(config: Config, what: Kind, path: Path, of: Instance) -> str:
    """The folder becomes the account's where nothing else is in it; else another file is named."""
    found = service.service_account(config)
    if found is None or not folders.may_be_given(path.parent, config, found.pw_uid, of):
        return folders.elsewhere(what, of)
    if os.path.lexists(path) and not folders.file_may_be_given(
        path, what, config, found.pw_uid, of
    ):
        return folders.elsewhere(what, of)
    owner, file = ":".join(service.names(config)), shlex.quote(str(path))
    folder = shlex.quote(os.path.realpath(path.parent))
    return f"chown -h {owner} {folder} && chown -hf {owner} {file}*"


def _other_file(what: Kind, path: Path) -> str:
    """Another name in the same folder: what is there belongs to somebody."""
    for number in itertools.count(1):
        other = path.with_name(f"dmarc-milter-{what}{number if number > 1 else ''}.db")
        if not other.exists():
            break
    key, value = (
        ("store.url", f"sqlite:///{other}") if what == "store" else ("store.spool", str(other))
    )
    return set_command(key, value)
