"""Files that root opens: never through a symbolic link that somebody else made, nor where everybody
could put another file.

Between lstat and open nothing can be exchanged: each step of the path is opened relative to the one
before (openat(2)).
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
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
        return file.read()


def make(path: Path, mode: int = 0o644) -> int:
    """A descriptor, for reading and writing, of a file that is made where it is missing. Raises
    OSError: never through a link."""
    number = _open(path, os.O_RDWR | os.O_CREAT, mode, linked=False)
    if os.fstat(number).st_nlink > 1:
        os.close(number)
        raise OSError(
            errno.EMLINK,
            "is a file that has another name too (a hard link), which is refused: remove it",
            str(path),
        )
    return number


def refuse_foreign_link(path: Path) -> None:
    """Raises OSError where the path is a link that neither root nor this account made, for what
    opens files by itself (SQLite)."""
    if path.is_symlink() and os.lstat(path).st_uid not in (0, os.geteuid()):
        raise OSError(errno.ELOOP, "is a symbolic link that another account made", str(path))


def changeable(path: Path) -> Iterator[str]:
    """One line for the file, and one for its directory, if somebody else may put other settings
    there. Root asks who may become root at the next start, any other account only for everybody."""
    for place in (path, path.parent):
        real = os.path.realpath(place)
        try:
            status = os.stat(real)
        except OSError:
            continue
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            yield f"everybody can write to {real}, where the settings are: chmod o-w {real}"
        elif os.geteuid() == 0 and status.st_uid != 0:
            yield _becomes_root(f"the account {_account(status.st_uid)}", real, "chown root")
        elif os.geteuid() == 0 and status.st_mode & stat.S_IWGRP and status.st_gid != 0:
            yield _becomes_root(f"the group {_group(status.st_gid)}", real, "chmod g-w")


def _becomes_root(who: str, real: str, remedy: str) -> str:
    return (
        f"{who} can write to {real} and so say who the daemon becomes when root starts it:"
        f" {remedy} {real}"
    )


def _account(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _open(path: Path, flags: int, mode: int, *, linked: bool) -> int:
    """`linked`: the last step may be a link too, if it is ours."""
    folder, name = _walk(path, linked=linked)
    try:
        _not_for_all(folder, path)
        try:
            number = os.open(name, flags | FILE, mode, dir_fd=folder)
        except PermissionError:
            # With fs.protected_regular (proc(5)) the kernel refuses it first, and says no reason.
            _ours(os.stat(name, dir_fd=folder, follow_symlinks=False), folder, path)
            raise
        try:
            _ours(os.fstat(number), folder, path)
            _regular(os.fstat(number), path)
        except BaseException:
            os.close(number)
            raise
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(
            errno.ELOOP,
            "is a symbolic link, which is refused: name the file itself",
            str(path),
        ) from None
    finally:
        os.close(folder)
    return number


def _regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    if found.st_mode & stat.S_IWOTH:
        raise OSError(errno.EPERM, f"everybody can write it: chmod o-w {path}", str(path))


def _walk(path: Path, *, linked: bool) -> tuple[int, str]:
    """A descriptor of the directory that the path leads to, and the name in it."""
    # No abspath: `link/..` is above what the link leads to, as for the kernel.
    steps = list(Path(os.getcwd(), path).parts[1:]) or ["."]
    here, followed = os.open("/", STEP), 0
    try:
        while True:
            name = steps.pop(0)
            if not steps and not linked:
                return here, name
            try:
                there = _step(name, here)
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
            here, before = there, here
            try:
                _not_for_all(before, path)
            finally:
                os.close(before)
    except BaseException:
        os.close(here)
        raise


def _step(name: str, here: int) -> int:
    """O_DIRECTORY first: without it a directory that is mounted on demand stays the empty one
    below (open(2), O_PATH)."""
    try:
        return os.open(name, STEP | os.O_DIRECTORY, dir_fd=here)
    except NotADirectoryError:
        return os.open(name, STEP, dir_fd=here)


def _target(link: int, found: os.stat_result, path: Path, followed: int) -> str:
    """Where the link leads. Links that root or this account made are followed, as /var/run is."""
    try:
        if found.st_uid not in (0, os.geteuid()):
            raise OSError(
                errno.ELOOP,
                "leads through a symbolic link that another account made: name the file itself",
                str(path),
            )
        if followed > MAX_LINKS:
            raise OSError(errno.ELOOP, "leads through too many symbolic links", str(path))
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)


def _not_for_all(folder: int, path: Path) -> None:
    """In a directory that everybody may write to anybody could put the next step there."""
    mode = os.fstat(folder).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        text = f"lies below a directory that everybody can write to: chmod o-w {_name(folder)}"
        raise OSError(errno.EPERM, text, str(path))


def _ours(found: os.stat_result, folder: int, path: Path) -> None:
    """In a sticky directory that everybody can write to, such as /tmp, the owner shows who put
    the file there. (A directory in it is its owner's business, wherever it is.)"""
    if os.fstat(folder).st_mode & stat.S_IWOTH and found.st_uid not in (0, os.geteuid()):
        text = (
            f"another account put it into {_name(folder)}, to which everybody can write:"
            " put it elsewhere, or make it this account's (chown)"
        )
        raise OSError(errno.EPERM, text, str(path))


def _name(folder: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{folder}")
    except OSError:
        return "it"
