"""Drives a milter as an MTA would, quick enough not to be the limit: whole messages from packets
that were made before.

    python -m bench.load inet:8893@127.0.0.1 .bench --connections 16 --pid 4711

Every connection carries one message unless `reuse`; steps that the milter wants no reply to leave
in one write, as the protocol allows. `as_postfix` writes as Postfix does instead: Nagle's algorithm
is on, and the envelope, the message and its end leave in a write each. Measured: seconds from the
connection's start (and from the last write) to the final reply, and the CPU time of processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from bench.corpus import Sample, load_or_make
from bench.script import OFFER, Script, Segment, packet, script_of

Address = tuple[str, int] | str
TICK = os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED = 2
"""With a process id: its clock of processor time in nanoseconds (clock_getcpuclockid(3))."""
CHANGES = b"hmiqbe+-2"
FINAL = b"cartdys4f"


@dataclass(slots=True)
class Outcome:
    """What a run measured. `replies` counts final replies: c, a, r, t, d, y (with a text), lost."""

    seconds: float = 0.0
    whole: list[float] = field(default_factory=list)
    final: list[float] = field(default_factory=list)
    replies: Counter[str] = field(default_factory=Counter)
    results: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(expected, found) dmarc= results; found is "" where the milter added none."""

    @property
    def rate(self) -> float:
        """Messages per second."""
        return len(self.whole) / self.seconds if self.seconds else 0.0

    def quantile(self, share: float, times: Sequence[float] | None = None) -> float:
        """Seconds within which this share of the messages was answered."""
        ordered = sorted(self.whole if times is None else times)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Connection:
    """One connection at work: what it has still to send, what it has received."""

    def __init__(self, address: Address, *, nagle: bool = False) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.connect(address)
        if family == socket.AF_INET and not nagle:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.handle = self.socket.fileno()
        self.steps = -1
        self.segments: list[Segment] = []
        self.writes: list[bytes] = []
        self.unsent = memoryview(b"")
        self.received = bytearray()
        self.began = self.sent = 0.0
        self.result = b""
        self.number = 0
        self.stage = 0
        self.inserted: tuple[bytes, bytes] = (b"", b"")
        """The Authentication-Results field that the milter added."""

    def push(self) -> bool:
        """Send what the socket takes; whether something is left."""
        while self.unsent or self.writes:
            if not self.unsent:
                self.unsent = memoryview(self.writes.pop(0))
            try:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
            except BlockingIOError:
                return True
        return False

    def take(self) -> bytes | None:
        """The next final reply, None when it is not there yet. Changes are only looked at for
        dmarc=."""
        while len(self.received) >= 4:
            size = struct.unpack_from(">I", self.received)[0]
            if len(self.received) < 4 + size:
                return None
            reply = bytes(self.received[4 : 4 + size])
            del self.received[: 4 + size]
            if reply[:1] in b"hi" and b"Authentication-Results" in reply[:32]:
                name, value, _ = reply[5 if reply[:1] == b"i" else 1 :].split(b"\0")
                self.inserted = name, value
                self.result = (
                    reply.partition(b"dmarc=")[2].split()[0].rstrip(b";\0")
                    if b"dmarc=" in reply
                    else b""
                )
            elif reply[0] in FINAL or reply[:1] == b"O":
                return reply
        return None


