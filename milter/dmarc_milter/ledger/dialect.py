"""What the two kinds of store share, and where their SQL and their patience differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

Values = Sequence[Any]

DIALECTS = {
    # `plus` before a column keeps SQLite from choosing that column's index.
    "sqlite": {
        "below_in_order": (
            "+author_domain IN (SELECT ? UNION ALL SELECT name FROM author_name WHERE reversed >= ?"
            " AND reversed < ?)"
        ),
        "blob": "BLOB",
        "bytewise": "",
        "compact": "WITHOUT ROWID",
        "for_update": "",
        "for_share": "",
        "holds": "instr(CAST(lower(CAST(facts AS TEXT)) AS BLOB), ?) > 0",
        "if_absent": "",
        "if_there": "",
        "plus": "+",
        "skip_locked": "",
    },
    "postgresql": {
        "below_in_order": (
            "(author_domain = ? OR (reverse(author_domain) {bytewise} >= ? AND"
            " reverse(author_domain) {bytewise} < ?))"
        ).format(bytewise='COLLATE "C"'),
        "blob": "BYTEA",
        "bytewise": 'COLLATE "C"',
        # "escape" leaves what is ASCII as it is, and bytes that no text may have as octal numbers.
        # Small letters are those of ASCII: a Turkish database makes another letter of "I".
        "holds": (
            "position(lower(encode(?::bytea, 'escape') COLLATE \"C\") in"
            " lower(encode(facts, 'escape') COLLATE \"C\")) > 0"
        ),
        "if_absent": "IF NOT EXISTS",
        "if_there": "IF EXISTS",
        "plus": "",
        "compact": "",
        "for_update": "FOR UPDATE",
        "for_share": "FOR SHARE",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
    },
}


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the user of a store waits, in seconds."""

    lock: float
    """For one lock that another transaction holds."""
    retries: float
    """For all tries of a transaction that meets others."""
    silence: float
    """For a server that says nothing; then it is asked by a second connection whether it lives."""
    idle: float
    """That the server waits for us between two statements of a transaction: a host that stops
    there is cut off, and what it had locked is free."""
    statement: float
    """For one statement: the server ends it then, and a little later the connection is cut."""
    busy: float
    """For another writer of a SQLite store."""
    connect: float
    """For a connection, whatever number of servers the URL names, and for resolving the names."""


JOB = Waits(lock=3, retries=4, silence=4, idle=5, statement=300, busy=8, connect=30)
"""Reports, expiry, upgrade, erasing: they come again."""
DRAIN = replace(JOB, statement=30)
"""The following drain, whose statements are short, and which has to say within a time that it
waits. Its expiry has a connection with the bounds of JOB."""
COMMAND = Waits(lock=2, retries=2, silence=2, idle=5, statement=4.5, busy=2, connect=5)
"""Somebody sits before the screen: an answer within 10 s even where the store hangs."""


class Transaction(Protocol):
    """Statements that happen together or not at all."""

    def run(self, sql: str, values: Values = ()) -> int:
        """The number of rows changed."""
        ...

    def many(self, sql: str, rows: Sequence[Values]) -> None:
        """The statement for each of the rows. An INSERT meets each of its keys once."""
        ...

    def all(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]: ...

    def one(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None: ...

    def at_length(self) -> None:
        """From here on each statement may take as long as it takes, while the server lives."""
        ...


@lru_cache(maxsize=256)
def translate(sql: str, dialect: str) -> str:
    """`sql`, with `?` for parameters and words in braces, as that kind of store takes it."""
    text = sql.format_map(DIALECTS[dialect])
    return text if dialect == "sqlite" else text.replace("?", "%s")
