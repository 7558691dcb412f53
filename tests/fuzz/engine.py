"""A small fuzzer: seeds are cut, spliced and flipped; what reaches a new line of the package is
kept and mutated further.

A run is repeatable by its seed as long as it is counted in inputs; a run counted in seconds differs
only in where it stops.
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple

MAX_INPUT = 8192
TRACED = 4
"""One input in so many is run with its lines watched, which makes it ten times slower."""
SLOW = 0.2
"""Seconds of processor time that no input may take."""
INTERESTING = (
    b"\x00",
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n ",
    b"\t",
    b" ",
    b";",
    b"=",
    b"@",
    b"<",
    b">",
    b"(",
    b")",
    b'"',
    b"\\",
    b",",
    b":",
    b".",
)
INTERESTING += (
    b"%",
    b"\xff",
    b"\xc3\xa9",
    b"\xe2\x80\x8b",
    b"\xef\xbc\x8e",
    b"=?utf-8?q?a=40b?=",
    b"xn--",
    b"0",
    b"-1",
    b"9" * 30,
    b"/",
    b"[",
    b"]",
)


class Target(NamedTuple):
    """`check` takes any octets and raises when something is wrong with what the package makes of
    them."""

    name: str
    check: Callable[[bytes], object]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()


class Finding(NamedTuple):
    octets: bytes
    error: str


class Fuzzer:
    """Feeds one target."""

    def __init__(self, target: Target, seed: int) -> None:
        self.target = target
        self.chance = random.Random(seed)
        self.corpus = [seed[:MAX_INPUT] for seed in target.seeds]
        self.words = [*INTERESTING, *target.words]
        self.lines: set[tuple[str, int]] = set()
        self.inputs = 0

    def run(self, seconds: float) -> Finding | None:
        """Until the time is over or something is found. The seeds themselves come first."""
        end = time.monotonic() + seconds
        for each in tuple(self.corpus):
            if found := self.one(each, watched=True):
                return found
        while time.monotonic() < end:
            if found := self.one(self.mutated(), watched=self.inputs % TRACED == 0):
                return found
        return None

    def one(self, octets: bytes, *, watched: bool = False) -> Finding | None:
        """One input; kept when it reaches a new line."""
        self.inputs += 1
        before = len(self.lines)
        start = time.process_time()
        try:
            if watched:
                sys.settrace(self._trace)
            self.target.check(octets)
        except Exception:
            sys.settrace(None)
            return Finding(octets, traceback.format_exc(limit=-6))
        finally:
            sys.settrace(None)
        if len(self.lines) > before:
            self.corpus.append(octets)
        if not watched and time.process_time() - start > SLOW:
            best = min(self._timed(octets) for _ in range(3))
            if best > SLOW:
                return Finding(octets, f"took {best:.2f} s")
        return None

    def _timed(self, octets: bytes) -> float:
        start = time.process_time()
        self.target.check(octets)
        return time.process_time() - start

    def mutated(self) -> bytes:
        """An input that is like one of the corpus."""
        octets = bytearray(self.chance.choice(self.corpus))
        for _ in range(1 << self.chance.randrange(4)):
            self.chance.choice(
                (self._flip, self._cut, self._insert, self._insert, self._repeat, self._splice)
            )(octets)
        return bytes(octets[:MAX_INPUT])

    def _place(self, octets: bytearray) -> int:
        return self.chance.randrange(len(octets) + 1)

    def _flip(self, octets: bytearray) -> None:
        if octets:
            octets[self.chance.randrange(len(octets))] = self.chance.randrange(256)

    def _cut(self, octets: bytearray) -> None:
        start = self._place(octets)
        del octets[start : start + self.chance.choice((1, 1, 2, 5, 20, 100))]

    def _insert(self, octets: bytearray) -> None:
        place = self._place(octets)
        octets[place:place] = self.chance.choice(self.words)

    def _repeat(self, octets: bytearray) -> None:
        start = self._place(octets)
        piece = octets[start : start + self.chance.choice((1, 2, 4, 16))]
        octets[start:start] = piece * self.chance.choice((1, 2, 10, 300))

    def _splice(self, octets: bytearray) -> None:
        other = self.chance.choice(self.corpus)
        start = self.chance.randrange(len(other) + 1)
        octets[self._place(octets) :] = other[start:]

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if "dmarc_milter" not in frame.f_code.co_filename:
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line
