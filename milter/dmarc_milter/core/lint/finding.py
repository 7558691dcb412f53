"""One thing worth knowing about what a domain publishes."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """`unknown`: the DNS did not answer, so it may be right or wrong."""

    NOTE = "note"
    WARNING = "warning"
    UNKNOWN = "unknown"
    ERROR = "error"


class Finding(NamedTuple):
    """`where` is a tag, "SPF", "record", "walk", or an address; `text` one sentence of printable
    ASCII."""

    level: Level
    where: str
    text: str
