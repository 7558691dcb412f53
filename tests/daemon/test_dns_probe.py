"""A DNS that cannot be used is said at the start and after a reload, shown by /readyz, and asked
again without a load."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import convert

from dmarc_milter.config import Config
from dmarc_milter.daemon.dns_probe import (
    FAILING_EVERY,
    FIRST_AFTER,
    WORKING_EVERY,
    DnsProbe,
    servers,
)
from dmarc_milter.dns.probe import NOBODY, TLD, Health, probe
from dmarc_milter.process.loop import Loop
from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.telemetry.counters import INDEX, Meter
from dmarc_milter.telemetry.log import Log
from fakes.daemon import Daemon, free_port, wait_for
from fakes.dns_server import DnsServer


class Lines(Log):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, dict[str, Any]]] = []

    def write(self, level: str, event: str, fields: Any) -> None:
        self.seen.append((level, event, dict(fields)))


class Dns:
    """Stands for the asking processes: `health` is what the next answer says."""

    def __init__(self) -> None:
        self.health: Health | None = Health("timed out")
        self.asked = 0
        self.stopped = 0

    def __call__(self, _config: Config) -> Dns:
        self.asked += 1
        return self

    def poll(self, now: float) -> Health | None:
        return self.health

    def stop(self) -> None:
        self.stopped += 1

    def disown(self) -> None:
        pass


@pytest.fixture
def dns() -> Dns:
    return Dns()


def tended(probe: DnsProbe, log: Lines, start: float, seconds: float) -> None:
    """As the supervisor does it."""
    for number in range(int(seconds * 5)):
        probe.tend(start + number / 5, log)


def test_no_answer_is_said_once_and_asked_once_a_minute(dns: Dns) -> None:
    shared_memory, log = SharedMemory(2), Lines()
    probe = DnsProbe(dns, shared_memory)
    probe.configure(Config())
    tended(probe, log, 1000, FIRST_AFTER - 1)
    assert dns.asked == 0
    tended(probe, log, 1000 + FIRST_AFTER, 5 * FAILING_EVERY - 1)
    assert dns.asked == 5
    assert [(level, event) for level, event, _ in log.seen] == [("warning", "dns")]
    assert shared_memory.own.counters[INDEX["dns_down"]] == 1
    dns.health = Health()
    tended(probe, log, 1000 + FIRST_AFTER + 5 * FAILING_EVERY, 3 * FAILING_EVERY)
    assert dns.asked == 6, "a DNS that answers is left alone"
    assert [level for level, _, _ in log.seen] == ["warning", "info"]
    assert shared_memory.own.counters[INDEX["dns_down"]] == 0


def test_answers_to_mail_prove_nothing(dns: Dns) -> None:
    """A resolver that denies everything answers every look-up of a message; so the question is
    asked at every start."""
    shared_memory, log = SharedMemory(2), Lines()
    probe = DnsProbe(dns, shared_memory)
    probe.configure(Config())
    tended(probe, log, 1000, 1)
    Meter(shared_memory.slot(0)).count("dns_queries", 4)
    tended(probe, log, 1001, FIRST_AFTER)
    assert dns.asked == 1


def test_where_all_is_well_it_is_asked_once_an_hour(dns: Dns) -> None:
    """A resolver may begin to lie, and no look-up fails by that."""
    dns.health = Health()
    probe = DnsProbe(dns, SharedMemory(2))
    probe.configure(Config())
    tended(probe, Lines(), 1000, FIRST_AFTER + WORKING_EVERY - FAILING_EVERY)
    assert dns.asked == 1
    tended(probe, Lines(), 1000 + FIRST_AFTER + WORKING_EVERY - FAILING_EVERY, 3 * FAILING_EVERY)
    assert dns.asked == 2


def test_what_a_resolver_makes_up_is_said_once_and_is_no_outage(dns: Dns) -> None:
    """Mail is judged, np and void look-ups apart."""
    shared_memory, log = SharedMemory(2), Lines()
    dns.health = Health(doubt="192.0.2.1 answers with 198.51.100.1 for names that do not exist")
    probe = DnsProbe(dns, shared_memory)
    probe.configure(Config())
    tended(probe, log, 1000, FIRST_AFTER + 1)
    tended(probe, log, 1000 + WORKING_EVERY, WORKING_EVERY)
    assert dns.asked > 1
    (line,) = log.seen
    assert line[:2] == ("warning", "dns")
    assert "void look-ups" in line[2]["text"]
    assert shared_memory.own.counters[INDEX["dns_down"]] == 0


def test_failing_look_ups_of_workers_are_a_reason_to_ask_again(dns: Dns) -> None:
    """A DNS that goes away at night is noticed by the mail that needs it."""
    shared_memory, log = SharedMemory(2), Lines()
    probe = DnsProbe(dns, shared_memory)
    dns.health = Health()
    probe.configure(Config())
    tended(probe, log, 1000, FIRST_AFTER + FAILING_EVERY)
    Meter(shared_memory.slot(1)).count("dns_failures", 30)
    dns.health = Health("timed out")
    tended(probe, log, 1000 + FIRST_AFTER + FAILING_EVERY, 1)
    assert dns.asked == 2
    assert [level for level, _, _ in log.seen] == ["warning"]


def test_a_slow_question_is_waited_for_and_given_up_by_a_reload(dns: Dns) -> None:
    log = Lines()
    probe = DnsProbe(dns, SharedMemory(2))
    dns.health = None
    first = Config()
    probe.configure(first)
    tended(probe, log, 1000, 3 * FAILING_EVERY)
    probe.configure(first)  # a worker was replaced: the same configuration serves
    assert (dns.asked, dns.stopped, log.seen) == (1, 0, [])
    probe.configure(Config())
    assert dns.stopped == 1
    tended(probe, log, 1000 + 3 * FAILING_EVERY, FIRST_AFTER + 1)
    assert dns.asked == 2


def test_a_reload_says_again_what_is_still_wrong(dns: Dns) -> None:
    log = Lines()
    probe = DnsProbe(dns, SharedMemory(2))
    for start, seconds in ((1000, FIRST_AFTER + 1), (2000, 1)):  # at once the second time
        probe.configure(Config())
        tended(probe, log, start, seconds)
    assert [level for level, _, _ in log.seen] == ["warning", "warning"]


def test_the_systems_resolvers_are_named() -> None:
    assert "resolv.conf" in servers(Config())


@pytest.fixture
def silent() -> Iterator[str]:
    """A name server's address where nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{sock.getsockname()[1]}"


