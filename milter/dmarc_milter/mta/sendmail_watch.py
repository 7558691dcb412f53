"""The sendmail.cf of a running daemon: read by nobody else, and read again when it has changed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from dmarc_milter.core.dmarc.rewritten_from import Canonify
from dmarc_milter.mta import sendmail_cf, sendmail_rewriting

RULESET = re.compile(r"^S", re.MULTILINE)
LOOK_AGAIN = 5.0
"""Seconds between two looks whether the file has changed."""


class _Held(NamedTuple):
    stamps: tuple[tuple[int, ...], ...]
    canonify: Canonify | None
    demanding: frozenset[str]


class Watched:
    """What one sendmail.cf, with its resolv.conf, says; `now` is seconds, monotonic. For several
    threads."""

    def __init__(self, path: Path, resolv_conf: Path = sendmail_rewriting.RESOLV_CONF) -> None:
        self._path, self._resolv_conf = path, resolv_conf
        self._look_again = 0.0
        self._held: _Held | None = None

    def canonify(self, now: float | None = None) -> Canonify | None:
        """How this Sendmail changes From; None where it does not. A file that cannot be read is
        taken for Sendmail's default."""
        return self._look(now).canonify

    def demanding(self, now: float | None = None) -> frozenset[str]:
        """Names of daemons that take mail from nobody but authenticated clients; none where the
        file cannot be read."""
        return self._look(now).demanding

    def _look(self, now: float | None) -> _Held:
        now = time.monotonic() if now is None else now
        held = self._held
        if held is not None and now < self._look_again:
            return held
        self._look_again = now + LOOK_AGAIN
        stamps = tuple(_stamp(path) for path in (self._path, self._resolv_conf))
        if held is None or held.stamps != stamps:
            held = self._held = self._read(stamps)
        return held

    def _read(self, stamps: tuple[tuple[int, ...], ...]) -> _Held:
        text = sendmail_cf.read(self._path)
        # One without any ruleset is none yet: it is just being written, and Sendmail still runs
        # with the one before.
        cf = sendmail_rewriting.parse(text) if text and RULESET.search(text) else None
        return _Held(
            stamps, sendmail_rewriting.how(cf, self._resolv_conf), sendmail_cf.demanding(text or "")
        )


class Demanding(Collection[str]):
    """Those of the names that, at this moment, take mail from nobody but authenticated clients."""

    def __init__(self, watched: Watched, names: Collection[str]) -> None:
        self._watched, self._names = watched, frozenset(names)

    def __contains__(self, name: object) -> bool:
        return name in self._names and name in self._watched.demanding()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names & self._watched.demanding()))

    def __len__(self) -> int:
        return len(self._names & self._watched.demanding())


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        held = os.stat(path)
    except OSError:
        return ()
    return held.st_mtime_ns, held.st_size, held.st_ino
