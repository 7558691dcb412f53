"""What a sendmail.cf says (Sendmail Installation and Operation Guide, 5.6): its options, and what
its daemons ask of clients."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# `O Name=value`, or the old form of one letter, `OOvalue` for DaemonPortOptions.
OPTION = re.compile(r"O(?: +([A-Za-z]+) *=? *|([A-Za-z]))(.*)", re.DOTALL)
OLD_LETTERS = {"O": "daemonportoptions"}
MAX_FILE = 4 << 20
"""Octets that are read."""


class Daemon(NamedTuple):
    """One DaemonPortOptions line. `flags` are the letters of its Modifiers."""

    name: str
    port: str
    flags: str

    @property
    def demands_login(self) -> bool:
        """M=a: no MAIL without AUTH."""
        return "a" in self.flags


def read(path: Path) -> str | None:
    """The text, undecodable octets kept; None where there is none that we may read."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE).decode("utf-8", "surrogateescape")
    except OSError:
        return None


def options(text: str) -> Iterator[tuple[str, str]]:
    """(name in lower case, value) of each option, in order; a line that begins with white space
    continues the one before."""
    for line in re.sub(r"\n[ \t]+", " ", text).split("\n"):
        found = OPTION.match(line)
        if found:
            yield (
                (found[1].lower() if found[1] else OLD_LETTERS.get(found[2], found[2])),
                found[3].strip(),
            )


def daemons(text: str) -> tuple[Daemon, ...]:
    """All daemons that listen. Sendmail tells the keys apart by their first letter; a daemon
    without a name has none here."""
    found = []
    for name, value in options(text):
        if name == "daemonportoptions":
            keys = {
                key.strip()[:1]: given.strip()
                for key, _, given in (each.partition("=") for each in value.split(","))
            }
            found.append(Daemon(keys.get("N", ""), keys.get("P", "25"), keys.get("M", "")))
    return tuple(found)


def demanding(text: str) -> frozenset[str]:
    """Names of daemons that take mail from nobody but authenticated clients, on every port that has
    the name."""
    listening = daemons(text)
    lax = {each.name for each in listening if not each.demands_login}
    return frozenset(each.name for each in listening) - lax - {""}


def remarks(text: str, trusted: Iterable[str]) -> Iterator[str]:
    """A sentence for each daemon in trusted_daemons that takes mail without a login."""
    for each in daemons(text):
        if each.name in trusted and not each.demands_login:
            yield (
                f"the daemon {each.name} (port {each.port}) takes mail without authentication: only"
                " its authenticated clients and trusted_networks pass unevaluated; M=Ea in its"
                " DAEMON_OPTIONS makes it demand a login (with FEATURE(`no_default_msa') where it"
                " is Sendmail's own)"
            )
