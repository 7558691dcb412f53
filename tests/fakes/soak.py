"""How long fault tests run: short in continuous integration, long by `make soak`
(DMARC_MILTER_SOAK=1), the same assertions in both.

DMARC_MILTER_SEED repeats a run; each test prints the seed that it used.
"""

from __future__ import annotations

import os
import random
import secrets

LONG = os.environ.get("DMARC_MILTER_SOAK") == "1"


def kills(short: int, long: int = 200) -> int:
    """How many processes a fault test kills."""
    return long if LONG else short


def chance(name: str) -> random.Random:
    """The test's rng. The seed is printed, so a failure shows it."""
    seed = int(os.environ.get("DMARC_MILTER_SEED") or secrets.randbits(32))
    print(f"{name}: DMARC_MILTER_SEED={seed}")
    return random.Random(seed)
