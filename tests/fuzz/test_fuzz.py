"""Each target for a while, two at a time: seconds here, ten in continuous integration, ten minutes
by `make soak`.

DMARC_MILTER_FUZZ_SECONDS says how long, DMARC_MILTER_SEED repeats a run; every run prints its seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes.soak import LONG, chance
from fuzz.engine import SLOW, Fuzzer, Target
from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("DMARC_MILTER_FUZZ_SECONDS") or (600 if LONG else 3))

PAIRS = [tuple(TARGETS)[start : start + 2] for start in range(0, len(TARGETS), 2)]

pytestmark = [
    pytest.mark.processor,
    pytest.mark.slow,
    pytest.mark.soak,
    pytest.mark.timeout(SECONDS + 120),
]


def started(name: str, seed: int) -> subprocess.Popen[str]:
    paths = os.pathsep.join((str(ROOT / "milter"), str(ROOT / "tests")))
    command = [sys.executable, "-m", "fuzz", name, "--seconds", str(SECONDS), "--seed", str(seed)]
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("names", PAIRS, ids="+".join)
def test_nothing_is_found(names: tuple[str, ...]) -> None:
    """No exception, no broken promise of the target, nothing slow. What was found once stands as a
    test of its parser."""
    seed = chance("fuzz").randrange(1 << 32)
    runs = [started(name, seed) for name in names]
    outputs = [run.communicate()[0] for run in runs]
    print(*outputs, sep="\n")
    assert [run.returncode for run in runs] == [0, 0][: len(runs)], outputs


def test_a_planted_fault_is_found() -> None:
    """The fuzzer's own proof: a fault behind two conditions, and a slow input."""

    def faulty(octets: bytes) -> None:
        if octets[:1] == b"<" and b"(" in octets[2:]:
            raise ValueError("planted")

    found = Fuzzer(Target("planted", faulty, [b"<a>"]), seed=1).run(10)
    assert found is not None
    assert "planted" in found.error
    assert found.octets[:1] == b"<"

    def slow(octets: bytes) -> None:
        if octets.count(b"a") > 100:
            end = time.process_time() + 2 * SLOW
            while time.process_time() < end:
                pass

    found = Fuzzer(Target("slow", slow, [b"aaaa"]), seed=1).run(20)
    assert found is not None
    assert "took" in found.error


def test_a_run_is_repeatable() -> None:
    """The same seed gives the same inputs."""
    runs: list[list[bytes]] = []
    for _ in range(2):
        seen: list[bytes] = []
        fuzzer = Fuzzer(Target("seen", seen.append, [b"abc", b"<a@b>"]), seed=7)
        for _ in range(200):
            fuzzer.one(fuzzer.mutated())
        runs.append(seen)
    assert runs[0] == runs[1]
