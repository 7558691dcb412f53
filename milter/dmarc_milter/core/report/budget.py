"""What reading a stranger's file may cost, over all its parts together, and the words about what
was wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from dmarc_milter.core.text import printable

PIECE = 64 << 10
"""Bytes that are unpacked at a time."""
MAX_WORDS = 30
"""Different things that are said about one report."""


class UnreadableReport(ValueError):
    """Not a report, or too large. `str()` is one line."""


class Spent(UnreadableReport):
    """The budget is used up: what was read until then stays."""


@dataclass(slots=True)
class Budget:
    """`octets` unpacked, `elements` of XML, `kept` bytes in memory for the answer, and `seconds`
    by `clock`, which has no origin."""

    octets: int
    elements: int
    kept: int
    seconds: float
    clock: Callable[[], float]
    most: tuple[int, int] = (0, 0)
    _until: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.most = (self.octets, self.elements)
        self._until = self.clock() + self.seconds

    def unpack(self, octets: int) -> None:
        """Raises Spent."""
        self.octets -= octets
        if self.octets < 0:
            raise Spent(f"more than {self.most[0] >> 20} MiB unpacked")
        if self.clock() > self._until:
            raise Spent(f"it takes more than {self.seconds:g} seconds to read")

    def element(self) -> None:
        """Raises Spent."""
        self.elements -= 1
        if self.elements < 0:
            raise Spent(f"more than {self.most[1]:,} elements")

    def keep(self, octets: int) -> None:
        """Raises Spent."""
        self.kept -= octets
        if self.kept < 0:
            raise Spent("more records than are kept in memory")

    def charged(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """`pieces`, each paid for."""
        for piece in pieces:
            self.unpack(len(piece))
            yield piece


class Words:
    """Each thing once, with how often it was met. They quote the report, so they are made fit to be
    shown."""

    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def say(self, text: str) -> None:
        text = printable(text, ascii_only=False)
        if text in self._said or len(self._said) < MAX_WORDS:
            self._said[text] = self._said.get(text, 0) + 1

    def all(self) -> tuple[str, ...]:
        return tuple(
            f"{text} ({number} times)" if number > 1 else text
            for text, number in self._said.items()
        )
