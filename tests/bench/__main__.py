"""The whole comparison in one run: `make bench`, or `python -m bench [--quick] [--growth]
[FOLDER]`."""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import aims, contenders, mta, place, restart
from bench.contenders import Contender
from bench.corpus import Corpus, Sample, load_or_make
from bench.growth import growth
from bench.load import OFFER, Connection, Driver, Outcome
from bench.place import Dns, dns_server
from fakes.daemon import ROOT

Start = Callable[[Path, str], AbstractContextManager[Contender]]
DELAY = 0.03
"""Seconds that every DNS answer takes where latency is measured."""
LARGE = 20_000_000
STEPS = ("cold", "warm", "latency", "memory", "postfix")


@dataclass
class Table:
    """Numbers by line and contender, each measured several times. Other work on the machine only
    ever adds processor time and takes speed, so of those the best round is shown; of everything
    else the median."""

    lines: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, line: str, who: str, value: float) -> None:
        self.lines[line][who].append(value)

    def value(self, line: str, who: str) -> float | None:
        """What is shown there; None where nothing was measured."""
        best = (
            min
            if line.startswith("CPU")
            else max
            if line.startswith("messages/s")
            else statistics.median
        )
        found = self.lines[line][who] if line in self.lines and who in self.lines[line] else None
        return best(found) if found else None

    def show(self, names: list[str]) -> None:
        """One line each, then our ratio to each of the peers, which come last."""
        peers = names[3:]
        print(
            f"{'':<46}"
            + "".join(f"{name:>22}" for name in (*names, *(f"x {peer}" for peer in peers)))
        )
        for line in self.lines:
            middles = [self.value(line, name) for name in names]
            cells = "".join(f"{'-' if each is None else f'{each:.2f}':>22}" for each in middles)
            ours = middles[0]
            ratios = (
                ours / theirs if ours is not None and theirs else None for theirs in middles[3:]
            )
            print(
                f"{line:<46}{cells}"
                + "".join(f"{'-' if ratio is None else f'{ratio:.2f}':>22}" for ratio in ratios)
            )


