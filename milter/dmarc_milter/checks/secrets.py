"""What mends a secret that cannot be used. One that may be good is never thrown away: a new key is
unknown to the DNS until somebody publishes it."""

from __future__ import annotations

import errno
import itertools
import os
import shlex
from collections.abc import Callable
from pathlib import Path

from dmarc_milter.config.errors import ConfigError

CHMOD = ": chmod o-w "
"""Before the path, at the end of what config/root_files.py says."""


def remedy(path: str, error: ConfigError, make: Callable[[str], str]) -> str:
    """The command for what reading the file had come to. `make`: the command that makes a new one
    where none is; it is for files without content that could be worth something. "" where only
    the administrator can know."""
    cause = error.__context__
    if isinstance(cause, FileNotFoundError):
        return make(path)
    if isinstance(cause, OSError):
        said = cause.strerror or ""
        if CHMOD in said:
            return f"chmod o-w {shlex.quote(said.partition(CHMOD)[2])}"
        return "sudo dmarc-milter doctor" if cause.errno == errno.EACCES and os.geteuid() else ""
    return "" if _is_key(path) else _replaced(path, make)


def _is_key(path: str) -> bool:
    """Any private key, also one that we cannot use: encrypted, too short, of another kind."""
    try:
        return b"PRIVATE KEY" in Path(path).read_bytes()
    except OSError:
        return True


def _replaced(path: str, make: Callable[[str], str]) -> str:
    """What is there goes to a name that nobody has; where that fails nothing is made."""
    names = (f"{path}.unusable{number or ''}" for number in itertools.count())
    aside = next(name for name in names if not os.path.lexists(name))
    return f"mv -n {shlex.quote(path)} {shlex.quote(aside)} && {make(path)}"
