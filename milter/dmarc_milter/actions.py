"""From an Evaluation to what the MTA is asked to do. Effects are data that refuse nonsense; edge/session.py plays them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeleteHeader:
    name: str
    index: int
    """From 1, per name, as SMFIR_CHGHEADER counts."""

    def __post_init__(self) -> None:
        if self.index < 1:
            raise ValueError("header indexes start at 1")


@dataclass(frozen=True, slots=True)
class InsertHeader:
    """Inserted above all fields (index 0). `value` starts with a space, folds are LF + white space, lines under 998 octets."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Quarantine:
    """SMFIR_QUARANTINE: the MTA holds the message."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The final SMTP reply instead of acceptance: a 4xx or 5xx code, its enhanced code, and one line of text."""

    code: int
    enhanced: str
    text: str


Action = DeleteHeader | InsertHeader | Quarantine | Reply