class Bench:
    """All measurements. `scale` shortens the run."""

    def __init__(
        self, corpus: Corpus, folder: Path, starts: list[Start], *, scale: float, private: bool
    ) -> None:
        self.corpus, self.folder, self.starts = corpus, folder, starts
        self.scale, self.private = scale, private
        self.table = Table()
        self.rounds = 3 if scale >= 1 else 2

    def messages(self, full: int) -> int:
        return max(60, int(full * self.scale))

    @contextmanager
    def dns(self, *, delay: float = 0.0, ttl: int = 3600) -> Iterator[Dns]:
        with dns_server(self.corpus.zone, delay=delay, ttl=ttl, private=self.private) as dns:
            yield dns

    def each(self, dns: Dns) -> Iterator[Contender]:
        """One contender after the other, fresh."""
        for start in self.starts:
            with start(self.new_folder(), dns.nameserver) as contender:
                yield contender

    def drive(self, contender: Contender, messages: int, connections: int) -> tuple[Outcome, float]:
        """The outcome, and milliseconds of CPU for each message."""
        driver = Driver(contender.chain, self.corpus.samples, connections=connections)
        driver.prepare()
        before = contender.cost.cpu()
        outcome = driver.run(messages)
        check(contender, outcome)
        return outcome, (contender.cost.cpu() - before) / messages * 1e3

    def cold(self) -> None:
        """Processor time with nothing known yet, and how much is asked."""
        for _ in range(self.rounds):
            with self.dns() as dns:
                for one in self.each(dns):
                    Driver(one.chain, self.signed(), connections=4).run(
                        80
                    )  # the processes are to have started, not the DNS
                    before, messages = dns.answered(), self.messages(600)
                    _, cpu = self.drive(one, messages, 1)
                    self.table.add("CPU ms/message, DNS cold, 1 connection", one.name, cpu)
                    self.table.add(
                        "DNS queries/message, cold", one.name, (dns.answered() - before) / messages
                    )

    def warm(self) -> None:
        """Processor time and rate when the answers are known."""
        with self.dns() as dns, ExitStack() as stack:
            running = [
                stack.enter_context(start(self.new_folder(), dns.nameserver))
                for start in self.starts
            ]
            for one in running:
                self.drive(one, len(self.corpus.samples), 4)
            for _ in range(2 * self.rounds):
                for connections in (1, 16):
                    for one in running:
                        outcome, cpu = self.drive(one, self.messages(500), connections)
                        self.table.add(
                            f"CPU ms/message, DNS warm, {connections} connections", one.name, cpu
                        )
                        self.table.add(
                            f"messages/s, DNS warm, {connections} connections",
                            one.name,
                            outcome.rate,
                        )

    def latency(self) -> None:
        """Milliseconds until the answer while DNS takes its time: the first pass is cold, the
        second warm."""
        with self.dns(delay=DELAY) as dns:
            for one in self.each(dns):
                for what in ("cold", "warm"):
                    outcome, _ = self.drive(
                        one, min(len(self.corpus.samples), self.messages(1000)), 8
                    )
                    for share in (50, 90, 99):
                        self.table.add(
                            f"latency ms, {DELAY * 1e3:.0f} ms DNS, {what}, p{share}",
                            one.name,
                            outcome.quantile(share / 100) * 1e3,
                        )

    def memory(self) -> None:
        """Megabytes (PSS of all processes): idle, with 200 idle connections more, with 16 messages
        of 20 MB in flight more."""
        body = b"".join(
            b"A line of an attachment, seventy-six octets of it, as base64 would have it.\r\n"
            for _ in range(LARGE // 78)
        )
        large = [
            Sample(
                **{name: getattr(one, name) for name in Sample.__struct_fields__} | {"body": body}
            )
            for one in self.signed()
        ]
        with self.dns() as dns:
            for one in self.each(dns):
                self.drive(one, 100, 4)
                idle = one.cost.memory()
                self.table.add("memory MB, all processes", one.name, idle)
                self.table.add(
                    "memory MB more, 200 idle connections", one.name, idle_connections(one) - idle
                )
                base = one.cost.memory()
                driver = Driver(one.chain, large, connections=16)
                driver.prepare()
                with highest(one) as peak:
                    outcome = driver.run(16)
                self.table.add("memory MB more, 16 x 20 MB in flight", one.name, max(peak) - base)
                self.table.add("seconds, 16 x 20 MB", one.name, outcome.seconds)

    def postfix(self) -> None:
        """Messages a second through Postfix."""
        (sample,) = self.signed()
        with self.dns() as dns, ExitStack() as stack:
            running = [
                stack.enter_context(start(self.new_folder(), dns.nameserver))
                for start in self.starts
            ]
            for _ in range(self.rounds):
                for one in running:
                    self.table.add(
                        "messages/s through Postfix",
                        one.name,
                        mta.rate(one, sample, self.messages(600)),
                    )
                self.table.add(
                    "messages/s through Postfix",
                    "no milter",
                    mta.rate(None, sample, self.messages(600)),
                )

    def new_folder(self) -> Path:
        """One that the accounts of all programs may enter."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        folder.chmod(0o755)
        return folder

    def signed(self) -> list[Sample]:
        """Some messages with a signature; their bodies are to be replaced."""
        return [one for one in self.corpus.samples if one.kind == "direct"][:1]


def check(contender: Contender, outcome: Outcome) -> None:
    """A contender that answers wrongly is not compared."""
    if outcome.replies["lost"] or outcome.replies["t"]:
        raise SystemExit(f"{contender.name}: replies {dict(outcome.replies)}")
    wrong = {pair: count for pair, count in outcome.results.items() if pair[0] != pair[1]}
    if contender.name == "dmarc-milter" and wrong:
        raise SystemExit(f"{contender.name}: dmarc results (expected, found) {wrong}")


def idle_connections(contender: Contender) -> float:
    """Megabytes while 200 connections have negotiated and wait."""
    connections = []
    for address in contender.chain:
        for _ in range(200):
            connection = Connection(address)
            connection.socket.setblocking(True)
            connection.socket.sendall(OFFER)
            connection.socket.recv(64)
            connections.append(connection)
    used = contender.cost.memory()
    for connection in connections:
        connection.socket.close()
    time.sleep(0.5)
    return used


@contextmanager
def highest(contender: Contender) -> Iterator[list[float]]:
    """Samples of the memory while inside."""
    found: list[float] = [contender.cost.memory()]
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.05):
            found.append(contender.cost.memory())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=ROOT / ".test/bench",
        help="for the corpus; made once",
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the messages")
    parser.add_argument(
        "--growth", action="store_true", help="how cost grows, instead of the comparison"
    )
    parser.add_argument("--only", choices=STEPS, action="append")
    arguments = parser.parse_args()
    if arguments.growth:
        growth(load_or_make(arguments.folder))
        return
    private = place.enter()
    starts: list[Start] = [contenders.ours, contenders.floor]
    peers = {"usr/bin/rspamd": contenders.rspamd, "usr/sbin/opendkim": contenders.chain}
    found = [
        start
        for program, start in peers.items()
        if private and (contenders.PEERS / program).exists()
    ]
    if len(found) < len(peers):
        print(
            "without all of rspamd, OpenDKIM and OpenDMARC: `make bench-peers` unpacks them, and a"
            " network of our own must be allowed"
        )
    starts += found
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
    names = {contenders.rspamd: aims.RSPAMD, contenders.chain: aims.CHAIN}
    bench.table.show([aims.OURS, "no milter", aims.FLOOR, *(names[start] for start in found)])
    aims.show(bench.table.value)
    if not arguments.only:
        restart.show()
        print(
            "\nWhere the time of one message goes in one undisturbed thread; `make profile` shows"
            " more:",
            flush=True,
        )
        subprocess.run([sys.executable, "-m", "bench.stages", "--lines", "15"], check=True)


if __name__ == "__main__":
    main()
