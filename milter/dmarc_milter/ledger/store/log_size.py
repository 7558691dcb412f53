"""How many rows the decision log has, without counting them: what was counted into it by hour, less
what of each day is in it no more."""

from __future__ import annotations

from functools import partial

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch

ALL = 2**61
"""Later than any message."""
MISSING = (
    "INSERT INTO log_gone (day, messages) SELECT day, sum(messages) FROM (SELECT hour / 86400 *"
    " 86400 AS day, messages FROM hour_total WHERE hour < ? UNION ALL SELECT day, -number FROM"
    " (SELECT at / 86400 * 86400 AS day, count(*) AS number FROM decision WHERE at < ? GROUP BY at"
    " / 86400 * 86400) AS log) AS both_sides GROUP BY day HAVING sum(messages) <> 0"
)
"""One statement, which sees of each drain's transaction both sides or none."""


def rows(database: Database) -> int:
    """How many decisions the log has. Raises StoreError."""
    sql = (
        "SELECT (SELECT coalesce(sum(messages), 0) FROM hour_total) - (SELECT"
        " coalesce(sum(messages), 0) FROM log_gone)"
    )
    return int(fetch(database, sql)[0][0])


def recount(database: Database, through: int = ALL) -> None:
    """After decisions were deleted: count the days up to the one of `through` anew. Raises
    StoreError."""
    attempt(database, partial(write_missing, through=through))


def write_missing(transaction: Transaction, through: int = ALL) -> None:
    """What is missing in the log of each day up to that one; it may run again."""
    end = through // DAY * DAY + DAY
    transaction.run("DELETE FROM log_gone WHERE day < ?", (end,))
    transaction.run(MISSING, (end, end))
