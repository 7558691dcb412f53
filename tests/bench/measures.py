"""What is measured of each contender, and how."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from bench import mta, start
from bench.contenders import FLOOR, NATIVE, PYMILTER, Contender, Start, Where
from bench.corpus import Corpus, Sample
from bench.load import Connection, Driver, Outcome
from bench.new_names import share_of_new
from bench.place import Dns, dns_server
from bench.running import settle
from bench.script import OFFER
from bench.table import (
    BUSY,
    COLD,
    CPU,
    IDLE,
    LARGE,
    LARGE_SECONDS,
    LATENCY,
    MEMORY,
    NEW,
    POSTFIX,
    POSTFIX_TCP,
    QUERIES,
    RATE,
    START,
    STEADY,
    TCP,
    WAITED,
    WARM,
    Table,
)

DELAY = 0.03
"""Seconds that every DNS answer takes where latency is measured."""
STEADY_RATE = 100.0
"""Messages a second where latency is measured under a steady load."""
PASS = 1000
"""Messages of each of its passes."""
BODY = 20_000_000
CONNECTIONS = (1, 16)


class Bench:
    """All measurements. `scale` shortens the run. No contender gets the same message twice."""

    def __init__(
        self,
        corpus: Corpus,
        folder: Path,
        starts: dict[str, Start],
        *,
        scale: float,
        private: bool,
    ) -> None:
        self.corpus, self.folder, self.starts = corpus, folder, starts
        self.scale, self.private = scale, private
        self.table = Table()
        self.rounds = 3 if scale >= 1 else 2
        self._batches = count()

    def fresh(self, full: float) -> list[Sample]:
        """Messages that nobody has seen, as many as the scale makes of this number."""
        return self.corpus.batch(next(self._batches), max(60, int(full * self.scale)))

    @contextmanager
    def dns(self, *, delay: float = 0.0, ttl: int = 3600) -> Iterator[Dns]:
        with dns_server(self.corpus.zone, delay=delay, ttl=ttl, private=self.private) as dns:
            yield dns

    def each(self, dns: Dns, *, tcp: bool = False) -> Iterator[Contender]:
        """One contender after the other, fresh, once its start is over."""
        for start_one in self.starts.values():
            with start_one(self.where(tcp=tcp), dns.nameserver) as contender:
                settle(contender.cost)
                yield contender

    def all(self, stack: ExitStack, dns: Dns, *, tcp: bool = False) -> list[Contender]:
        """All of them at once, once their starts are over."""
        running = [
            stack.enter_context(start_one(self.where(tcp=tcp), dns.nameserver))
            for start_one in self.starts.values()
        ]
        for one in running:
            settle(one.cost)
        return running

    def drive(
        self,
        contender: Contender,
        samples: list[Sample],
        connections: int,
        *,
        as_postfix: bool = False,
        rate: float | None = None,
    ) -> tuple[Outcome, float]:
        """The outcome, and milliseconds of CPU for each message. With a `rate`: so many messages a
        second, instead of so many connections."""
        driver = Driver(contender.chain, samples, connections=connections, as_postfix=as_postfix)
        driver.prepare()
        before = contender.cost.cpu()
        count = len(samples)
        outcome = driver.run(count) if rate is None else driver.run_at(rate, count)
        check(contender, outcome)
        return outcome, (contender.cost.cpu() - before) / len(samples) * 1e3

    def start(self) -> None:
        """Processor time from exec until the jobs have run once."""
        for name in self.starts:
            if name in (NATIVE, PYMILTER):
                for cost in start.measure(5 if self.scale >= 1 else 3, name)[1]:
                    self.table.add(START, name, cost)

    def cold(self) -> None:
        """Processor time with nothing known yet, and how much is asked."""
        for _ in range(self.rounds):
            for connections in CONNECTIONS:
                samples = self.fresh(500)
                with self.dns() as dns:
                    for one in self.each(dns):
                        before = dns.answered()
                        _, cpu = self.drive(one, samples, connections)
                        asked = (dns.answered() - before) / len(samples)
                        self.table.add(f"{CPU}{COLD}{connections}", one.name, cpu)
                        self.table.add(QUERIES, one.name, asked)

    def warm(self) -> None:
        """Processor time and rate when the senders are known."""
        with self.dns() as dns, ExitStack() as stack:
            running, learning = self.all(stack, dns), self.fresh(1000)
            for one in running:
                self.drive(one, learning, max(CONNECTIONS))  # so that every worker learns
            for _ in range(2 * self.rounds):
                for connections in CONNECTIONS:
                    samples = self.fresh(500)
                    for one in running:
                        outcome, cpu = self.drive(one, samples, connections)
                        what = f"{WARM}{connections}"
                        self.table.add(CPU + what, one.name, cpu)
                        self.table.add(RATE + what, one.name, outcome.rate)

    def latency(self) -> None:
        """Milliseconds until the answer while DNS takes its time: the first pass is cold, the
        second knows as many senders as the first has shown it.

        Not scaled: what share of the messages meets a name that is new depends on their number. Two
        loads: a steady one, and connections that each send the next message when they have an
        answer, so that messages queue for the processors.
        """
        with self.dns(delay=DELAY) as dns:
            for load in (STEADY, BUSY):
                passes = {what: self.fresh(PASS / self.scale) for what in ("cold", "warm")}
                if load == STEADY:
                    self._count_new(passes)
                for one in self.each(dns):
                    for what, samples in passes.items():
                        rate = STEADY_RATE if load == STEADY else None
                        outcome, _ = self.drive(one, samples, 8, rate=rate)
                        self._quantiles(f"{LATENCY}{load}{what}, ", one, outcome)
                        if load == STEADY:
                            slow = sum(seconds >= DELAY for seconds in outcome.whole)
                            self.table.add(WAITED + what, one.name, 100 * slow / len(samples))

    def _count_new(self, passes: dict[str, list[Sample]]) -> None:
        """How many messages no memory can answer: for one that all processes share, and for two
        that have every other message."""
        for memories, shown in ((1, "one memory"), (2, "two")):
            for what, share in zip(passes, share_of_new(passes.values(), memories), strict=True):
                self.table.add(f"{NEW}{what}, {shown}", NO_MILTER, 100 * share)

    def tcp(self) -> None:
        """Milliseconds until the answer over TCP, one connection at a time, DNS warm, to a client
        that writes as Postfix does: what is answered late is waited for (Nagle's algorithm and the
        delayed acknowledgement)."""
        with self.dns() as dns, ExitStack() as stack:
            running, learning = self.all(stack, dns, tcp=True), self.fresh(1000)
            (signed,) = self.signed()
            for one in running:
                self.drive(one, learning, 4)
            for _ in range(self.rounds):
                samples = self.fresh(200)
                for one in running:
                    outcome, _ = self.drive(one, samples, 1, as_postfix=True)
                    self._quantiles(TCP, one, outcome)
                for contender in (*running, None):
                    rate = mta.rate(contender, signed, int(60 * max(1, self.scale)), sessions=1)
                    self.table.add(POSTFIX_TCP, name_of(contender), 1e3 / rate)

    def _quantiles(self, line: str, one: Contender, outcome: Outcome) -> None:
        for share in (50, 90, 99):
            self.table.add(f"{line}p{share}", one.name, outcome.quantile(share / 100) * 1e3)

    def memory(self) -> None:
        """Megabytes (PSS of all processes): idle, with 200 idle connections more, with 16 messages
        of 20 MB in flight more."""
        line = b"A line of an attachment, seventy-six octets of it, as base64 would have it.\r\n"
        large = [with_body(self.signed()[0], line * (BODY // len(line)))]
        some = self.fresh(100)
        with self.dns() as dns:
            for one in self.each(dns):
                self.drive(one, some, 4)
                idle = one.cost.memory()
                self.table.add(MEMORY, one.name, idle)
                self.table.add(IDLE, one.name, idle_connections(one) - idle)
                base = one.cost.memory()
                driver = Driver(one.chain, large, connections=16)
                driver.prepare()
                with highest(one) as peak:
                    outcome = driver.run(16)
                self.table.add(LARGE, one.name, max(peak) - base)
                self.table.add(LARGE_SECONDS, one.name, outcome.seconds)

    def postfix(self) -> None:
        """Messages a second through Postfix: copies of one, as its own smtp-source sends them."""
        (sample,) = self.signed()
        messages = max(60, int(600 * self.scale))
        with self.dns() as dns, ExitStack() as stack:
            running = self.all(stack, dns)
            for _ in range(self.rounds):
                for one in (*running, None):
                    self.table.add(POSTFIX, name_of(one), mta.rate(one, sample, messages))

    def where(self, *, tcp: bool = False) -> Where:
        """A folder that the accounts of all programs may enter."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        folder.chmod(0o755)
        return Where(folder, tcp=tcp)

    def signed(self) -> list[Sample]:
        """A message with a signature."""
        return [one for one in self.corpus.batch(0, 20) if one.kind == "direct"][:1]


NO_MILTER = "no milter"


def name_of(contender: Contender | None) -> str:
    return contender.name if contender else NO_MILTER


def with_body(sample: Sample, body: bytes) -> Sample:
    """The message with another body."""
    return Sample(
        **{name: getattr(sample, name) for name in Sample.__struct_fields__} | {"body": body}
    )


def check(contender: Contender, outcome: Outcome) -> None:
    """A contender that judges wrongly, or not at all, is not compared."""
    if outcome.replies["lost"] or outcome.replies["t"]:
        raise SystemExit(f"{contender.name}: replies {dict(outcome.replies)}")
    wrong = {pair: number for pair, number in outcome.results.items() if pair[0] != pair[1]}
    if contender.name != FLOOR and wrong:
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