def readiness(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
            return b"".join(iter(lambda: sock.recv(4096), b""))
    except OSError:
        return b""


def test_a_silent_dns_is_said_and_shown_until_it_answers(tmp_path: Path, silent: str) -> None:
    """The start is neither delayed nor refused; the line names servers, consequence and remedy; a
    reload looks again."""
    port = free_port()
    tables: dict[str, dict[str, Any]] = {
        "dns": {"nameservers": [silent], "timeout": 1.0},
        "metrics": {"listen": f"127.0.0.1:{port}"},
    }
    with Daemon(tmp_path, tables) as daemon, DnsServer({}) as dns:
        assert wait_for(lambda: daemon.events("dns"), FIRST_AFTER + 15)
        line = daemon.events("dns")[0]
        for words in ("level=warning", f"servers={silent}", "temperror", "[dns] nameservers"):
            assert words in line
        assert len(daemon.events("ready")) == 1
        assert wait_for(lambda: b" 503 " in readiness(port) and b"name server" in readiness(port))
        daemon.configure(tables | {"dns": {"nameservers": [dns.nameserver]}})
        daemon.signal(signal.SIGHUP)
        assert wait_for(lambda: any("again" in each for each in daemon.events("dns")))
        assert wait_for(lambda: b" 200 " in readiness(port))
        assert dns.count(TLD) == 1
        assert "dmarc-dns" not in daemon.children().values()


HIJACK = {f"*.{TLD}": {"A": ["198.51.100.1"]}}
CATCH_ALL = {f"*.{TLD}": {"TXT": ["x"]}}


def config(*nameservers: str) -> Config:
    return convert({"dns": {"nameservers": list(nameservers), "timeout": 0.5}}, Config)


@pytest.mark.parametrize(
    ("behaviour", "zone", "problem", "doubt"),
    [
        ("", {}, "", ""),
        ("nxdomain", {}, "denies", ""),
        ("nodata", {}, "denies", ""),
        ("", {TLD: {"A": ["198.51.100.1"], "NS": []}}, "denies", ""),
        ("servfail", {}, "response code 2", ""),
        ("refused", {}, "response code 5", ""),
        ("silent", {}, "timed out", ""),
        ("no_edns_formerr", {}, "", ""),
        ("", HIJACK, "", "answers with 198.51.100.1"),
        ("", CATCH_ALL, "", "names exist which do not"),
    ],
    ids=[
        "good",
        "NXDOMAIN for all",
        "nothing for all",
        "address for all",
        "SERVFAIL",
        "REFUSED",
        "silent",
        "no EDNS",
        "hijack",
        "NODATA",
    ],
)
def test_what_a_name_server_is_worth(
    behaviour: str, zone: dict[str, Any], problem: str, doubt: str
) -> None:
    """It must know the name servers of a top-level domain, and say NXDOMAIN of a name that nobody
    has."""
    with DnsServer(zone) as dns:
        dns.behaviour = behaviour
        found = probe(config(dns.nameserver), Loop())
    assert (problem in found.problem, bool(problem)) == (True, bool(found.problem))
    assert (doubt in found.doubt, bool(doubt)) == (True, bool(found.doubt))


def test_every_name_server_is_asked_by_itself(silent: str) -> None:
    """One that denies everything is used whenever the others are silent; one that is silent is not
    used."""
    with DnsServer() as good, DnsServer() as denying:
        denying.behaviour = "nxdomain"
        assert probe(config(silent, good.nameserver), Loop()) == Health()
        assert (
            denying.nameserver in probe(config(good.nameserver, denying.nameserver), Loop()).problem
        )
        assert denying.nameserver in probe(config(silent, denying.nameserver), Loop()).problem
    assert probe(config(silent, silent), Loop()).problem


def test_the_name_that_nobody_has_is_another_each_time() -> None:
    """What was remembered of it would prove nothing."""
    with DnsServer() as dns:
        for _ in range(2):
            probe(config(dns.nameserver), Loop())
        asked = {name for name, _ in dns.queries if name != TLD}
    assert len(asked) == 2
    assert all(name.startswith(NOBODY[:12]) for name in asked)


def test_a_resolver_that_denies_everything_is_not_ready(tmp_path: Path) -> None:
    """Every look-up is answered, and mail flows; the log and /readyz say that it is not judged."""
    port = free_port()
    with DnsServer() as dns:
        dns.behaviour = "nxdomain"
        tables: dict[str, dict[str, Any]] = {
            "dns": {"nameservers": [dns.nameserver]},
            "metrics": {"listen": f"127.0.0.1:{port}"},
        }
        with Daemon(tmp_path, tables) as daemon:
            assert wait_for(lambda: daemon.events("dns"), FIRST_AFTER + 15)
            for words in ("level=warning", "denies that the top-level domain"):
                assert words in daemon.events("dns")[0]
            assert wait_for(lambda: b" 503 " in readiness(port))
