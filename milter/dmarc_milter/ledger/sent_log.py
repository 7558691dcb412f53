"""What this host has handed over to the mail server, in a file beside its spool: a store that is
put back to a backup does not know, and no report is to leave twice.

A line is written and on the disk before the mail is handed over; one more follows where it was not
taken. Fields are separated by tabs: sign, seconds since 1970, report id, begin and end of the
period, the run that did it, address.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LOG = logging.getLogger("dmarc_milter.report")

NAME = "sent-reports.log"
MODE = 0o640
KEPT_SECONDS = 45 * 86400
"""How long a line is kept: longer than any report is."""
MAX_BYTES = 64 << 20
"""Of the file; the older half goes when it is longer."""


class HandedOver(NamedTuple):
    """A report that was handed over to be mailed to an address, at a time in seconds since 1970."""

    at: int
    report_id: str
    begin: int
    end: int
    owner: str
    """The run, as its leases name it."""
    address: str


def beside(spool: Path) -> Path:
    """The sent log of the host with this spool."""
    return spool.with_name(NAME)


class SentLog:
    """Written by the report runs of one host, which may run at once. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def before(self, line: HandedOver) -> None:
        """On the disk when it returns."""
        self._append("+", line)

    def not_taken(self, line: HandedOver) -> None:
        """The mail server refused it or wants it later."""
        self._append("-", line)

    def _append(self, sign: str, line: HandedOver) -> None:
        address = line.address.replace("\t", " ").replace("\n", " ").replace("\r", " ")
        fields = (sign, line.at, line.report_id, line.begin, line.end, line.owner, address)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        new = not self.path.exists()
        number = os.open(self.path, flags, MODE)
        try:
            if new and os.geteuid() == 0:
                folder = self.path.parent.stat()
                os.fchown(number, folder.st_uid, folder.st_gid)
            text = "\t".join(map(str, fields)).encode("utf-8", "replace") + b"\n"
            size = os.fstat(number).st_size
            torn = size and os.pread(number, 1, size - 1) != b"\n"  # by a crash
            os.write(number, b"\n" * bool(torn) + text)
            os.fsync(number)
        finally:
            os.close(number)

    def shorten(self, now: int) -> None:
        """Forget lines that are too old to matter. Never raises: a log that cannot be rewritten
        stays as it is."""
        try:
            if not self._is_long(now):
                return
            lines = [raw for raw, line in _lines(self.path) if line.at >= now - KEPT_SECONDS]
            while sum(map(len, lines)) > MAX_BYTES:
                lines = lines[len(lines) // 2 :]
            self._replace(lines)
        except OSError as error:
            LOG.warning("the sent log %s cannot be shortened: %s", self.path, error.strerror)

    def _replace(self, lines: list[bytes]) -> None:
        """Write the file anew. Raises OSError."""
        new = self.path.with_name(f"{self.path.name}.new")
        with suppress(FileNotFoundError):
            new.unlink()
        number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        with os.fdopen(number, "wb") as file:
            state = self.path.stat()
            with suppress(PermissionError):
                os.fchown(number, state.st_uid, state.st_gid)
            file.writelines(lines)
            file.flush()
            os.fsync(number)
        new.rename(self.path)

    def erase(self, meant: Callable[[str], bool], *, dry: bool) -> int:
        """Forget lines about addresses that are meant; how many they are. Raises OSError."""
        if not self.path.exists():
            return 0
        lines = list(_lines(self.path))
        keep = [raw for raw, line in lines if not meant(line.address)]
        if len(keep) < len(lines) and not dry:
            self._replace(keep)
        return len(lines) - len(keep)

    def _is_long(self, now: int) -> bool:
        if not self.path.exists():
            return False
        first = next((line for _, line in _lines(self.path)), None)
        old = first is not None and first.at < now - 2 * KEPT_SECONDS
        return old or self.path.stat().st_size > MAX_BYTES


def read(path: Path) -> list[HandedOver]:
    """What was handed over and not given back, oldest first; lines that cannot be read are left
    out. Raises OSError."""
    found: dict[tuple[str, str], HandedOver] = {}
    for raw, line in _lines(path):
        key = (line.report_id, line.address)
        if raw.startswith(b"-"):
            found.pop(key, None)
        else:
            found[key] = line
    return sorted(found.values())


def _lines(path: Path) -> Iterator[tuple[bytes, HandedOver]]:
    with path.open("rb") as file:
        for raw in file:
            if line := _parsed(raw):
                yield raw, line


def _parsed(raw: bytes) -> HandedOver | None:
    fields = raw.decode("utf-8", "replace").rstrip("\n").split("\t")
    if len(fields) != 7 or fields[0] not in ("+", "-") or not raw.endswith(b"\n"):
        return None  # half a line, from the moment of a crash
    try:
        return HandedOver(int(fields[1]), fields[2], int(fields[3]), int(fields[4]), *fields[5:])
    except ValueError:
        return None