class Driver:
    """Runs samples against one milter, or against several, one after the other, as an MTA does with
    a chain of them."""

    def __init__(
        self,
        chain: Sequence[Address],
        samples: Sequence[Sample],
        *,
        connections: int = 1,
        reuse: bool = False,
        as_postfix: bool = False,
    ) -> None:
        self.chain, self.samples = tuple(chain), samples
        self.connections, self.reuse, self.as_postfix = connections, reuse, as_postfix
        self.outcome = Outcome()
        self._made: dict[int, list[Script]] = {}
        self._poll = select.epoll()
        self._open: dict[int, Connection] = {}

    def prepare(self) -> None:
        """Make every packet, after asking the milter what it wants. Not part of what is
        measured."""
        for address in self.chain:
            connection = Connection(address)
            connection.socket.setblocking(True)
            connection.socket.sendall(OFFER)
            while (reply := connection.take()) is None:
                connection.received += connection.socket.recv(4096)
            connection.socket.close()
            self._scripts(struct.unpack_from(">I", reply, 9)[0])

    def run(self, messages: int) -> Outcome:
        """Send so many messages, the samples in turn."""
        self.prepare()
        self.outcome = Outcome()
        numbers = iter(range(messages))
        began = time.perf_counter()
        for number in islice(numbers, self.connections):
            self._begin(number)
        while self._open:
            for handle, event in self._poll.poll(60):
                connection = self._open[handle]
                if self._advance(connection, event):
                    self._next(connection, next(numbers, None))
        self.outcome.seconds = time.perf_counter() - began
        return self.outcome

    def run_at(self, rate: float, messages: int) -> Outcome:
        """Begin so many messages, evenly `rate` a second, however long the answers take: what a
        host sees whose mail comes from many who do not wait for each other."""
        self.prepare()
        self.outcome = Outcome()
        began, number, wait = time.perf_counter(), 0, 0.0
        while self._open or number < messages:
            for handle, event in self._poll.poll(wait):
                connection = self._open[handle]
                if self._advance(connection, event):
                    self._next(connection, None)
            left = began + number / rate - time.perf_counter()
            if number < messages and left <= 0:
                self._begin(number)
                number, left = number + 1, 0.0
            wait = max(0.0, left) if number < messages else 60.0
        self.outcome.seconds = time.perf_counter() - began
        return self.outcome

    def _scripts(self, steps: int) -> list[Script]:
        if steps not in self._made:
            self._made[steps] = [
                script_of(sample, number, steps, as_postfix=self.as_postfix)
                for number, sample in enumerate(self.samples)
            ]
        return self._made[steps]

    def _begin(self, number: int, before: Connection | None = None) -> None:
        began = before.began if before else time.perf_counter()
        stage = before.stage + 1 if before else 0
        connection = Connection(self.chain[stage], nagle=self.as_postfix)
        connection.number, connection.began = number, began
        if before:
            connection.stage, connection.inserted = stage, before.inserted
        connection.unsent = memoryview(OFFER)
        self._open[connection.handle] = connection
        self._poll.register(connection.handle, select.EPOLLIN)
        connection.push()

    def _next(self, connection: Connection, number: int | None) -> None:
        if self.reuse and number is not None and connection.steps >= 0:
            connection.number, connection.began = number, time.perf_counter()
            connection.segments = list(
                self._scripts(connection.steps)[number % len(self.samples)].segments
            )
            first, *others = connection.segments[0]
            connection.segments[0] = (packet(b"K") + first, *others)
            self._send(connection)
            return
        self._close(connection)
        if number is not None:
            self._begin(number)

    def _close(self, connection: Connection) -> None:
        del self._open[connection.handle]
        connection.socket.setblocking(True)
        with contextlib.suppress(OSError):
            connection.socket.sendall(packet(b"Q"))
        connection.socket.close()

    def _send(self, connection: Connection) -> None:
        connection.writes = list(connection.segments.pop(0))
        connection.sent = time.perf_counter()
        connection.result = b""
        if connection.push():
            self._poll.modify(connection.handle, select.EPOLLIN | select.EPOLLOUT)

    def _advance(self, connection: Connection, event: int) -> bool:
        """Go on with one connection; whether its message is done."""
        if event & select.EPOLLOUT and not connection.push():
            self._poll.modify(connection.handle, select.EPOLLIN)
        try:
            chunk = connection.socket.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            connection.steps = -1
            self.outcome.replies["lost"] += 1
            return True
        connection.received += chunk
        reply = connection.take()
        if reply is None:
            return False
        if reply[:1] == b"O":
            connection.steps = struct.unpack_from(">I", reply, 9)[0]
            script = self._scripts(connection.steps)[connection.number % len(self.samples)]
            connection.segments = script.with_field(*connection.inserted)
            self._send(connection)
            return False
        if connection.segments and reply[:1] in b"cs":
            if reply[:1] == b"s":
                del connection.segments[:-1]
            self._send(connection)
            return False
        if reply[:1] in b"ca" and connection.stage + 1 < len(self.chain):
            self._close(connection)
            self._begin(connection.number, connection)
            return False
        self._count(connection, reply)
        return True

    def _count(self, connection: Connection, reply: bytes) -> None:
        now = time.perf_counter()
        self.outcome.whole.append(now - connection.began)
        self.outcome.final.append(now - connection.sent)
        self.outcome.replies[reply[:1].decode("latin-1")] += 1
        expected = self.samples[connection.number % len(self.samples)].expected
        found = connection.result.decode("latin-1") or ("fail" if reply[:1] in b"yr" else "")
        self.outcome.results[expected, found] += 1


