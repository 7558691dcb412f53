"""The MTA's files, read and written so that nothing is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dmarc_milter.cli.setup import BACKUP
from dmarc_milter.mta import setup_edits


class CannotSetUp(Exception):
    """`str()` is one line."""


@contextlib.contextmanager
def written(path: Path, before: str, after: str, what_next: str) -> Iterator[None]:
    """Write it, keep the file as it was without our lines, and say what is next once the rest has
    been done; where that fails the file is as it was. Raises CannotSetUp."""
    if after == before:
        yield
        print(f"{path}: the lines are already there")
        return
    kept = path.with_name(path.name + BACKUP)
    is_kept = kept.exists()
    if not (is_kept and any(setup_edits.is_attached(before, comment) for comment in ("#", "dnl"))):
        try:
            shutil.copy2(path, kept)
        except OSError as error:
            raise CannotSetUp(f"{kept}: cannot be written: {error.strerror}") from None
    write(path, after)
    try:
        yield
    except BaseException:
        write(path, before)
        if not is_kept:
            kept.unlink(missing_ok=True)
        raise
    print(f"{path}: written; the file without the lines is {kept}\n{what_next}")


def read(path: Path) -> str:
    """The text with its own line ends, undecodable bytes kept. Raises CannotSetUp."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise CannotSetUp(f"{path}: cannot be read: {error.strerror}") from None


def write(path: Path, text: str) -> None:
    """In one step, with the owner and mode that the file has; a link is followed. Raises
    CannotSetUp."""
    target = Path(os.path.realpath(path))
    try:
        held = target.stat()
        number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
                os.fchmod(file.fileno(), held.st_mode & 0o7777)
                os.fchown(file.fileno(), held.st_uid, held.st_gid)
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise CannotSetUp(f"{path}: cannot be written: {error.strerror}") from None
