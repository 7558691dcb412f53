"""A scriptable DNS server on the loopback: in a thread for tests, as a process for the demo and the
bench.

    with DnsServer({"example.org": {"TXT": ["v=spf1 -all"], "A": ["192.0.2.1"], "MX": [[10,
    "mx.example.org"]]}}) as dns:
        dns.nameserver                    # "127.0.0.1:40053"
        dns.put("slow.example", {"TXT": ["late"], "delay": 0.5})
        dns.queries                       # [("example.org", "TXT"), ...]

Behaviours (a spec's `behaviour`, or `dns.behaviour` for every name): silent, servfail, refused,
notimp, formerr, yxdomain, nxdomain, nodata, garbage, empty, header_only, wrong_id, wrong_question,
not_a_response, no_question, compression_loop, huge_count, short_rdata, spoofed_first (three wrong
packets, then the right one), truncated (TCP then answers), truncated_reset, truncated_dribble (one
byte a second), truncated_silent, truncated_garbage, truncated_formerr (over TCP where the query has
OPT), forged_formerr (with another identifier, then the right answer). A server that does not know
OPT, and what it does with it: no_edns_formerr, no_edns_notimp, no_edns_servfail, no_edns_badvers,
no_edns_silent, no_edns_ignored, no_edns_header (FORMERR in a header alone), no_edns_cut (the same,
counting as the query did), no_edns_opt (BADVERS without the question). As a process: `python -m
fakes.dns_server zone.json --port 5353 --delay 0.03`; SIGHUP reads the file again, and the TXT
record of `count.dns-server.invalid` tells how many queries were answered.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Self

from fakes.dns_server_zone import (
    BAD_VERSION,
    IGNORED,
    WITHOUT_EDNS,
    Answer,
    BadQuery,
    Question,
    Spec,
    Zone,
    pack_response,
    parse_query,
)

COUNTER = "count.dns-server.invalid"
CACHE_LIMIT = 50_000


class Query(NamedTuple):
    """One query as it came in."""

    name: str
    rdtype: str
    port: int
    id: int
    transport: str
    edns: bool = True


class DnsServer:
    """Serves a Zone on one random (or given) port, UDP and TCP, until `stop`; may be started again
    on the same port."""

    def __init__(
        self,
        zone: Mapping[str, Spec] | None = None,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        record: bool = True,
    ) -> None:
        self.zone = Zone(zone)
        self.address, self.port = address, port
        self.record = record
        self.log: list[Query] = []
        self.answered = 0
        self._behaviour = ""
        self._delay = 0.0
        self._cache: dict[bytes, tuple[bytes, str, str]] = {}
        self._due: list[tuple[float, int, bytes, tuple[str, int]]] = []
        self._serial = 0
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    @property
    def nameserver(self) -> str:
        """ "ADDRESS:PORT", as the configuration spells it."""
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )

    @property
    def queries(self) -> list[tuple[str, str]]:
        """(name, type) of every query so far, in order; names in lower case."""
        return [(query.name, query.rdtype) for query in self.log]

    @property
    def behaviour(self) -> str:
        """A behaviour for every name; empty: each name's own."""
        return self._behaviour

    @behaviour.setter
    def behaviour(self, word: str) -> None:
        self._behaviour = word
        self._cache = {}

    @property
    def delay(self) -> float:
        """Seconds before every answer."""
        return self._delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._delay = seconds
        self._cache = {}

    def put(self, name: str, spec: Spec) -> None:
        """Give a name (or `*.name`) its records and behaviour, replacing what it had."""
        self.zone.put(name, spec)
        self._cache = {}

    def remove(self, name: str) -> None:
        """Let a name no longer exist."""
        self.zone.remove(name)
        self._cache = {}

    def replace(self, names: Mapping[str, Spec]) -> None:
        """Serve another zone from now on."""
        self.zone = Zone(names)
        self._cache = {}

    def count(self, name: str | None = None, rdtype: str | None = None) -> int:
        """How many queries were recorded, for a name or type if given."""
        return sum(
            1 for query in self.log if name in (None, query.name) and rdtype in (None, query.rdtype)
        )

    def clear(self) -> None:
        """Forget the recorded queries."""
        self.log.clear()

    def start(self) -> Self:
        """Bind and serve in threads of its own."""
        self._stopping.clear()
        self._udp, self._tcp = self._bind()
        self.port = self._udp.getsockname()[1]
        self._wake_read, self._wake_write = os.pipe()
        self._threads = [
            threading.Thread(target=run, name=f"dns-server-{run.__name__}", daemon=True)
            for run in (self._serve_udp, self._serve_tcp)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Stop and close; queries then meet a closed port."""
        if self._stopping.is_set() or not self._threads:
            return
        self._stopping.set()
        os.write(self._wake_write, b"x")
        for thread in self._threads:
            thread.join()
        for handle in (self._wake_read, self._wake_write):
            os.close(handle)
        self._udp.close()
        self._tcp.close()
        self._threads.clear()
        self._due.clear()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _bind(self) -> tuple[socket.socket, socket.socket]:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        for attempt in range(20):
            udp = socket.socket(family, socket.SOCK_DGRAM)
            tcp = socket.socket(family, socket.SOCK_STREAM)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                udp.bind((self.address, self.port))
                tcp.bind((self.address, udp.getsockname()[1]))
            except OSError:
                udp.close()
                tcp.close()
                if self.port and attempt == 19:
                    raise
                continue
            tcp.listen(128)
            udp.setblocking(False)
            tcp.setblocking(False)
            return udp, tcp
        raise OSError("no port free for both UDP and TCP")

    # UDP

    def _serve_udp(self) -> None:
        poll = select.poll()
        poll.register(self._udp, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while not self._stopping.is_set():
            wait = None if not self._due else max(0.0, (self._due[0][0] - time.monotonic()) * 1000)
            poll.poll(wait)
            self._receive()
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, packet, client = heapq.heappop(self._due)
                self._send(packet, client)

    def _receive(self) -> None:
        for _ in range(256):
            try:
                packet, client = self._udp.recvfrom(4096)
            except (BlockingIOError, ConnectionError):
                return
            cached = self._cache.get(packet[2:])
            if cached is None:
                self._answer_udp(packet, client)
                continue
            self.answered += 1
            if self.record:
                self._note(packet, cached[1], cached[2], client[1])
            self._later(packet[:2] + cached[0], client, self._delay)

    def _answer_udp(self, packet: bytes, client: tuple[str, int]) -> None:
        try:
            question = parse_query(packet)
        except (BadQuery, IndexError, struct.error):
            return
        self.answered += 1
        if self.record:
            self._note(packet, question.name, question.rdtype, client[1])
        cache = (
            self._cache
        )  # a change of the zone puts another in its place, so nothing old gets into that one
        answer = self._find(question)
        for response in packets(packet, question, answer):
            if not answer.behaviour and not answer.delay and self._cacheable(question):
                if len(cache) >= CACHE_LIMIT:
                    cache.clear()
                cache[packet[2:]] = (response[2:], question.name, question.rdtype)
            self._later(response, client, answer.delay + self._delay)

    def _find(self, question: Question) -> Answer:
        if question.name == COUNTER:
            return Zone({COUNTER: {"TXT": [str(self.answered)], "ttl": 0}}).answer(question)
        if self._behaviour.startswith(WITHOUT_EDNS) and (
            not question.edns or self._behaviour == IGNORED
        ):
            found = self.zone.answer(question._replace(edns=False, size=512))
            return found._replace(opt=b"") if question.edns else found
        if self._behaviour:
            spec = {**(self.zone.find(question.name) or {}), "behaviour": self._behaviour}
            return Zone({question.name: spec}).answer(question)
        return self.zone.answer(question)

    def _cacheable(self, question: Question) -> bool:
        spec = self.zone.find(question.name) or {}
        return question.name != COUNTER and "times" not in spec and "CNAME" not in spec

    def _note(
        self, packet: bytes, name: str, rdtype: str, port: int, transport: str = "udp"
    ) -> None:
        self.log.append(
            Query(
                name,
                rdtype,
                port,
                int.from_bytes(packet[:2], "big"),
                transport,
                packet[10:12] != b"\0\0",
            )
        )

    def _later(self, response: bytes, client: tuple[str, int], delay: float) -> None:
        if delay <= 0:
            self._send(response, client)
            return
        self._serial += 1
        heapq.heappush(self._due, (time.monotonic() + delay, self._serial, response, client))

    def _send(self, response: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            self._udp.sendto(response, client)

    # TCP

    def _serve_tcp(self) -> None:
        poll = select.poll()
        poll.register(self._tcp, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while not self._stopping.is_set():
            poll.poll()
            try:
                connection, client = self._tcp.accept()
            except OSError:
                continue
            threading.Thread(
                target=self._answer_tcp, args=(connection, client), daemon=True
            ).start()

    def _answer_tcp(self, connection: socket.socket, client: tuple[str, int]) -> None:
        connection.setblocking(True)
        connection.settimeout(30)
        with connection, contextlib.suppress(OSError, BadQuery, IndexError, struct.error):
            while (head := read_exactly(connection, 2)) and (
                packet := read_exactly(connection, int.from_bytes(head, "big"))
            ):
                question = parse_query(packet)
                self.answered += 1
                if self.record:
                    self._note(packet, question.name, question.rdtype, client[1], "tcp")
                answer = self._find(question)
                self._stopping.wait(answer.delay + self._delay)
                if answer.behaviour == "truncated_formerr" and question.edns:
                    answer = Answer("", 1, (), b"", 0.0, b"")
                self._send_tcp(
                    connection,
                    answer.behaviour,
                    pack_response(packet, question, answer, limit=65535),
                )

    def _send_tcp(self, connection: socket.socket, behaviour: str, response: bytes) -> None:
        framed = len(response).to_bytes(2, "big") + response
        match behaviour:
            case "truncated_reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            case "truncated_silent" | "silent":
                self._stopping.wait(60)
            case "truncated_dribble":
                for byte in framed:
                    connection.sendall(bytes([byte]))
                    if self._stopping.wait(1):
                        return
            case "truncated_garbage":
                connection.sendall(b"\0\x20" + b"\xa5" * 32)
            case _:
                connection.sendall(framed)


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """`size` bytes, or b"" when the peer closes before."""
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            return b""
        data += chunk
    return data


def packets(packet: bytes, question: Question, answer: Answer) -> tuple[bytes, ...]:
    """The UDP packets that a behaviour sends; none when it is silent."""
    if answer.behaviour == "silent":
        return ()
    right = pack_response(packet, question, answer, limit=min(question.size, 4096))
    if not answer.behaviour:
        return (right,)
    echo, after = packet[:2], 12 + len(question.raw)
    one_record = echo + b"\x81\x80\0\1\0\1\0\0\0\0" + question.raw
    wrong_id = bytes([packet[0] ^ 0xFF]) + right[1:]
    wrong_question = right[:13] + bytes([right[13] ^ 1]) + right[14:]
    truncated = echo + b"\x83\x80\0\1\0\0\0\0\0\0" + question.raw
    odd: dict[str, tuple[bytes, ...]] = {
        "garbage": (echo + b"\xa5" * 40,),
        "empty": (b"",),
        "header_only": (right[:12],),
        "wrong_id": (wrong_id,),
        "wrong_question": (wrong_question,),
        "not_a_response": (right[:2] + bytes([right[2] & 0x7F]) + right[3:],),
        "no_question": (echo + b"\x81\x81\0\0\0\0\0\0\0\0",),
        "compression_loop": (
            one_record + struct.pack("!HHHIH", 0xC000 | after, 16, 1, 60, 4) + b"\3abc",
        ),
        "huge_count": (right[:6] + b"\xff\xff" + right[8:],),
        "short_rdata": (one_record + b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 3) + b"abc",),
        "header": (echo + b"\x81\x81" + bytes(8),),
        "cut": (echo + b"\x81\x81" + packet[4:12],),
        "opt": (echo + b"\x81\x80\0\0\0\0\0\0\0\1" + BAD_VERSION,),
        "forged_formerr": (
            wrong_id[:2] + b"\x81\x81" + bytes(8),
            wrong_id[:2] + b"\x81\x81" + packet[4:],
            right,
        ),
        "spoofed_first": (wrong_id, b"\xa5" * 5, wrong_question, right),
    }
    return odd.get(answer.behaviour, (truncated,))


def main() -> None:
    """Serve a zone file until SIGTERM or SIGINT; prints the nameserver's address once it
    answers."""
    parser = argparse.ArgumentParser(
        prog="python -m fakes.dns_server", description="A scriptable DNS server on the loopback."
    )
    parser.add_argument("zone", type=Path, help="JSON: name -> records and behaviour")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before every answer")
    parser.add_argument(
        "--ttl",
        type=int,
        default=300,
        help="seconds, where the zone says nothing; negative answers too",
    )
    parser.add_argument("--log", action="store_true", help="print every query to stderr at the end")
    arguments = parser.parse_args()
    server = DnsServer(
        json.loads(arguments.zone.read_text()),
        address=arguments.address,
        port=arguments.port,
        record=arguments.log,
    )
    server.delay = arguments.delay
    server.zone.ttl = server.zone.soa_ttl = arguments.ttl
    stop = threading.Event()

    def reload(_signal: int, _frame: FrameType | None) -> None:
        server.replace(json.loads(arguments.zone.read_text()))
        server.zone.ttl = server.zone.soa_ttl = arguments.ttl

    signal.signal(signal.SIGHUP, reload)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with server:
        print(server.nameserver, flush=True)
        stop.wait()
    for query in server.log:
        print(query.transport, query.name, query.rdtype, file=sys.stderr)


if __name__ == "__main__":
    main()
