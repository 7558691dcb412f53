"""How long a process that ended badly is waited for."""

from __future__ import annotations

from dmarc_milter.process.back_off import BackOff


def pauses(back_off: BackOff, failures: int) -> list[float]:
    """Whole seconds after each of so many failures until the next start may be made."""
    found = []
    for _ in range(failures):
        back_off.failed(1000.0)
        found.append(next(s for s in range(1000) if back_off.is_over(1000.0 + s)))
    return found


def test_the_pause_doubles_up_to_the_longest() -> None:
    assert pauses(BackOff(1.0, 5.0), 5) == [1, 2, 4, 5, 5]


def test_what_fails_for_days_is_still_counted() -> None:
    """No number grows without bound: 2**1100 is no float."""
    assert pauses(BackOff(1.0, 5.0), 2000)[-1] == 5


def test_what_runs_well_begins_anew() -> None:
    back_off = BackOff(1.0, 5.0)
    assert back_off.is_over(0.0)
    pauses(back_off, 4)
    back_off.reset()
    assert back_off.is_over(1000.0)
    assert pauses(back_off, 2) == [1, 2]
