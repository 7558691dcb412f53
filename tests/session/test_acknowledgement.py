"""No 40 ms: an MTA that holds small packets back until earlier ones are acknowledged (Nagle, as
Postfix does) meets no delayed acknowledgement, by either library."""

from __future__ import annotations

import importlib.util
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.daemon import Daemon
from fakes.milter_client import MilterClient

LIBRARIES = ("native", "pymilter") if importlib.util.find_spec("Milter") else ("native",)
MOST = 0.02
"""Seconds of a message; 0.044 where one acknowledgement is put off."""


@pytest.fixture(params=LIBRARIES)
def daemon(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    tables = {"milter": {"workers": 1, "library": request.param}}
    with Daemon(tmp_path, tables, command=("-m", "fakes.scripted_service")) as running:
        yield running


def message(mta: MilterClient) -> float:
    """Seconds from MAIL to the answer, each packet written by itself. (But macros and ABORT, which
    Postfix writes with the packet that follows, and which are left out here.)"""
    begin = time.monotonic()
    fields = [("From", " a@b.example"), ("Subject", " x")]
    assert mta.message(fields, queue_id="").code == 250
    return time.monotonic() - begin


def test_a_message_over_tcp_waits_for_no_acknowledgement(daemon: Daemon) -> None:
    """The quickest of three rounds counts: the machine may be busy."""
    medians = []
    for _ in range(3):
        with daemon.client(negotiated=False) as mta:
            mta.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            mta.negotiate()
            mta.connect("client.example", "192.0.2.1")
            mta.helo("client.example")
            medians.append(statistics.median(message(mta) for _ in range(15)))
            mta.quit()
    assert min(medians) < MOST, medians
