"""Descriptors that are kept back while there are enough, so that something can still be done when
there are none."""

from __future__ import annotations

import os


class SpareDescriptors:
    """A few of them. `short`: they could not be had at the last look, and were given up."""

    def __init__(self, number: int = 4) -> None:
        self._number = number
        self._kept: list[int] = []
        self.short = False

    def look(self) -> None:
        """Keep so many; where they cannot be had, keep none, for whoever needs one. Never
        raises."""
        try:
            while len(self._kept) <= self._number:  # one more, for whoever comes next
                self._kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            os.close(self._kept.pop())
            self.short = False
        except OSError:
            self.short = True
            self.give_up()

    def give_up(self) -> None:
        """Close them."""
        while self._kept:
            os.close(self._kept.pop())
