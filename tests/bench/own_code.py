"""Why we have code of our own where a library exists: what each costs, in one run.

Run by `python -m bench.own_code` with `tests` and `milter` on the path. Prints microseconds for one
operation and the ratio; docs/performance.md has the last figures.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import dns.message
import dns.rrset
import greenlet

from dmarc_milter.dns.wire import encode_query, encode_question, is_answer_to, read_answer
from dmarc_milter.process.loop import Loop, Waker
from dmarc_milter.telemetry.log import Log, text_line

NAME = "_dmarc.example.net"
FIELDS = {"id": "4Q", "dmarc": "pass", "from": "example.net", "helo": "mx.example.net"}


def cost(work: Callable[[], object], times: int) -> float:
    """Microseconds of processor time of one call, the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        before = time.process_time()
        for _ in range(times):
            work()
        best = min(best, (time.process_time() - before) / times * 1e6)
    return best


def answered() -> bytes:
    """A policy record as a resolver sends it."""
    message = dns.message.make_response(dns.message.make_query(NAME, "TXT"))
    message.answer.append(
        dns.rrset.from_text(f"{NAME}.", 300, "IN", "TXT", '"v=DMARC1; p=reject; rua=mailto:a@b.c"')
    )
    return message.to_wire()


def codec() -> tuple[float, float]:
    packet, key = answered(), (NAME, "TXT")

    def ours() -> object:
        question = encode_question(key) or b""
        encode_query(packet[:2], question)
        assert is_answer_to(packet, packet[:2], question)
        return read_answer(packet, question, "TXT").records

    def library() -> object:
        query = dns.message.make_query(NAME, "TXT", use_edns=0, payload=1232)
        query.to_wire()
        message = dns.message.from_wire(packet)
        assert isinstance(message, dns.message.QueryMessage)
        return message.resolve_chaining().answer

    return cost(ours, 2000), cost(library, 500)


def task() -> tuple[float, float]:
    loop, library = Loop(), ThreadPoolExecutor(4)

    def ours() -> None:
        loop.spawn(int)
        loop.turn(0)

    return cost(ours, 2000), cost(lambda: library.submit(int).result(), 2000)


MANY = 3000


def event() -> tuple[float, float]:
    """A message's way through a loop: a packet is read, a greenlet begins, waits once, is woken by
    a second packet, and writes the answer. No MTA's and no evaluation's cost."""
    return min(_by_ours() for _ in range(5)), min(_by_asyncio() for _ in range(5))


def _by_ours() -> float:
    loop, (mta, milter) = Loop(), socket.socketpair()
    left = MANY
    task: Waker | None = None

    def message() -> None:
        nonlocal task
        task = loop.current
        mta.send(b"x")
        loop.park(5)
        milter.send(b"y")
        mta.recv(16)
        task = None
        begin()

    def read(_events: int) -> None:
        milter.recv(16)
        if task is None:
            loop.spawn(message)
        else:
            task.wake()

    def begin() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            mta.send(b"x")

    loop.watch(milter.fileno(), select.EPOLLIN, read)
    begin()
    before = time.thread_time()
    loop.run(lambda: left < 0)
    spent = (time.thread_time() - before) / MANY * 1e6
    loop.forget(milter.fileno())
    loop.close()
    mta.close()
    milter.close()
    return spent


def _by_asyncio() -> float:
    loop, (mta, milter) = asyncio.new_event_loop(), socket.socketpair()
    left = MANY
    hub = greenlet.getcurrent()
    task: greenlet.greenlet | None = None

    def message() -> None:
        nonlocal task
        task = greenlet.getcurrent()
        mta.send(b"x")
        timer = loop.call_later(5, hub.throw)
        hub.switch()
        timer.cancel()
        milter.send(b"y")
        mta.recv(16)
        task = None
        begin()

    def read() -> None:
        milter.recv(16)
        if task is None:
            loop.call_soon(greenlet.greenlet(message).switch)
        else:
            loop.call_soon(task.switch)

    def begin() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            loop.stop()
        else:
            mta.send(b"x")

    loop.add_reader(milter.fileno(), read)
    loop.call_soon(begin)
    before = time.thread_time()
    loop.run_forever()
    spent = (time.thread_time() - before) / MANY * 1e6
    loop.remove_reader(milter.fileno())
    loop.close()
    mta.close()
    milter.close()
    return spent


def line() -> tuple[float, float]:
    """In the thread that has the message; the library's handler formats and writes there."""
    sink = os.open(os.devnull, os.O_WRONLY)
    log = Log(sink)
    log.start()
    other = logging.Logger("bench")
    with os.fdopen(os.dup(sink), "w") as stream:
        other.addHandler(logging.StreamHandler(stream))

        def ours() -> None:
            before = time.thread_time()
            log.info("message", **FIELDS)
            spent.append(time.thread_time() - before)

        def library() -> None:
            before = time.thread_time()
            other.info("%s", text_line(FIELDS))
            spent.append(time.thread_time() - before)

        costs = []
        for work in (ours, library):
            spent: list[float] = []
            for _ in range(3000):
                work()
            costs.append(sorted(spent)[len(spent) // 2] * 1e6)
        log.stop()
    return costs[0], costs[1]


def main() -> None:
    rows = {
        "DNS question and answer, against dnspython": codec(),
        "a task of the loop, against a hand-over to a thread and back": task(),
        "a message's way through the loop, against asyncio's with the same greenlets": event(),
        "log line in the message's thread, against logging.StreamHandler": line(),
    }
    for what, (ours, library) in rows.items():
        print(f"{what}: {ours:.1f} us, {library:.1f} us, {library / ours:.1f} times")


if __name__ == "__main__":
    main()
