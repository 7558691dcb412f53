"""One thing worth knowing: about what a domain publishes, or about this installation."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "note", "warning", "unknown", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "unknown", "error")
"""The mildest first. `unknown`: the DNS did not answer, so it may be right or wrong."""


class Finding(NamedTuple):
    """`where`: what it is about, such as a tag, "SPF", "walk", an address, "socket". `text`: one
    sentence of printable ASCII. `remedy`: the command or line that mends it, or ""."""

    level: Level
    where: str
    text: str
    remedy: str = ""
