"""What a sendmail.cf says (Sendmail Installation and Operation Guide, 5.6): its options, and what
its daemons ask of clients."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

COMMENT = re.compile(r"(?<![$\\])#")
# The shortest abbreviation that Sendmail takes for each, and the old form of one letter.
ABBREVIATIONS = {"daemonportoptions": "dae", "dontexpandcnames": "donte", "resolveroptions": "res"}
OLD_LETTERS = {"O": "daemonportoptions", "I": "resolveroptions"}
SPACE = " \t\n\r\f\v"
MAX_FLAGS = 84
"""Characters of Modifiers; Sendmail ignores longer ones."""
MAX_FILE = 4 << 20
"""Bytes. A longer file is not read at all: what follows could say the opposite."""


class Daemon(NamedTuple):
    """One DaemonPortOptions line. `flags` are the letters of its Modifiers, `filters` its own
    InputMailFilters; None where the general ones count."""

    name: str
    port: str
    flags: str
    filters: str | None = None

    @property
    def demands_login(self) -> bool:
        """M=a: no MAIL without AUTH."""
        return "a" in self.flags


def read(path: Path) -> str | None:
    """The text, undecodable bytes kept; None where we may read none, or it is too long."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE + 1)
    except OSError:
        return None
    return text.decode("utf-8", "surrogateescape") if len(text) <= MAX_FILE else None


def lines(text: str) -> Iterator[str]:
    """Logical lines as Sendmail sees them. One that begins with white space continues the one
    before, with the line's end kept. A `#` in the middle of a line begins a comment too, up to
    the end of its own line."""
    current, skipped = "", True
    for line in text.split("\n"):
        if line[:1] in (" ", "\t"):
            current += "" if skipped else "\n" + _uncommented(line)
            continue
        if current:
            yield current.rstrip(SPACE)
        skipped = not line or line[0] == "#"
        current = "" if skipped else _uncommented(line)
    if current:
        yield current.rstrip(SPACE)


def _uncommented(line: str) -> str:
    """`$#` belongs to a rule, and a backslash makes `#` an ordinary character."""
    if "#" not in line:
        return line
    comment = COMMENT.search(line)
    kept = line[: comment.start()].rstrip(SPACE) if comment else line
    return kept.replace("\\#", "#")


def options(text: str) -> Iterator[tuple[str, str]]:
    """(name in lower case, value) of each option, in order: `O Name=value`, where the name may be
    abbreviated, or `OOvalue`."""
    for line in lines(text):
        if line[0] != "O" or len(line) < 2:
            continue
        if line[1] != " ":
            yield OLD_LETTERS.get(line[1], line[1]), line[2:].strip(SPACE)
            continue
        name, _, value = line[2:].partition("=")
        yield _full(name.rstrip(" ").partition(".")[0].lower()), value.strip(SPACE)


def _full(name: str) -> str:
    """The option that Sendmail takes an abbreviation for."""
    for full, shortest in ABBREVIATIONS.items():
        if full.startswith(name) and name.startswith(shortest):
            return full
    return name


def daemons(text: str) -> tuple[Daemon, ...]:
    """All daemons that listen, each with the name that Sendmail gives it if its line has none."""
    found: list[Daemon] = []
    for name, value in options(text):
        if name == "daemonportoptions":
            keys = _keys(value)
            found.append(
                Daemon(
                    keys.get("N", f"Daemon{len(found)}"),
                    keys.get("P", "25"),
                    keys.get("M", ""),
                    keys.get("I"),
                )
            )
    return tuple(found)


def _keys(value: str) -> dict[str, str]:
    """By the first letter of each key, by which alone Sendmail knows it. A small letter is like a
    capital, and the last one counts."""
    found: dict[str, str] = {}
    for piece in value.split(","):
        key, equals, given = (part.strip(SPACE) for part in piece.partition("="))
        letter = key[:1].upper()
        if equals and (letter != "M" or len(given) <= MAX_FLAGS):
            found[letter] = given
    return found


def demanding(text: str) -> frozenset[str]:
    """Names of daemons that take mail from nobody but authenticated clients, on every port that has
    the name."""
    listening = daemons(text)
    lax = {daemon.name for daemon in listening if not daemon.demands_login}
    return frozenset(daemon.name for daemon in listening) - lax - {""}


def remarks(text: str, trusted: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, a sentence) for each daemon in trusted_daemons that takes mail without a login."""
    for daemon in daemons(text):
        if daemon.name in trusted and not daemon.demands_login:
            yield (
                daemon.name,
                f"the daemon {daemon.name} (port {daemon.port}) takes mail without authentication:"
                " only its authenticated clients and trusted_networks pass unevaluated; M=Ea in its"
                " DAEMON_OPTIONS makes it demand a login (with FEATURE(`no_default_msa') where it"
                " is Sendmail's own)",
            )
