"""The supervisor's books about its processes: who is killed for what, and what happens where none
can be had."""

from __future__ import annotations

import errno
import os
import socket
from typing import NoReturn

import pytest

from dmarc_milter.config import Config
from dmarc_milter.config.schema import Metrics
from dmarc_milter.daemon.metrics_server import RESTART_PAUSE, MetricsServer
from dmarc_milter.daemon.workers import STARTING, NoProcess, Worker, Workers
from dmarc_milter.process.child import Child
from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.telemetry.log import Log


def refused(*_: object) -> NoReturn:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def workers(*members: Worker) -> Workers:
    found = Workers(refused, SharedMemory(2), lambda: None)
    found._members.update({each.pid: each for each in members})
    return found


@pytest.mark.parametrize(
    ("ready", "seconds", "why"),
    [
        (True, 1.0, ""),
        (True, 3.0, "no sign of life"),
        (False, STARTING - 1, ""),
        (False, STARTING + 1, "not ready"),
    ],
)
def test_a_worker_has_its_own_time_to_start(
    monkeypatch: pytest.MonkeyPatch, ready: bool, seconds: float, why: str
) -> None:
    """FLT-04: on a slow machine building the handler takes longer than a short deadline; until it
    is done nothing beats."""
    killed: list[str] = []
    monkeypatch.setattr(Worker, "kill", lambda _, why: killed.append(why))
    control, far = socket.socketpair()
    control.setblocking(False)
    with control, far:
        slot = SharedMemory(1).slot(0)
        slot.beat()
        began = slot.heartbeat
        workers(Worker(Child(1), 0, slot, control, 1, began, ready=ready)).check_health(
            began + seconds, deadline=1.0
        )
    assert [each.startswith(why) for each in killed] == [True] * bool(why)


@pytest.mark.parametrize("name", ["socket.socketpair", "os.fork"])
def test_without_descriptors_or_processes_no_worker_starts_and_the_supervisor_goes_on(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """FLT-06: the next attempt is a second later."""
    monkeypatch.setattr(name, refused)
    with socket.socket() as sock, pytest.raises(NoProcess, match=os.strerror(errno.EMFILE)):
        workers().start(Config(), sock, 1)


def test_without_processes_the_metrics_are_tried_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """FLT-06: mail is served meanwhile. Each try is a line, so that they become rarer."""
    watch, log = MetricsServer(SharedMemory(1)), Log()
    watch.prepare(Config(metrics=Metrics(listen="127.0.0.1:0")))(log)
    tries: list[None] = []

    def fork() -> NoReturn:
        tries.append(None)
        refused()

    monkeypatch.setattr(os, "fork", fork)
    try:
        for now, tried in ((10.0, 1), (10.0 + RESTART_PAUSE / 2, 1), (10.0 + RESTART_PAUSE, 2)):
            watch.tend(now, log)
            assert len(tries) == tried
        watch.tend(10.0 + 2 * RESTART_PAUSE, log)
        assert len(tries) == 2
        watch.tend(10.0 + 3 * RESTART_PAUSE, log)
        assert len(tries) == 3
        for seconds in range(3600):
            watch.tend(20.0 + seconds, log)
    finally:
        watch.stop()
    assert 50 < len(tries) < 80
    assert capfd.readouterr().err.count("event=no_process") == len(tries)
