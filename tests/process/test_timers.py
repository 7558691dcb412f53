"""What is due at a moment, with the time given."""

from dmarc_milter.process.timers import MANY, Timers


def due(timers: Timers, now: float) -> int:
    """How many are due by then; they are called."""
    count = 0
    while (callback := timers.take_due(now)) is not None:
        callback()
        count += 1
    return count


def test_what_is_due_is_taken_in_its_order_and_once() -> None:
    """Of two at one moment the first that was added."""
    timers, seen = Timers(), list[str]()
    for at, name in ((3.0, "c"), (1.0, "a"), (2.0, "b"), (2.0, "b2"), (9.0, "later")):
        timers.add(at, lambda name=name: seen.append(name))  # type: ignore[misc]
    assert timers.next_at() == 1.0
    assert due(timers, 0.5) == 0
    assert due(timers, 3.0) == 4
    assert seen == ["a", "b", "b2", "c"]
    assert timers.next_at() == 9.0


def test_a_cancelled_one_is_neither_due_nor_waited_for() -> None:
    """Also when it is cancelled twice, or after it was called."""
    timers, seen = Timers(), list[str]()
    first = timers.add(1.0, lambda: seen.append("first"))
    timers.add(2.0, lambda: seen.append("second"))
    first.cancel()
    first.cancel()
    assert timers.next_at() == 2.0
    assert due(timers, 5.0) == 1
    assert seen == ["second"]
    assert timers.next_at() is None


def test_cancelled_ones_are_not_kept_until_they_would_be_due() -> None:
    """Every wait has one, and nearly all are cancelled."""
    timers = Timers()
    for _ in range(10 * MANY):
        timers.add(3600, lambda: None).cancel()
    assert len(timers) <= 2 * MANY
