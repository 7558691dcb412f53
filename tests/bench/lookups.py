"""What a DNS question costs: `python tests/bench/lookups.py` prints microseconds of CPU and wall
time beside dnspython.

The server runs in a process of its own; CPU is this process's alone, with every thread of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.resolver

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "milter")]

from dmarc_milter.core.resolver import Question  # noqa: E402
from dmarc_milter.dns.resolver import DnsResolver  # noqa: E402
from dmarc_milter.process.loop import Loop  # noqa: E402

KEY = "v=DKIM1; k=rsa; p=" + "A" * 374
ZONE = {
    "*.bench.example": {"TXT": [KEY], "ttl": 3600},
    "cached.example": {"TXT": [KEY], "ttl": 3600},
}


@contextmanager
def server() -> Iterator[str]:
    """The scriptable server in a process; gives its address."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as zone:
        json.dump(ZONE, zone)
        zone.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "fakes.dns_server", zone.name],
            cwd=TESTS,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait()


def measure(label: str, rounds: int, run: Callable[[int], None]) -> None:
    """One line: microseconds per round."""
    run(-1)
    wall, cpu = time.perf_counter(), time.process_time()
    for n in range(rounds):
        run(n)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{label:<58}{cpu / rounds * 1e6:>10.1f}{wall / rounds * 1e6:>10.1f}")


def ours(address: str, rounds: int) -> None:
    """This program's resolver, cached, one by one, eight together, and by four threads."""
    source = DnsResolver(Loop(), [address])
    message = source.for_message(max_queries=10**9)
    message.txt("cached.example")
    measure(
        "ours: asked before by this message",
        rounds * 20,
        lambda _: void(message.txt("cached.example")),
    )
    measure(
        "ours: cached, a message of its own",
        rounds * 10,
        lambda _: void(source.for_message().txt("cached.example")),
    )
    measure(
        "ours: uncached, one at a time",
        rounds,
        lambda n: void(source.for_message().txt(f"a{n}.bench.example")),
    )

    def together(n: int) -> None:
        message = source.for_message()
        names = [f"b{n}-{each}.bench.example" for each in range(8)]
        message.prefetch([Question(name, "TXT") for name in names])
        for name in names:
            message.txt(name)

    measure("ours: uncached, eight prefetched, per message", rounds // 8, together)

    def threads(n: int) -> None:
        workers = [
            threading.Thread(
                target=lambda w=w: [
                    source.for_message().txt(f"c{n}-{w}-{m}.bench.example")
                    for m in range(rounds // 4)
                ]
            )
            for w in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    measure(f"ours: uncached, {rounds // 4 * 4} by four threads, per round of all", 1, threads)
    source.close()


def theirs(address: str, rounds: int) -> None:
    """dnspython as it comes, with EDNS and its own cache."""
    host, _, port = address.rpartition(":")
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [host], int(port)
    resolver.use_edns(0, 0, 1232)
    measure(
        "dnspython: uncached",
        rounds,
        lambda n: void(resolver.resolve(f"d{n}.bench.example", "TXT")),
    )
    resolver.cache = dns.resolver.LRUCache(1000)
    measure(
        "dnspython: cached", rounds * 10, lambda _: void(resolver.resolve("cached.example", "TXT"))
    )


def void(_: object) -> None:
    """Drop a value."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4000)
    rounds = parser.parse_args().rounds
    print(f"{'microseconds':<58}{'CPU':>10}{'wall':>10}")
    with server() as address:
        ours(address, rounds)
        theirs(address, rounds)


if __name__ == "__main__":
    main()
