"""FLT-15: connections that libmilter does not serve. Nobody is given up unless it is certain: the
same connection, unread for the whole time, and nobody at work for it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.process.silent_connections import Identity, MilterConnections
from dmarc_milter.session.unserved import HELD, NO_THREAD, NOT_READ, PATIENCE, SLOW, Unserved

NUMBER = 7
LONG = int(SLOW + PATIENCE)
"""Looks, one a second."""


@dataclass
class Kernel:
    """Descriptors: which connection each is, and what of it is unread."""

    there: dict[int, int] = field(default_factory=dict)
    octets: dict[int, int] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)

    def open(self, inode: int, octets: int = 1) -> None:
        self.there[NUMBER], self.octets[NUMBER] = inode, octets

    def identity(self, handle: int) -> Identity | None:
        return (0, self.there[handle]) if handle in self.there else None

    def unread(self, handle: int) -> int:
        return self.octets.get(handle, 0)

    def duplicate(self, handle: int, identity: Identity) -> int | None:
        return handle if self.identity(handle) == identity else None

    def hang_up(self, handle: int, identity: Identity | None = None) -> bool:
        if handle not in self.there or self.identity(handle) != identity:
            return False
        self.ended.append(self.there[handle])
        return True


class Refusals:
    """Told at once, and hung up on."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self.told: list[str] = []
        self.then: list[Callable[[], object]] = []

    def note(self, why: str) -> None:
        self.noted.append(why)

    def refuse(self, _: object, why: str, then: Callable[[], object]) -> None:
        self.told.append(why)
        self.then.append(then)


class Place:
    """Looks once a second."""

    def __init__(self, *, threads: bool, most: int = 1000) -> None:
        self.now, self.threads = 100.0, threads
        self.kernel, self.refusals = Kernel(), Refusals()
        self.busy: set[int] = set()
        self.known: dict[int, object] = {NUMBER: 0}
        kernel: Any = self.kernel
        refusals: Any = self.refusals
        self.unserved = Unserved(
            kernel,
            refusals,
            most,
            clock=lambda: self.now,
            thread_can_be_had=lambda: self.threads,
        )

    def look(self, times: int = 1, seconds: float = 1.0) -> None:
        for _ in range(times):
            self.now += seconds
            waiting = [handle for handle, unread in self.kernel.octets.items() if unread]
            self.unserved.tend(waiting, self.busy, self.known)

    @property
    def cut(self) -> list[int]:
        return self.kernel.ended


@pytest.fixture(params=[True, False], ids=["threads", "no threads"])
def place(request: pytest.FixtureRequest) -> Place:
    return Place(threads=request.param)


def test_what_nobody_reads_is_given_up(place: Place) -> None:
    place.kernel.open(1)
    place.look(LONG)
    assert place.cut == [1]
    assert place.refusals.noted == [NOT_READ if place.threads else NO_THREAD]


def test_a_stranger_is_told_so_before_it_is_hung_up_on(place: Place) -> None:
    place.kernel.open(1)
    place.known.clear()
    place.look(LONG)
    assert place.refusals.told == [NOT_READ if place.threads else NO_THREAD]
    assert place.cut == []
    place.refusals.then[0]()
    assert place.cut == [1]


def test_one_octet_unread_at_one_look_is_nothing(place: Place) -> None:
    """It was read at once after that."""
    place.kernel.open(1)
    place.look()
    place.kernel.octets[NUMBER] = 0
    place.look(LONG)
    assert (place.cut, place.refusals.noted, place.refusals.told) == ([], [], [])


def test_what_was_read_since_the_look_does_not_count(place: Place) -> None:
    """The kernel is asked again before anybody is given up."""
    place.kernel.open(1, 0)
    for _ in range(LONG):
        place.now += 1.0
        place.unserved.tend([NUMBER], set(), place.known)
    assert place.cut == []


def test_who_has_the_number_afterwards_begins_anew(place: Place) -> None:
    """The connection was closed, and another one got its number, in the middle of a message."""
    for inode in range(LONG):
        place.kernel.open(inode)
        place.look(2)
    assert place.cut == []


def test_time_in_which_the_process_stood_still_counts_for_nothing(place: Place) -> None:
    place.kernel.open(1)
    place.look()
    place.look(seconds=1000)
    assert place.cut == []


def test_a_connection_that_goes_on_is_not_forgotten(place: Place) -> None:
    """Something of it is unread at each look, but not the same; or it has come further."""
    for number in range(LONG):
        place.kernel.open(1, 1 + number % 2)
        place.look()
    for number in range(LONG):
        place.known[NUMBER] = number
        place.look()
    assert place.cut == []


