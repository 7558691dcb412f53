"""What became of a message, as people say it: the one vocabulary of the dashboard, `why`, `stats`,
the summary and the log's sentences."""

from __future__ import annotations

from dmarc_milter.core.stored import Facts

DONE = {
    "none": "delivered",
    "pass": "delivered",
    "quarantine": "quarantined",
    "reject": "refused",
    "tempfail": "deferred",
}
"""What was done, in a word, by the stored disposition."""
STOPPED = ("reject", "quarantine", "tempfail")
"""Stored dispositions of mail that was not simply delivered."""
WOULD_BE = {kind: f"would be {DONE[kind]}" for kind in STOPPED}
"""For mail that was delivered, what enforcement would have done."""


def done(disposition: str, would_be: str = "") -> str:
    """Of a stored disposition, "tempfail" where it was answered 451. What was done comes before
    what would have been: only delivered mail has a "would be"."""
    word = DONE.get(disposition, "delivered")
    return WOULD_BE.get(would_be, word) if word == "delivered" else word


def became(facts: Facts) -> str:
    """What became of a message: delivered, refused, would be refused, and so on."""
    return done(facts.disposition if facts.counted else "tempfail", facts.would_be)


def is_stopped(facts: Facts) -> bool:
    """Whether it was refused, quarantined or deferred, or would have been with enforcement."""
    return became(facts) != "delivered"
