"""A limit of descriptors that is lowered while the process runs."""

from __future__ import annotations

import os
import resource

import pytest

from dmarc_milter.process import descriptor_limit
from dmarc_milter.process.descriptor_limit import LOOK, DescriptorLimit


class Host:
    """What is open here and how many may be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.limit, self.free = 0.0, 1024, True
        self.open: set[int] = set()
        self.looked = 0
        self.asked: list[int] = []
        monkeypatch.setattr(resource, "getrlimit", lambda _: (self.limit, 4096))
        monkeypatch.setattr(resource, "setrlimit", lambda _, new: self.asked.append(new[0]))
        monkeypatch.setattr(descriptor_limit, "_is_open", self.is_open)
        monkeypatch.setattr(os, "dup", self.dup)
        monkeypatch.setattr(os, "close", lambda _: None)

    def is_open(self, number: int) -> bool:
        self.looked += 1
        return number in self.open

    def dup(self, _number: int) -> int:
        if not self.free:
            raise OSError(24, "Too many open files")
        return 3


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_a_lowered_limit_that_leaves_room_costs_next_to_nothing(host: Host) -> None:
    """It stays lowered for the whole life of the process, which looks on every turn."""
    limit = DescriptorLimit(lambda: host.now)
    host.limit = 512
    for _ in range(100):
        assert limit.lowered() == ""
        host.now += LOOK / 10
    assert host.looked == 0


def test_a_limit_that_is_used_up_is_looked_at_now_and_then(host: Host) -> None:
    """Thousands of numbers may have to be asked for; nothing beyond the limit is open."""
    limit = DescriptorLimit(lambda: host.now)
    host.limit, host.free = 512, False
    for _ in range(20):
        assert limit.lowered() == ""
    assert host.looked == descriptor_limit.LOOKED_AT
    assert host.asked == []


def test_what_is_open_beyond_the_limit_is_noticed_when_the_room_below_is_used_up(
    host: Host,
) -> None:
    """Later too, and the former limit is asked for."""
    limit = DescriptorLimit(lambda: host.now)
    host.limit = 512
    host.open.add(700)
    assert limit.lowered() == ""
    host.free, host.now = False, LOOK
    assert "lowered to 512" in limit.lowered()
    assert host.asked == [1024]
