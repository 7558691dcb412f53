"""Files that root opens: never through a symbolic link that somebody else made, nor where everybody
could put another file.

Between lstat and open nothing can be exchanged: each step of the path is opened relative to the one
before (openat(2)).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_LINKS = 40
STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a pipe with that name would hold us.
FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_bytes(path: Path) -> bytes:
    """The content of a regular file. Raises OSError; for root also where the path leads through
    what others made."""
    if os.geteuid() != 0:
        return path.read_bytes()
    with os.fdopen(_open(path, os.O_RDONLY, 0, linked=True), "rb") as file:
        if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
            raise OSError(errno.EPERM, "everybody can write it: chmod o-w", str(path))
        return file.read()


def make(path: Path, mode: int = 0o644) -> int:
    """A descriptor, for reading and writing, of a file that is made where it is missing. Raises
    OSError: never through a link."""
    number = _open(path, os.O_RDWR | os.O_CREAT, mode, linked=False)
    if os.fstat(number).st_nlink > 1:
        os.close(number)
        raise OSError(
            errno.EMLINK, "is a file that has another name too, which is refused", str(path)
        )
    return number


def refuse_foreign_link(path: Path) -> None:
    """Raises OSError where the path is a link that neither root nor this account made, for what
    opens files by itself (SQLite)."""
    if path.is_symlink() and os.lstat(path).st_uid not in (0, os.geteuid()):
        raise OSError(errno.ELOOP, "is a symbolic link that another account made", str(path))


def _open(path: Path, flags: int, mode: int, *, linked: bool) -> int:
    """`linked`: the last step may be a link too, if it is ours."""
    folder, name = _walk(path, linked=linked)
    try:
        number = os.open(name, flags | FILE, mode, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, "is a symbolic link, which is refused", str(path)) from None
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return number


def _walk(path: Path, *, linked: bool) -> tuple[int, str]:
    """A descriptor of the directory that the path leads to, and the name in it."""
    steps = list(Path(os.path.abspath(path)).parts[1:]) or ["."]
    here, followed = os.open("/", STEP), 0
    try:
        while True:
            name = steps.pop(0)
            if not steps and not linked:
                return here, name
            try:
                there = os.open(name, STEP, dir_fd=here)
            except FileNotFoundError:
                if steps:
                    raise
                return here, name  # the caller's open says what is missing
            found = os.fstat(there)
            if stat.S_ISLNK(found.st_mode):
                followed += 1
                target = Path(_target(there, found, path, followed))
                steps = [*target.parts, *steps]
                continue
            if not steps:
                os.close(there)
                return here, name
            os.close(here)
            here = there
            _fit(found, path)
    except BaseException:
        os.close(here)
        raise


def _target(link: int, found: os.stat_result, path: Path, followed: int) -> str:
    """Where the link leads. Links that root or this account made are followed, as /var/run is."""
    try:
        if found.st_uid not in (0, os.geteuid()):
            raise OSError(
                errno.ELOOP, "leads through a symbolic link that another account made", str(path)
            )
        if followed > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)


def _fit(found: os.stat_result, path: Path) -> None:
    """In a directory that everybody may write to, anybody could have put the next step there,
    unless it is sticky."""
    if (
        stat.S_ISDIR(found.st_mode)
        and found.st_mode & stat.S_IWOTH
        and not found.st_mode & stat.S_ISVTX
    ):
        raise OSError(errno.EPERM, "lies below a directory that everybody can write to", str(path))
