"""The cache of DNS answers stays within its bounds, and lets go of what nobody reads."""

from __future__ import annotations

import time

from dmarc_milter.dns.answer import OVERHEAD, Answer, Key
from dmarc_milter.dns.cache import Cache


def answer(size: int = 10) -> Answer:
    return Answer((b"x" * size,), ttl=60)


def key(number: int) -> Key:
    return (f"n{number}.example", "TXT")


def test_the_number_of_answers_is_bounded() -> None:
    """A flood of random subdomains."""
    cache = Cache(entries=100, octets=1 << 30)
    for n in range(1000):
        cache.put(key(n), answer(), 0.0)
    assert len(cache) == 100
    assert cache.get(key(999), 1.0)
    assert cache.get(key(0), 1.0) is None


def test_the_octets_are_bounded_and_counted_right() -> None:
    """A few answers of 64 KiB must not stand for ten thousand of 100 octets."""
    cache = Cache(entries=10_000, octets=1 << 20)
    for n in range(200):
        cache.put(key(n), answer(60_000), 0.0)
        cache.put(key(n % 7), answer(n), 0.0)
    assert cache.size <= 1 << 20
    assert 0 < len(cache) < 40
    held = [found for n in range(200) if (found := cache.get(key(n), 1.0))]
    assert cache.size == sum(found.size for found in held)
    cache.clear()
    assert (len(cache), cache.size) == (0, 0)


def test_an_answer_larger_than_the_cache_is_not_kept() -> None:
    """It would push out everything else first."""
    cache = Cache(entries=10, octets=OVERHEAD * 4)
    cache.put(key(1), answer(), 0.0)
    cache.put(key(2), answer(10_000), 0.0)
    assert cache.get(key(1), 1.0)
    assert cache.get(key(2), 1.0) is None


def test_what_is_read_stays_while_a_flood_passes() -> None:
    """Gmail's records are not pushed out by names that are asked once."""
    cache = Cache(entries=50, octets=1 << 30)
    cache.put(key(0), answer(), 0.0)
    for n in range(1, 2000):
        cache.put(key(n), answer(), 0.0)
        if n % 20 == 0:
            assert cache.get(key(0), 1.0), n


def test_an_expired_answer_is_not_given_and_does_not_stay_for_being_read() -> None:
    """Its mark of use counts for nothing."""
    cache = Cache(entries=3, octets=1 << 30)
    cache.put(key(0), answer(), 0.0)
    assert cache.get(key(0), 59.9)
    assert cache.get(key(0), 60.0) is None
    for n in range(1, 4):
        cache.put(key(n), answer(), 61.0)
    assert len(cache) == 3
    assert all(cache.get(key(n), 62.0) for n in range(1, 4))


def test_a_newer_answer_replaces_the_older() -> None:
    """Also one that may not be kept: the older is no longer true."""
    cache = Cache(entries=3, octets=1 << 30)
    cache.put(key(0), answer(), 0.0)
    cache.put(key(0), Answer((b"new",), ttl=60), 1.0)
    found = cache.get(key(0), 2.0)
    assert found
    assert found.records == (b"new",)
    cache.put(key(0), Answer((b"fleeting",), ttl=0), 2.0)
    assert cache.get(key(0), 2.0) is None
    assert cache.size == 0


def test_making_room_costs_the_same_however_much_was_dropped_before() -> None:
    """A flood of 100,000 names through a full cache, every answer read once."""
    cache = Cache(entries=10_000, octets=1 << 30)
    began = time.monotonic()
    for n in range(100_000):
        cache.put(key(n), answer(), 0.0)
        cache.get(key(n), 1.0)
    assert time.monotonic() - began < 10
