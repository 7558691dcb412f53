"""The host: its clock, the versions of what the milter stands on, what its unit may do."""

from __future__ import annotations

import contextlib
import ctypes
import json
import platform
import re
import shlex
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from dmarc_milter import __version__
from dmarc_milter.checks import service
from dmarc_milter.checks.service import UNIT, UNITS
from dmarc_milter.config import Config
from dmarc_milter.config.checks import SocketAddress, socket_address
from dmarc_milter.config.commands import set_command
from dmarc_milter.config.instance import FIRST, Instance
from dmarc_milter.core.check_finding import Finding

LIBRARIES = ("pymilter", "dkimpy", "pyspf", "dnspython", "cryptography", "greenlet", "lxml")
MAIN_CF = Path("/etc/postfix/main.cf")
SOCKET_UNIT = "dmarc-milter.socket"
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
            "error",
            "clock",
            f"it is {shown} UTC here, before this program was installed",
            service.synchronise(),
        )
    elif found is not None and found & UNSYNCHRONISED:
        yield Finding(
            "warning", "clock", "nothing keeps the clock of this host right", service.synchronise()
        )
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


def unit(
    config: Config, folders: tuple[Path, ...] = UNITS, *, of: Instance = FIRST
) -> Iterator[Finding]:
    """Whether the socket lies where the packaged unit may make it (ProtectSystem=strict)."""
    address = socket_address(config.milter.socket)
    if address.family == "unix":
        yield from unit_may_write(Path(address.path), folders, of=of)


def unit_may_write(
    place: Path, folders: tuple[Path, ...] = UNITS, *, of: Instance = FIRST
) -> Iterator[Finding]:
    """One finding where the unit that is installed for this instance may not make this file."""
    texts = [text for folder in folders for name in of.unit_files for text in _texts(folder, name)]
    if not any("ProtectSystem=strict" in text for text in texts):
        return
    writable = [str(of.runtime), str(of.state), *_granted(texts)]
    if any(place.is_relative_to(folder) for folder in writable):
        return
    # "-": a folder that is gone, as all below /run is after a boot, must not keep the unit down.
    grant = service.drop_in(f"ReadWritePaths={_listed(place.parent)}", folders, of=of)
    is_top = len(place.parent.parts) <= len(("/", "run"))
    yield Finding(
        "error",
        "socket",
        f"{place} lies outside what {of.unit}.service may write",
        set_command("milter.socket", f"unix:{of.runtime}/milter.sock") if is_top else grant,
    )


def _listed(folder: Path) -> str:
    """As an element of a list in a unit (systemd.syntax(7)): one that need not be there."""
    text = str(folder).replace("%", "%%")
    return f"-{text}" if re.fullmatch(r"[^\s\"'\\]+", text) else json.dumps(f"-{text}")


def listening(folders: tuple[Path, ...] = UNITS) -> SocketAddress | None:
    """Where systemd listens for the daemon (`socket = "fd:3"`): the first ListenStream= in force
    (systemd.socket(5)); None where no unit says."""
    found: list[str] = []
    unit_file = next((one for one in folders if (one / SOCKET_UNIT).exists()), None)
    if unit_file is None:
        return None
    texts = [*_texts(unit_file, SOCKET_UNIT, drop_ins=False)]
    for folder in reversed(folders):
        texts += _texts(folder, SOCKET_UNIT, itself=False)
    for text in texts:
        for value in re.findall(r"^ListenStream[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE):
            found = [*found, value] if value else []
    return _stream(found[0]) if found else None


def _stream(value: str) -> SocketAddress | None:
    host, _, port = value.rpartition(":")
    family = "inet6" if ":" in host or not host else "inet"
    try:
        return socket_address(
            f"unix:{value}" if "/" in value else f"{family}:{port}@{host or '::'}"
        )
    except ValueError:
        return None


def _texts(
    folder: Path, unit: str = UNIT, *, itself: bool = True, drop_ins: bool = True
) -> Iterator[str]:
    """The unit and its drop-ins there."""
    paths = [folder / unit] if itself else []
    if drop_ins:
        paths += sorted((folder / f"{unit}.d").glob("*.conf"))
    for path in paths:
        try:
            yield path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue


def _granted(texts: list[str]) -> Iterator[str]:
    for text in texts:
        for line in re.findall(r"^ReadWritePaths[ \t]*=(.*)$", text, re.MULTILINE):
            with contextlib.suppress(ValueError):
                yield from (path.lstrip("-+").replace("%%", "%") for path in shlex.split(line))
