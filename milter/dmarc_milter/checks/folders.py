"""Which folders may become the service's own. Who owns a folder replaces what is in it, also what
root uses there: /var/lib, /etc/dmarc-milter or somebody's home are never given away."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

from dmarc_milter.config import Config
from dmarc_milter.config.commands import set_command
from dmarc_milter.config.instance import Instance
from dmarc_milter.config.paths import spool_path
from dmarc_milter.ledger import sent_log, tombstones
from dmarc_milter.ledger.ownership import Kind, why_not

TOPS = ("/", "/etc", "/opt", "/run", "/srv", "/usr", "/usr/local", "/var", "/var/lib", "/var/spool")
"""Never, also where they are empty."""
SYSTEM = ("/", "/usr", "/usr/local", "/var")
"""Nor what lies in these."""
BESIDE = (tombstones.NAME, sent_log.NAME)


def is_missing(path: Path) -> bool:
    """Whether it is known not to be there; what this account may not see may be."""
    try:
        path.stat()
    except PermissionError:
        return False
    except OSError:
        return True
    return False


def paths(config: Config) -> dict[Kind, Path]:
    """Spool, and store where it is a file."""
    found: dict[Kind, Path] = {"spool": spool_path(config)}
    if config.store.url.startswith("sqlite:///"):
        found["store"] = Path(config.store.url.removeprefix("sqlite:///"))
    return found


def may_be_given(folder: Path, config: Config, account: int, of: Instance) -> bool:
    """Whether it is the instance's state folder or below it, or holds nothing but spool and store,
    or the way to them. `account`: the service's number."""
    real = Path(os.path.realpath(folder))
    if real.is_relative_to(os.path.realpath(of.state)):
        return True
    if str(real) in TOPS or str(real.parent) in SYSTEM:
        return False
    try:
        if real.stat().st_uid not in (0, account):
            return False
        held = os.listdir(real)
    except OSError:
        return False
    return all(_is_ours(real, name, config) for name in held)


def file_may_be_given(path: Path, what: Kind, config: Config, account: int, of: Instance) -> bool:
    """The same for a file: one of this program, and no other account's. Never one with another
    name: who owns the folder could have made it a link to any file of this host."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or why_not(path, what):
        return False
    return found.st_uid in (0, account) or may_be_given(path.parent, config, account, of)


def _is_ours(folder: Path, name: str, config: Config) -> bool:
    """Whether what lies in the folder is spool or store, what is kept beside them, or the way
    there."""
    for path in paths(config).values():
        there = Path(os.path.realpath(path.parent))
        if there == folder:
            if name in BESIDE or name == path.name or name.startswith(_kept_beside(path.name)):
                return True
        elif there.is_relative_to(folder) and there.relative_to(folder).parts[0] == name:
            return True
    return False


def _kept_beside(name: str) -> tuple[str, ...]:
    """How SQLite's own files and ours begin."""
    return f"{name}-", f"{name}."


def elsewhere(what: Kind, of: Instance) -> str:
    """The command that names a new file below the state folder."""
    name = "spool" if what == "spool" else "reports"
    places = (of.state / f"{name}{number or ''}.db" for number in itertools.count())
    free = next(place for place in places if not os.path.lexists(place))
    if what == "spool":
        return set_command("store.spool", str(free))
    return set_command("store.url", f"sqlite:///{free}")
