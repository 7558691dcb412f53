"""The pages of a running daemon: numbers of all workers, health, and a server that nobody can
disturb."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fakes.daemon import Daemon, free_port, wait_for
from fakes.dns_server import DnsServer
from fakes.milter_client import Gone, MilterClient

ZONE = {
    "legit.example": {"TXT": ["v=spf1 ip4:198.51.100.10 -all"]},
    "_dmarc.legit.example": {"TXT": ["v=DMARC1; p=reject"]},
    "_dmarc.quiet.example": {"TXT": ["v=DMARC1; p=none"]},
}


class Watched:
    """A daemon with a metrics page."""

    def __init__(self, folder: Path, dns: DnsServer) -> None:
        self.port = free_port()
        self.tables = {
            "dns": {"nameservers": [dns.nameserver]},
            "metrics": {"listen": f"127.0.0.1:{self.port}"},
        }
        self.daemon = Daemon(folder, self.tables)

    def ask(self, request: bytes, seconds: float = 10.0) -> bytes:
        """Everything that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as sock:
            sock.sendall(request)
            return drained(sock)

    def get(self, path: str) -> tuple[int, str]:
        answer = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body.decode()

    def numbers(self) -> dict[tuple[str, ...], float]:
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            (each.name, *each.labels.values()): each.value
            for family in families
            for each in family.samples
        }

    def server_pid(self) -> int:
        """The process that serves the pages: the supervisor's only child of that name; -1 while
        there is none."""
        return next(
            (pid for pid, name in self.daemon.children().items() if name == "dmarc-metrics"), -1
        )


def drained(sock: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as server:
        yield server


@pytest.fixture
def watched(tmp_path: Path, dns: DnsServer) -> Iterator[Watched]:
    running = Watched(tmp_path, dns)
    with running.daemon:
        assert wait_for(lambda: reachable(running.port))
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, dns: DnsServer) -> Iterator[Watched]:
    """For tests that leave it as it was."""
    running = Watched(tmp_path_factory.mktemp("shared"), dns)
    with running.daemon:
        yield running


