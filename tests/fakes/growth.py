"""How the time of a function grows with its input: linear code doubles, quadratic code quadruples."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

TRIES = 8
WORTH_MEASURING = 0.002
"""Seconds of processor time; anything quicker is not worth attacking and too short to compare."""


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one run: other processes do not count."""
    start = process_time()
    work()
    return process_time() - start


def is_linear(function: Callable[[bytes], object], make: Callable[[int], bytes], size: int = 65536) -> bool:
    """Whether time(2n) / time(n) < 2.6 in at least one of several tries: noise may spoil some, but quadratic code fails them all."""
    small, large = make(size), make(2 * size)
    for _ in range(TRIES):
        once = seconds(lambda: function(small))
        twice = seconds(lambda: function(large))
        if twice < max(2.6 * once, WORTH_MEASURING):
            return True
    return False
