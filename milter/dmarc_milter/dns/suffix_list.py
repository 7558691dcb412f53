"""The public suffix list, loaded whole or not at all: the configured file, or the newer of Debian's
and the package's own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from publicsuffixlist import PSLFILE, PublicSuffixList

from dmarc_milter.core.mail.domain import Domain

DEBIAN_FILE = "/usr/share/publicsuffix/public_suffix_list.dat"
MAX_FILE = 8 * 1024 * 1024
"""Octets; the list has a third of one MiB."""
MIN_RULES = 1000
"""Rules of the ICANN section; a file with fewer is a fragment (the list has some 7000)."""
STALE_AFTER = timedelta(days=183)
BEGIN, END = b"// ===BEGIN ICANN DOMAINS===", b"// ===END ICANN DOMAINS==="


class SuffixListError(Exception):
    """The file cannot be used; the message names it and says why, in one line."""


@dataclass(frozen=True, slots=True, eq=False)
class Suffixes:
    """Implements `dmarc.discovery.PublicSuffixes`. Immutable, safe for threads; compared by
    identity."""

    path: str
    published: date
    """The list's own date (its VERSION line), or where it has none the file's."""
    _icann: PublicSuffixList
    _all: PublicSuffixList

    def is_icann_suffix(self, domain: Domain) -> bool:
        """Whether the name itself is a public suffix by the ICANN section; a top-level domain that
        is not listed is (rule `*`)."""
        return bool(self._icann.is_public(domain.name))

    def organizational_domain(self, domain: Domain) -> Domain | None:
        """The longest public suffix and one label more (RFC 7489 3.2); None for a public suffix
        itself."""
        found = self._all.privatesuffix(domain.name)
        return Domain(found) if isinstance(found, str) else None

    def organization_of(self, name: str) -> str:
        """The organizational domain of any name in the DNS, underscores included; the name itself
        where it has none."""
        found = self._all.privatesuffix(name)
        return found if isinstance(found, str) else name

    def stale(self, today: date) -> str:
        """A warning when the list is older than half a year, else ""."""
        if today - self.published <= STALE_AFTER:
            return ""
        return (
            f"the public suffix list {self.path} is of {self.published}: more than six months old"
        )


def load_suffixes(path: str = "") -> Suffixes:
    """Read the list at `path`, or by default the newest at hand. Raises SuffixListError.

    The file is read in one piece before it is parsed, so that a replacement or a partial write
    meanwhile is either refused here or not seen: the caller keeps the list that it has.
    """
    if path:
        return _remember(path, _load(path))
    candidates = [found for found in map(_readable, (PSLFILE, DEBIAN_FILE)) if found]
    if not candidates:
        raise SuffixListError(
            f"no usable public suffix list: neither {PSLFILE} nor {DEBIAN_FILE} can be read"
        )
    return _remember(path, _load(max(candidates)[1]))


_last_good: dict[str, Suffixes] = {}


def _remember(path: str, found: Suffixes) -> Suffixes:
    _last_good[path] = found
    return found


def latest_suffixes(path: str, today: date) -> tuple[Suffixes, str]:
    """The list, and a warning or "". Where the file cannot be used now, the last one that this
    process or its parent before the fork could read from it. Raises SuffixListError if
    there never was one."""
    try:
        found = load_suffixes(path)
    except SuffixListError as error:
        if path not in _last_good:
            raise
        return _last_good[path], f"{error}; the list read before is kept"
    return found, found.stale(today)


def _readable(path: str) -> tuple[date, str] | None:
    try:
        return _date(_read(path), path), path
    except SuffixListError:
        return None


def _load(path: str) -> Suffixes:
    text = _read(path)
    try:
        icann, everything = _parsed(text)
    except (ValueError, LookupError) as error:  # the idna codec raises UnicodeError, a ValueError
        raise SuffixListError(
            f"public suffix list {path}: not readable as a list ({type(error).__name__})"
        ) from error
    return Suffixes(path, _date(text, path), icann, everything)


@lru_cache(maxsize=2)
def _parsed(text: bytes) -> tuple[PublicSuffixList, PublicSuffixList]:
    """Both views of the list; remembered, since a reload rarely meets a new one."""
    lines = text.split(b"\n")
    return PublicSuffixList(lines, only_icann=True), PublicSuffixList(lines)


def _read(path: str) -> bytes:
    """The file's text, if it can be the list: an empty or cut one would make every name an
    organization of its own."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_FILE + 1)
    except OSError as error:
        raise SuffixListError(
            f"public suffix list {path}: {error.strerror or 'cannot be read'}"
        ) from error
    if len(text) > MAX_FILE:
        raise SuffixListError(f"public suffix list {path}: over {MAX_FILE} octets")
    _, begin, rest = text.partition(BEGIN)
    section, end, _ = rest.partition(END)
    rules = [
        line.strip() for line in section.split(b"\n") if line.strip() and not line.startswith(b"//")
    ]
    if not (begin and end and len(rules) >= MIN_RULES and b"com" in rules):
        raise SuffixListError(f"public suffix list {path}: no complete ICANN section")
    return text


def _date(text: bytes, path: str) -> date:
    """`// VERSION: 2026-10-22_08-36-41_UTC`, else the file's date."""
    _, found, rest = text[:4096].partition(b"// VERSION: ")
    try:
        return (
            date.fromisoformat(rest[:10].decode("ascii", "replace")) if found else _file_date(path)
        )
    except ValueError:
        return _file_date(path)


def _file_date(path: str) -> date:
    try:
        return datetime.fromtimestamp(Path(path).stat().st_mtime, UTC).date()
    except (OSError, ValueError, OverflowError):
        return date.min
