"""FLT-15: when a worker ends by itself: at once where it serves nobody, after a drain where it
still does."""

from __future__ import annotations

from typing import Any

import pytest

from dmarc_milter.daemon.worker import FAILED, SETTLE, Orders, ServesNoMore, WornOut

DRAIN = 30.0


class Place:
    """A worker's slot, server and line to the supervisor."""

    def __init__(self) -> None:
        self.now, self.sessions, self.drained = 100.0, 1, 0
        self.failure = self.worn_out = ""
        self.forgotten = 0
        self.said: list[bytes] = []
        place: Any = self
        self.orders = Orders(place, place, place, DRAIN, lambda: self.now)

    def sendall(self, octets: bytes) -> None:
        self.said.append(octets)

    def drain(self) -> None:
        self.drained += 1


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_worker_without_libmilter_ends_at_once(place: Place) -> None:
    assert not place.orders.are_obeyed()
    place.failure = "libmilter has ended"
    with pytest.raises(ServesNoMore):
        place.orders.are_obeyed()


def test_a_worker_that_is_worn_out_ends_what_is_under_way(place: Place) -> None:
    """It says so at once, takes no more, and ends with its last session."""
    place.worn_out = "libmilter holds 1 connections that it does not serve"
    for _ in range(int(DRAIN) - 1):
        assert not place.orders.are_obeyed()
        place.now += 1.0
    assert not place.orders.are_obeyed()
    assert (place.said, place.drained) == ([FAILED + place.worn_out.encode()], 1)
    place.sessions = place.forgotten = 1
    place.now += SETTLE / 2
    assert not place.orders.are_obeyed()
    place.now += SETTLE + 1.0
    with pytest.raises(WornOut):
        place.orders.are_obeyed()


def test_a_worker_that_is_worn_out_waits_no_longer_than_a_stop_would(place: Place) -> None:
    """A session that libmilter has forgotten never ends."""
    place.worn_out = "libmilter holds 1 connections that it does not serve"
    assert not place.orders.are_obeyed()
    place.now += DRAIN
    with pytest.raises(WornOut):
        place.orders.are_obeyed()
