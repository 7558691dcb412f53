"""FLT-06, FLT-15, FLT-16: a host that gives no threads, processes, descriptors or memory. What
cannot be served is answered 451, logged and counted; nothing hangs, nothing is lost without a
word."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes.daemon import Daemon, wait_for
from fakes.dns_server import DnsServer
from fakes.limited import MANY, LimitedDaemon, cannot_limit
from fakes.milter_client import Gone, MilterClient
from live.place import give_up

LIBRARIES = ["pymilter", "native"]
SCRIPTED = ("-m", "fakes.scripted_service")
REFUSED = 451


@pytest.fixture(scope="module")
def dns() -> Iterator[DnsServer]:
    with DnsServer({"author.example": {}}) as server:
        yield server


def tables(
    library: str, workers: int = 1, **more: dict[str, object]
) -> dict[str, dict[str, object]]:
    return {"milter": {"workers": workers, "library": library}, **more}


def code(daemon: Daemon) -> int:
    """What a client of a new connection gets, whose MTA answers 451 where the milter hangs up
    (default_action=tempfail)."""
    try:
        with MilterClient(daemon.address, timeout=60) as mta:
            mta.negotiate()
            answer = mta.connect("client.example", "192.0.2.1")
            if answer is not None and answer.code == REFUSED:
                return REFUSED
            mta.helo("client.example")
            return mta.message([("From", " a@author.example")], mail_from="<a@author.example>").code
    except Gone:
        return REFUSED


def in_message(daemon: Daemon) -> MilterClient:
    """One that has not come to its end of message."""
    mta = daemon.client()
    mta.connect("client.example", "192.0.2.1")
    mta.helo("client.example")
    mta.mail("<a@author.example>")
    mta.rcpt("<b@test.example>")
    mta.header("From", " a@author.example")
    mta.eoh()
    mta.body(b"x")
    return mta


def at_once(daemon: Daemon, number: int) -> list[int]:
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(lambda _: code(daemon), range(number)))


@pytest.mark.parametrize(("library", "threads"), [("native", 3), ("pymilter", 3), ("pymilter", 6)])
def test_a_worker_that_cannot_have_its_threads_is_never_ready(
    tmp_path: Path, library: str, threads: int
) -> None:
    """Log, spool and protocol have their threads before it says so; the start fails and names the
    remedy."""
    give_up(cannot_limit())
    daemon = LimitedDaemon(tmp_path, tables(library), threads=threads)
    try:
        assert daemon.spawn().wait(60) == 1
    finally:
        daemon.stop()
    assert "TasksMax=" in daemon.lines()[-1]
    assert not daemon.events("ready")


@pytest.mark.parametrize("library", LIBRARIES)
def test_without_more_threads_every_client_gets_an_answer_and_every_message_is_recorded(
    tmp_path: Path, dns: DnsServer, library: str
) -> None:
    """The limit is reached after the start. libmilter forgets a connection that it can have no
    thread for: it is answered 451, and counted. Afterwards all are served again."""
    give_up(cannot_limit())
    with LimitedDaemon(tmp_path, tables(library, dns={"nameservers": [dns.nameserver]})) as daemon:
        daemon.allow_threads(0)
        codes = at_once(daemon, 12)
        assert set(codes) <= ({250} if library == "native" else {250, REFUSED})
        assert wait_for(lambda: daemon.spool_rows() >= codes.count(250))
        if REFUSED in codes:
            assert wait_for(lambda: daemon.events("connections_refused"))
        daemon.allow_threads(MANY)
        assert wait_for(lambda: set(at_once(daemon, 4)) == {250}, 60)


def test_a_worker_whose_libmilter_forgot_connections_is_replaced(tmp_path: Path) -> None:
    """It would hold their descriptors for ever; once there are threads again another takes its
    place. What is under way in it ends well."""
    give_up(cannot_limit())
    settings = tables("pymilter")
    settings["milter"]["drain"] = 15.0
    with LimitedDaemon(tmp_path, settings, command=SCRIPTED) as daemon:
        (before,) = daemon.workers()
        known = in_message(daemon)
        daemon.allow_threads(0)
        assert wait_for(lambda: REFUSED in at_once(daemon, 12), 60)
        daemon.allow_threads(MANY)
        assert wait_for(lambda: set(daemon.workers()) - {before}, 60)
        assert known.eom().code == 250
        known.close()
        assert wait_for(lambda: before not in daemon.workers() and daemon.workers(), 90)
        assert wait_for(lambda: daemon.events("worker_died"))
        assert "connections that it does not serve" in daemon.events("worker_died")[0]
        assert wait_for(lambda: code(daemon) == 250)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_dead_worker_is_replaced_as_soon_as_there_are_processes_again(
    tmp_path: Path, library: str
) -> None:
    """Meanwhile the other one serves, and the log has a line and not thousands."""
    give_up(cannot_limit())
    with LimitedDaemon(tmp_path, tables(library, 2), command=SCRIPTED) as daemon:
        first, other = daemon.workers()
        daemon.allow_threads(0)
        os.kill(first, signal.SIGKILL)
        assert wait_for(lambda: daemon.events("no_process"))
        assert wait_for(lambda: code(daemon) == 250)
        time.sleep(2.5)
        assert len(daemon.events("no_process")) == 1
        daemon.allow_threads(MANY)
        assert wait_for(lambda: len(daemon.workers()) == 2, 60)
        assert other in daemon.workers()
        assert wait_for(lambda: len(daemon.events("ready")) == 2)


@pytest.mark.parametrize("library", LIBRARIES)
def test_without_descriptors_a_newcomer_hears_451(tmp_path: Path, library: str) -> None:
    """A few are kept back for that; afterwards all is as before. libmilter would try to accept for
    ever."""
    with Daemon(tmp_path, tables(library), command=SCRIPTED) as daemon:
        (worker,) = daemon.workers()
        known, limits = in_message(daemon), resource.prlimit(worker, resource.RLIMIT_NOFILE)
        used = 1 + max(map(int, os.listdir(f"/proc/{worker}/fd")))
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (used, limits[1]))
        assert [code(daemon) for _ in range(3)] == [REFUSED] * 3
        assert wait_for(lambda: daemon.events("connections_refused"))
        assert known.eom().code == 250
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        assert wait_for(lambda: code(daemon) == 250)
        assert daemon.workers() == [worker]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_worker_that_may_have_fewer_descriptors_than_are_open_is_replaced(
    tmp_path: Path, library: str
) -> None:
    """It could take no connection and would not see those that wait."""
    with Daemon(tmp_path, tables(library), command=SCRIPTED) as daemon:
        (worker,) = daemon.workers()
        known, limits = in_message(daemon), resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (8, limits[1]))
        assert wait_for(lambda: set(daemon.workers()) - {worker}, 60)
        assert wait_for(lambda: len(daemon.events("ready")) == 2, 60)
        assert code(daemon) == 250
        assert known.eom().code == 250
        known.close()
        assert wait_for(lambda: worker not in daemon.workers(), 60)
        assert wait_for(lambda: "the limit of descriptors was lowered to 8" in daemon.text())
