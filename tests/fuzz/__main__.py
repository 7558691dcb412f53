"""python -m fuzz TARGET [--seconds N] [--seed N] [--input FILE]: one target, alone. Exits 1 with
the input when something is found."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from fuzz.engine import Fuzzer
from fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description="Fuzzes one parser of the package."
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--input", type=Path, help="run this one input only")
    arguments = parser.parse_args()
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    fuzzer = Fuzzer(TARGETS[arguments.target], seed)
    found = (
        fuzzer.one(arguments.input.read_bytes())
        if arguments.input
        else fuzzer.run(arguments.seconds)
    )
    print(
        f"{arguments.target}: seed {seed}, {fuzzer.inputs} inputs, {len(fuzzer.corpus)} kept,"
        f" {len(fuzzer.lines)} lines"
    )
    if found is None:
        return 0
    print(f"{found.error}\ninput: {found.octets!r}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
