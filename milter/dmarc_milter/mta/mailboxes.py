"""The header sections of somebody's stored mail: a maildir, a folder of message files, an mbox.
Read only, and little of each.

Symbolic links are never followed and nothing but regular files is opened, so that a folder which
others can write leads nowhere.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

MAX_HEADER = 256 * 1024
"""Bytes of a message that are read at most; its header section ends before that."""
MAX_LINE = 64 * 1024
"""Bytes of an mbox's line that are read at once."""
ASCTIME = (
    rb"[ \t](?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
    rb"[ \t]+(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[ \t]+\d{1,2}[ \t]+\d{1,2}:\d{2}"
)
"""As far as everybody writes it; by less a line of the body that begins with From would count."""
SEPARATOR = re.compile(rb"From \S.*" + ASCTIME)
"""The line before a message in an mbox, after an empty one (RFC 4155)."""
PACKED = (b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ")
"""How files begin that a server has compressed."""
MESSAGE_NAME = re.compile(r".*\.eml|[0-9]+\.?", re.IGNORECASE)
"""A message's file outside cur and new: exported ones, and those of MH and Cyrus."""


class StoredMessage(NamedTuple):
    """`place` is the file's path below the folder, with the number of the message in an mbox;
    unescaped."""

    place: str
    header: bytes


@dataclass
class MailStore:
    """What lies at `path`. `skipped` counts, while the letters are read, the files that are none,
    by reason."""

    path: Path
    skipped: Counter[str] = field(default_factory=Counter)
    octets: int = 0
    """Read so far of a single file, for whoever shows progress."""

    def letters(self) -> Iterator[StoredMessage]:
        """In order of the names. Raises OSError only for `path` itself."""
        if stat.S_ISDIR(os.stat(self.path).st_mode):  # a link given by name is meant
            yield from self._folder()
        else:
            with open(self.path, "rb") as file:
                yield from self._file(file, self.path.name)

    def _folder(self) -> Iterator[StoredMessage]:
        folders = [str(self.path)]
        os.scandir(self.path).close()  # raises where it may not be read
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError:
                self.skipped["unreadable"] += 1
                continue
            folders += [
                entry.path for entry in reversed(entries) if entry.is_dir(follow_symlinks=False)
            ]
            for entry in entries:
                yield from self._entry(entry, os.path.basename(folder))

    def _entry(self, entry: os.DirEntry[str], folder: str) -> Iterator[StoredMessage]:
        if entry.is_symlink():
            self.skipped["symbolic link"] += 1
        elif not entry.is_dir(follow_symlinks=False):
            yield from self._entry_file(
                entry.path,
                meant=folder in ("cur", "new") or bool(MESSAGE_NAME.fullmatch(entry.name)),
            )

    def _entry_file(self, path: str, *, meant: bool) -> Iterator[StoredMessage]:
        place = os.path.relpath(path, self.path)
        try:
            with _opened(path) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    self.skipped["no regular file"] += 1
                elif meant or _begins(file, b"From "):
                    yield from self._file(file, place)
                else:
                    self.skipped["no message"] += 1
        except OSError:
            self.skipped["unreadable"] += 1

    def _file(self, file: BufferedReader, place: str) -> Iterator[StoredMessage]:
        """One message, or those of an mbox."""
        if _begins(file, b"From "):
            yield from self._mbox(file, place)
        elif _begins(file, *PACKED):
            self.skipped["compressed"] += 1
        else:
            yield StoredMessage(place, _header(file))

    def _mbox(self, file: BufferedReader, place: str) -> Iterator[StoredMessage]:
        number, empty = 0, True
        while line := file.readline(MAX_LINE):
            self.octets += len(line)
            if empty and (number == 0 or SEPARATOR.match(line)):
                number += 1
                header = _header(file)
                self.octets += len(header)
                yield StoredMessage(f"{place}, message {number}", header)
                empty = True  # an empty line ended it
            else:
                empty = line in (b"\n", b"\r\n")


def _opened(path: str) -> BufferedReader:
    """No link, and no waiting for the other end of a pipe."""
    return os.fdopen(
        os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb"
    )


def _begins(file: BufferedReader, *marks: bytes) -> bool:
    """Whether the bytes to come begin in one of these ways; they stay there to be read."""
    return file.peek(16).startswith(marks)


def _header(file: BufferedReader) -> bytes:
    """From here to the empty line, which is read too."""
    lines: list[bytes] = []
    size = 0
    while size < MAX_HEADER and (line := file.readline(MAX_HEADER - size)):
        size += len(line)
        if line in (b"\n", b"\r\n"):
            break
        lines.append(line)
    return b"".join(lines)
