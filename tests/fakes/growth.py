"""How the time of a function grows with its input: linear code doubles, quadratic code
quadruples."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from functools import lru_cache
from time import process_time

TRIES = 12
ROUNDS = 3
REFERENCE = 0.003
"""Seconds of processor time that the fixed piece of work takes on a machine at rest."""
LruCache = type(lru_cache(lambda: None))
"""Asked by type: a web framework's proxies refuse to be asked for an attribute outside a
request."""
WORTH_MEASURING = 0.002
"""Seconds of processor time; anything quicker is not worth attacking and too short to compare."""


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one run, garbage collection aside: neither other processes nor the rest of
    the test run count.

    What the package remembers of earlier runs is forgotten before.
    """
    forget()
    gc.disable()
    try:
        start = process_time()
        work()
        return process_time() - start
    finally:
        gc.enable()


def costs_less(limit: float, work: Callable[[], object]) -> bool:
    """Whether the best of up to TRIES runs takes less than `limit` seconds of a processor that has
    its time to itself.

    Beside each run a fixed piece of work shows how slow the processor is meanwhile (its caches and
    its clock are shared): the limit grows with that, so that another's load passes, and an
    algorithm that costs more does not.
    """
    return any(
        seconds(work) < limit * max(1.0, seconds(_reference) / REFERENCE) for _ in range(TRIES)
    )


def _reference() -> int:
    return sum(each & 1 for each in range(100_000))


def forget() -> None:
    """Empty every lru_cache of the package."""
    for name, module in list(sys.modules.items()):
        if name.startswith("dmarc_milter"):
            for each in vars(module).values():
                if isinstance(each, LruCache):
                    each.cache_clear()


def is_linear(
    function: Callable[[bytes], object], make: Callable[[int], bytes], size: int = 65536
) -> bool:
    """Whether time(2n) / time(n) < 2.6, comparing the best of up to TRIES runs: noise passes,
    quadratic code stays.

    Up to ROUNDS times from the beginning: a short run while the processor was quick for once is
    never matched by a longer one.
    """
    return any(_seems_linear(function, make, size) for _ in range(ROUNDS))


def _seems_linear(
    function: Callable[[bytes], object], make: Callable[[int], bytes], size: int
) -> bool:
    """Where one doubling crosses the size of a processor's cache, two doublings are looked at:
    below 2.6 each on average, and quadratic code takes 16 times as long.
    """
    small, large, larger = make(size), make(2 * size), make(4 * size)
    once = twice = float("inf")
    for _ in range(TRIES):
        once = min(once, seconds(lambda: function(small)))
        twice = min(twice, seconds(lambda: function(large)))
        if twice < max(2.6 * once, WORTH_MEASURING):
            return True
    return min(seconds(lambda: function(larger)) for _ in range(3)) < 2.6 * 2.6 * once
