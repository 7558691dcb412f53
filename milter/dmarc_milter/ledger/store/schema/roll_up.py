"""The rollups of a decision log that an older version has filled, for the schema step."""

from __future__ import annotations

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store.database import Transaction

SET = (
    " ON CONFLICT (span, author_reversed, begin_at, status, disposition, would_be, kind, host) DO"
    " UPDATE SET messages = excluded.messages"
)
"""It sets and does not add: it may run again."""
COLUMNS = "span, author_reversed, begin_at, status, disposition, would_be, kind, host, messages"
OUTCOME = "status, disposition, would_be"
HOURS = (
    f"INSERT INTO rollup ({COLUMNS}) SELECT 3600, reverse(author_domain), at / 3600 * 3600,"
    f" {OUTCOME}, '', host, count(*) FROM decision WHERE at >= ? AND at < ? GROUP BY"
    f" author_domain, at / 3600 * 3600, {OUTCOME}, host{SET}"
)
DAYS = (
    f"INSERT INTO rollup ({COLUMNS}) SELECT 86400, reverse(author_domain), at / 86400 * 86400,"
    f" {OUTCOME}, '', host, count(*) FROM decision WHERE at >= ? AND at < ? GROUP BY"
    f" author_domain, at / 86400 * 86400, {OUTCOME}, host{SET}"
)
NAMES = (
    "INSERT INTO author_name (reversed, host, name, last_at) SELECT reverse(author_domain), host,"
    " author_domain, max(at) FROM decision WHERE at >= ? AND at < ? GROUP BY author_domain, host"
    " ON CONFLICT (reversed, host) DO UPDATE SET last_at = excluded.last_at"
)


def roll_up(transaction: Transaction) -> None:
    """Count what is in the log, a day at a time, and all by the database itself: a log of years
    fits no memory."""
    begin = 0
    while (first := transaction.one("SELECT min(at) FROM decision WHERE at >= ?", (begin,))) and (
        first[0] is not None
    ):
        day = int(first[0]) // DAY * DAY
        begin = day + DAY
        for sql in (HOURS, DAYS, NAMES):
            transaction.run(sql, (day, begin))
