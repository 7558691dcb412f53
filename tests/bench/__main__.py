"""The whole comparison in one run: `make bench`, or `python -m bench [--quick] [--growth]
[FOLDER]`."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import contenders, peers, place, restart, targets
from bench.contenders import FLOOR, Start
from bench.corpus import load_or_make
from bench.growth import growth
from bench.measures import NO_MILTER, Bench
from bench.peers import CHAIN, RSPAMD
from fakes.daemon import ROOT

STEPS = ("start", "cold", "warm", "latency", "tcp", "memory", "postfix")


def main() -> None:
    """Measure and print."""
    arguments = _parser().parse_args()
    if arguments.growth:
        growth(load_or_make(arguments.folder))
        return
    private = place.enter()
    starts: dict[str, Start] = contenders.by_library() | {FLOOR: contenders.floor}
    ours = [name for name in starts if name != FLOOR]
    found = peers.unpacked() if private else {}
    if not found:
        print(
            "without rspamd, OpenDKIM and OpenDMARC: `make bench-peers` unpacks them, and a network"
            " of our own must be allowed"
        )
    starts |= found
    if arguments.who:
        starts = {name: start for name, start in starts.items() if name in arguments.who}
    with tempfile.TemporaryDirectory(prefix="dmarc-bench-") as folder:
        Path(folder).chmod(0o755)
        bench = Bench(
            load_or_make(arguments.folder),
            Path(folder),
            starts,
            scale=0.25 if arguments.quick else 1.0,
            private=private,
        )
        for name in arguments.only or STEPS:
            getattr(bench, name)()
    print(f"Python {platform.python_version()} at {Path(sys.executable).resolve()}")
    names = list(starts)
    bench.table.show([*names, NO_MILTER])
    bench.table.show_ratios(ours, [name for name in (CHAIN, RSPAMD, FLOOR) if name in names])
    targets.show(bench.table, names)
    if not arguments.only:
        restart.show()
        print(
            "\nWhere the time of one message goes in one undisturbed thread; `make profile` shows"
            " more:",
            flush=True,
        )
        subprocess.run([sys.executable, "-m", "bench.stages", "--lines", "15"], check=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=ROOT / ".test/bench",
        help="for the senders' keys; made once",
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the messages")
    parser.add_argument(
        "--growth", action="store_true", help="how cost grows, instead of the comparison"
    )
    parser.add_argument("--only", choices=STEPS, action="append")
    parser.add_argument("--who", action="append", help="only these contenders")
    return parser


if __name__ == "__main__":
    main()
