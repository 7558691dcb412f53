"""The host: its clock, the versions of what the milter stands on, what its unit may do."""

from __future__ import annotations

import ctypes
import platform
import re
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from dmarc_milter import __version__
from dmarc_milter.config import Config
from dmarc_milter.config.checks import socket_address
from dmarc_milter.core.check_finding import Finding

LIBRARIES = ("pymilter", "dkimpy", "pyspf", "dnspython", "cryptography", "greenlet", "lxml")
SYNC = "timedatectl set-ntp true (or apt install chrony)"
UNITS = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))
UNIT = "dmarc-milter.service"
MAY_WRITE = ("/run/dmarc-milter", "/var/lib/dmarc-milter")
"""Folders that the packaged unit leaves writable."""
UNSYNCHRONISED = 0x40
"""STA_UNSYNC of adjtimex(2)."""
TIMEX_BYTES, TIMEX_STATUS = 208, 40
"""Of struct timex on 64-bit Linux: its size, and where `status` stands."""


def kernel_clock_status() -> int | None:
    """`status` of adjtimex(2); None where it cannot be asked."""
    timex = ctypes.create_string_buffer(TIMEX_BYTES)
    try:
        if ctypes.CDLL(None).adjtimex(timex) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return int.from_bytes(timex.raw[TIMEX_STATUS : TIMEX_STATUS + 4], "little")


def clock(
    now: float, newest: float, status: Callable[[], int | None] = kernel_clock_status
) -> Iterator[Finding]:
    """Signatures expire, policies are cached and reports have periods: the clock must be right.

    `now` and `newest`, the latest moment that the program's own files know of, in seconds since
    1970.
    """
    found = status()
    if now < newest:
        shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now))
        yield Finding(
            "error", "clock", f"it is {shown} UTC here, before this program was installed", SYNC
        )
    elif found is not None and found & UNSYNCHRONISED:
        yield Finding("warning", "clock", "nothing keeps the clock of this host right", SYNC)
    else:
        yield Finding("ok", "clock", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now)))


def installed_at() -> float:
    """When this program's files were written."""
    return Path(__file__).stat().st_mtime


def versions() -> Finding:
    """For a report of a problem."""
    found = [f"dmarc-milter {__version__}", f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return Finding("ok", "versions", ", ".join(found))


def unit(config: Config, folders: tuple[Path, ...] = UNITS) -> Iterator[Finding]:
    """Whether the socket lies where the packaged unit may make it (ProtectSystem=strict)."""
    address = socket_address(config.milter.socket)
    texts = [text for folder in folders for text in _texts(folder)]
    if not texts or address.family != "unix" or not any("ProtectSystem=strict" in t for t in texts):
        return
    writable = [*MAY_WRITE, *_granted(texts)]
    place = Path(address.path)
    if not any(place.is_relative_to(folder) for folder in writable):
        yield Finding(
            "error",
            "socket",
            f"{place} lies outside what {UNIT} may write",
            f"systemctl edit {UNIT}: [Service] ReadWritePaths={place.parent}",
        )


def _texts(folder: Path) -> Iterator[str]:
    """The unit and its drop-ins there."""
    for path in (folder / UNIT, *sorted((folder / f"{UNIT}.d").glob("*.conf"))):
        try:
            yield path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue


def _granted(texts: list[str]) -> Iterator[str]:
    for text in texts:
        for line in re.findall(r"^ReadWritePaths=(.*)$", text, re.MULTILINE):
            yield from (path.lstrip("-+") for path in line.split())