def reachable(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def session(daemon: Daemon, address: str) -> MilterClient:
    mta = daemon.client()
    mta.connect("client.example", address)
    mta.helo("client.example")
    return mta


def load(
    daemon: Daemon,
    stop: Callable[[], bool],
    tally: Counter[str],
    lock: threading.Lock,
    *,
    each: int = 3,
) -> None:
    """One MTA thread: connection after connection, a few messages on each; what it saw goes into
    the tally."""
    number = 0
    while not stop():
        number += 1
        author, address = (
            ("legit.example", "198.51.100.10"),
            ("legit.example", "192.0.2.66"),
            ("quiet.example", "192.0.2.66"),
        )[number % 3]
        try:
            mta = session(daemon, address)
            for _ in range(each):
                answer = mta.message(
                    [("From", f" <a@{author}>"), ("Message-ID", f" <{number}@x.example>")],
                    b"x\r\n",
                    mail_from=f"<a@{author}>",
                )
                with lock:
                    tally["messages"] += 1
                    tally[
                        (
                            "reject"
                            if answer.code == 550
                            else "accepted"
                            if answer.code < 400
                            else "tempfail"
                        )
                    ] += 1
            mta.close()
        except (Gone, OSError) as error:
            with lock:
                tally["refused"] += 1
                tally[repr(error)] += 1


def drive(daemon: Daemon, during: Callable[[Counter[str]], None], threads: int = 4) -> Counter[str]:
    """Load while `during` runs; the driver's own counts."""
    tally: Counter[str] = Counter()
    lock = threading.Lock()
    ended = threading.Event()
    running = [
        threading.Thread(target=load, args=(daemon, ended.is_set, tally, lock))
        for _ in range(threads)
    ]
    for each in running:
        each.start()
    try:
        during(tally)
    finally:
        ended.set()
        for each in running:
            each.join()
    return tally


def test_numbers_of_all_workers_are_the_drivers_own(watched: Watched) -> None:
    """Every message that was answered is counted once, whichever worker had it; a worker's death
    takes no number along."""

    def during(tally: Counter[str]) -> None:
        assert wait_for(lambda: tally["messages"] >= 60, 30)

    tally = drive(watched.daemon, during)
    assert not tally["refused"], tally
    found = watched.numbers()
    assert found[("dmarc_milter_messages_total", "reject")] == tally["reject"] > 0
    assert (
        sum(value for key, value in found.items() if key[0] == "dmarc_milter_messages_total")
        == tally["messages"]
    )
    assert (
        sum(value for key, value in found.items() if key[0] == "dmarc_milter_dmarc_results_total")
        == tally["messages"]
    )
    assert found[("dmarc_milter_stage_seconds_count", "evaluate")] == tally["messages"]
    assert wait_for(lambda: watched.numbers()[("dmarc_milter_dns_queries_total",)] > 0)
    os.kill(watched.daemon.workers()[0], signal.SIGKILL)
    assert wait_for(lambda: watched.numbers()[("dmarc_milter_worker_restarts_total", "died")] == 1)
    assert wait_for(lambda: watched.numbers()[("dmarc_milter_workers",)] == 2)
    assert watched.numbers()[("dmarc_milter_messages_total", "reject")] == tally["reject"]


def test_a_reload_under_load_drops_nothing_and_refuses_no_connection(watched: Watched) -> None:
    """Workers are replaced one by one; every connection is taken and every message answered; a bad
    file changes nothing."""
    before = set(watched.daemon.workers())

    def during(tally: Counter[str]) -> None:
        for generation in (2, 3):
            assert wait_for(lambda wanted=20 * generation: tally["messages"] >= wanted, 30)
            watched.daemon.signal(signal.SIGHUP)
            assert wait_for(
                lambda number=generation: any(
                    f"generation={number} " in line + " " for line in watched.daemon.events("ready")
                ),
                30,
            )
        text = watched.daemon.config.read_text()
        watched.daemon.config.write_text("[milter]\nsocet = 1\n")
        watched.daemon.signal(signal.SIGHUP)
        assert wait_for(lambda: watched.daemon.events("reload_failed"), 30)
        watched.daemon.config.write_text(text)
        seen = tally["messages"]
        assert wait_for(lambda: tally["messages"] >= seen + 30, 30)

    tally = drive(watched.daemon, during)
    assert not tally["refused"], tally
    assert not tally["tempfail"], tally
    assert wait_for(lambda: not before & set(watched.daemon.workers()), 30)
    found = watched.numbers()
    assert (
        sum(value for key, value in found.items() if key[0] == "dmarc_milter_messages_total")
        == tally["messages"]
    )
    assert (
        found[("dmarc_milter_reloads_total", "applied")],
        found[("dmarc_milter_reloads_total", "refused")],
    ) == (2, 1)


@pytest.mark.slow
def test_health_and_readiness(watched: Watched) -> None:
    assert watched.get("/healthz") == (200, "ok\n")
    assert watched.get("/readyz") == (200, "ready\n")
    assert watched.daemon.process is not None
    watched.daemon.process.send_signal(signal.SIGSTOP)
    try:
        assert wait_for(lambda: watched.get("/healthz")[0] == 503, 15)
        assert watched.get("/readyz")[0] == 503
    finally:
        watched.daemon.process.send_signal(signal.SIGCONT)
    assert wait_for(lambda: watched.get("/healthz")[0] == 200)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /%2e%2e/etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET //metrics HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 100_000, 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431),
        (b"GET /metrics?name=%00 HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_ops_01_odd_requests_get_one_short_answer(
    shared: Watched, request_: bytes, status: int
) -> None:
    """Only GET of three paths; nothing is read beyond 8 KiB."""
    with socket.create_connection(("127.0.0.1", shared.port), timeout=20) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(request_)
        answer = drained(sock)
    if (
        answer or len(request_) < 8192
    ):  # what is sent beyond the limit may make the kernel drop the answer
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert shared.get("/healthz")[0] == 200


def test_head_has_no_body(shared: Watched) -> None:
    answer = shared.ask(b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.slow
def test_ops_01_slow_and_many_clients_disturb_nobody(watched: Watched) -> None:
    """Slowloris: connections that send nothing are ended after seconds; mail goes on; the page
    comes back."""
    idle = []
    for _ in range(200):
        with contextlib.suppress(OSError):
            idle.append(socket.create_connection(("127.0.0.1", watched.port), timeout=5))
    idle[0].sendall(b"GET /met")
    mta = session(watched.daemon, "192.0.2.66")
    started = time.monotonic()
    assert (
        mta.message([("From", " <a@legit.example>")], b"x\r\n", mail_from="<a@legit.example>").code
        == 550
    )
    assert time.monotonic() - started < 5

    def answers() -> bool:
        with contextlib.suppress(OSError, IndexError, ValueError):
            return watched.get("/healthz")[0] == 200
        return False

    assert wait_for(answers, 20)
    assert b"408" in drained(idle[0])[:20]
    for sock in idle:
        sock.close()


def test_the_pages_come_back_when_their_process_dies(watched: Watched) -> None:
    """It is only a helper: mail never notices, and the supervisor starts it again."""
    assert wait_for(lambda: watched.server_pid() > 1)
    pid = watched.server_pid()
    os.kill(pid, signal.SIGKILL)
    assert (
        session(watched.daemon, "192.0.2.66")
        .message([("From", " <a@quiet.example>")], b"x\r\n")
        .code
        == 250
    )
    assert wait_for(lambda: watched.server_pid() not in (-1, pid), 10)
    assert wait_for(lambda: watched.get("/healthz")[0] == 200)


def test_a_reload_moves_the_page(watched: Watched) -> None:
    port = free_port()
    watched.daemon.configure(watched.tables | {"metrics": {"listen": f"127.0.0.1:{port}"}})
    watched.daemon.signal(signal.SIGHUP)
    assert wait_for(lambda: reachable(port))
    assert wait_for(lambda: not reachable(watched.port))


def test_a_taken_port_is_said_at_the_start(tmp_path: Path, dns: DnsServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        daemon = Daemon(tmp_path, {"metrics": {"listen": f"127.0.0.1:{other.getsockname()[1]}"}})
        process = daemon.spawn()
        assert process.wait(20) == 1
        assert "cannot listen on inet:" in daemon.text()


def test_a_unix_socket_is_for_its_owner_alone(tmp_path: Path, dns: DnsServer) -> None:
    path = tmp_path / "metrics.sock"
    with Daemon(
        tmp_path, {"metrics": {"listen": f"unix:{path}"}, "dns": {"nameservers": [dns.nameserver]}}
    ):
        assert wait_for(path.exists)
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
            assert drained(sock).startswith(b"HTTP/1.1 200 ")
