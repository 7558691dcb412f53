"""Why a file cannot grow where SQLite has one word for all of it: "disk I/O error", or that it
cannot open a file."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

NO_ROOM = (errno.EDQUOT, errno.ENOSPC)
NEAR = 64 << 10
"""Bytes below the limit of a file's size from which on a write may reach it."""


class Hindrance(NamedTuple):
    """`kind` as SpoolError has it: "io" where the file system became read-only."""

    kind: Literal["full", "io"]
    text: str


def hindrance(path: Path) -> Hindrance | None:
    """What the file system or a limit of this process says; None where nothing is in the way. Makes
    no file. Never raises."""
    with suppress(OSError):
        return of_file_system(path) or _limit_of_size(path) or _tried(path)
    return None


def kind_of(error: OSError) -> Literal["full", "refused"]:
    """Of an error that keeps a file from being made."""
    return "full" if error.errno in NO_ROOM else "refused"


def of_file_system(path: Path) -> Hindrance | None:
    """The same as far as the file system alone tells it. Raises OSError."""
    found = os.statvfs(path.parent)
    if found.f_flag & os.ST_RDONLY:
        return Hindrance("io", f"{path}: its file system is read-only")
    if found.f_files and not found.f_favail:
        text = f"{path}: its file system has room for no more files (inodes; df --inodes)"
        return Hindrance("full", text)
    return None


def _limit_of_size(path: Path) -> Hindrance | None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    for file in (path, path.with_name(f"{path.name}-wal")):
        with suppress(FileNotFoundError):
            if (size := file.stat().st_size) + NEAR > limit:
                text = (
                    f"{file}: has {size:,} bytes, and a file of this process may have {limit:,}"
                    " (LimitFSIZE, ulimit -f)"
                )
                return Hindrance("full", text)
    return None


def _tried(path: Path) -> Hindrance | None:
    """A file without a name, in the same folder and by the same account."""
    flags = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
    try:
        number = os.open(path.parent, flags, 0o600)
        try:
            os.write(number, bytes(4096))
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno in NO_ROOM:
            return Hindrance("full", f"{path}: {error.strerror}")
        if error.errno in (errno.EROFS, errno.EIO):
            return Hindrance("io", f"{path}: {error.strerror}")
    return None