def test_a_connection_that_a_thread_is_at_work_for_is_not_forgotten(place: Place) -> None:
    """Two minutes of DNS, say."""
    place.kernel.open(1)
    place.busy = {NUMBER}
    place.look(120)
    assert place.cut == []


def test_want_of_threads_at_one_look_is_not_enough() -> None:
    place = Place(threads=True)
    place.kernel.open(1)
    for _ in range(int(SLOW) // 3):
        place.threads = True
        place.look(2)
        place.threads = False
        place.look(1)
    assert place.cut == []


def given_up(*, most: int = 1000) -> Place:
    """One was hung up on for want of threads, which are there again."""
    place = Place(threads=False, most=most)
    place.kernel.open(1)
    place.look(int(PATIENCE) + 1)
    assert place.cut == [1]
    place.threads = True
    return place


def test_a_worker_that_holds_what_was_hung_up_on_is_worn_out() -> None:
    place = given_up()
    place.look(int(HELD) + 1)
    assert place.unserved.ended == "libmilter holds 1 connections that it does not serve"


def test_without_threads_no_other_worker_could_do_better() -> None:
    """Unless this one can take nobody any more."""
    place = given_up()
    place.threads = False
    place.look(LONG)
    assert not place.unserved.ended
    place = given_up(most=1)
    place.threads = False
    place.look(int(HELD) + 1)
    assert place.unserved.ended


def test_what_libmilter_has_closed_it_does_not_hold() -> None:
    place = given_up()
    place.look()
    place.kernel.there.clear()
    place.kernel.octets.clear()
    place.look(LONG)
    assert not place.unserved.ended


def test_a_number_that_was_given_to_something_else_is_not_held() -> None:
    """The spool's file, say, or another connection."""
    place = given_up()
    place.look()
    place.kernel.open(2, 0)
    place.look(LONG)
    assert not place.unserved.ended
    assert place.cut == [1]


def test_one_that_was_closed_before_it_was_hung_up_on_is_not_held() -> None:
    place = Place(threads=False)
    place.known.clear()
    place.kernel.open(1)
    place.look(int(PATIENCE) + 1)
    place.kernel.there.clear()
    place.kernel.octets.clear()
    place.refusals.then[0]()
    place.threads = True
    place.look(LONG)
    assert not place.unserved.ended
    assert place.cut == []


def test_a_thread_at_work_holds_its_connection_as_long_as_it_needs() -> None:
    """It entered the wait for an answer just then, and will close afterwards."""
    place = given_up()
    place.busy = {NUMBER}
    place.look(120)
    assert not place.unserved.ended


class TestKernel:
    """The same with descriptors of this process."""

    @pytest.fixture
    def listening(self, tmp_path: Path) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{tmp_path}/s")
            listening.listen()
            yield listening

    def test_a_reused_number_is_left_alone(self, listening: socket.socket, tmp_path: Path) -> None:
        kernel = MilterConnections(listening)
        with socket.socket(socket.AF_UNIX) as mta, socket.socket(socket.AF_UNIX) as later:
            mta.connect(listening.getsockname())
            with listening.accept()[0] as first:
                handle = fcntl.fcntl(first.fileno(), fcntl.F_DUPFD, 200)
            identity = kernel.identity(handle)
            assert identity is not None
            mta.send(b"abc")
            assert kernel.unread(handle) == 3
            os.close(handle)
            assert kernel.identity(handle) is None
            before = len(os.listdir("/proc/self/fd"))
            with (tmp_path / "spool").open("w") as file:
                os.dup2(file.fileno(), handle)
                assert kernel.identity(handle) is None
                assert not kernel.hang_up(handle, identity)
                assert kernel.duplicate(handle, identity) is None
            later.connect(listening.getsockname())
            with listening.accept()[0] as second:
                os.dup2(second.fileno(), handle)
                assert not kernel.hang_up(handle, identity)
                later.send(b"x")
                assert second.recv(1) == b"x"
                assert kernel.hang_up(handle, kernel.identity(handle))
                assert second.recv(1) == b""
            os.close(handle)
            assert len(os.listdir("/proc/self/fd")) == before

    def test_without_a_descriptor_nothing_is_left_over(
        self, listening: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kernel = MilterConnections(listening)
        with socket.socket(socket.AF_UNIX) as mta:
            mta.connect(listening.getsockname())
            with listening.accept()[0] as ours:
                identity = kernel.identity(ours.fileno())
                assert identity is not None
                before = os.listdir("/proc/self/fd")
                monkeypatch.setattr(kernel, "is_ours", lambda _: False)
                assert kernel.duplicate(ours.fileno(), identity) is None
                assert len(os.listdir("/proc/self/fd")) == len(before)