class Cost:
    """CPU seconds and memory of processes and everything below them."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.pids = tuple(pids)

    def family(self) -> list[int]:
        """The processes and their descendants that live now."""
        found, todo = [], list(self.pids)
        while todo:
            pid = todo.pop()
            found.append(pid)
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # a thread that ended meanwhile
                    todo += [int(each) for each in path.read_text().split()]
        return found

    def cpu(self) -> float:
        """User and system seconds so far of those that live, threads that ended included."""
        total = 0.0
        for pid in self.family():
            with contextlib.suppress(OSError):  # ended meanwhile
                total += time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
        return total

    def whole(self) -> float:
        """With the children that have ended and were waited for, in steps of a hundredth."""
        total = 0
        for pid in self.family():
            with contextlib.suppress(OSError):
                values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, values[11:15]))
        return total / TICK

    def memory(self) -> float:
        """Proportional set size together, in MB."""
        total = 0
        for pid in self.family():
            with contextlib.suppress(OSError):  # ended meanwhile
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024


def parse_address(text: str) -> Address:
    """\"inet:PORT@HOST" or "unix:PATH", as in main.cf."""
    kind, _, rest = text.partition(":")
    if kind in ("unix", "local"):
        return rest
    port, _, host = rest.partition("@")
    return host or "127.0.0.1", int(port)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("address", type=parse_address)
    parser.add_argument("corpus", type=Path, help="the folder of the corpus")
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--batch", type=int, default=0, help="which messages; no two share one")
    parser.add_argument("--as-postfix", action="store_true", help="write as Postfix does")
    parser.add_argument("--reuse", action="store_true", help="many messages on a connection")
    parser.add_argument("--pid", type=int, action="append", default=[])
    arguments = parser.parse_args()
    driver = Driver(
        [arguments.address],
        load_or_make(arguments.corpus).batch(arguments.batch, arguments.messages),
        connections=arguments.connections,
        reuse=arguments.reuse,
        as_postfix=arguments.as_postfix,
    )
    driver.prepare()
    cost = Cost(arguments.pid)
    before = cost.cpu()
    outcome = driver.run(arguments.messages)
    spent = cost.cpu() - before
    print(
        f"{outcome.rate:.0f} messages/s, CPU {spent / arguments.messages * 1e3:.2f} ms each,"
        f" replies {dict(outcome.replies)}"
    )
    print(
        "ms: "
        + ", ".join(
            f"p{share} {outcome.quantile(share / 100) * 1e3:.1f}" for share in (50, 90, 99, 100)
        )
    )
    for (expected, found), count in sorted(outcome.results.items()):
        print(f"expected {expected:<6} found {found or '-':<10}{count:>6}")


if __name__ == "__main__":
    main()
