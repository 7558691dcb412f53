"""One row of all hosts for each author domain and day that is over, in place of one of each: the
pages have so much less to read."""

from __future__ import annotations

import time
from functools import partial

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store.database import Transaction, attempt, fetch
from dmarc_milter.ledger.store.pace import Pace
from dmarc_milter.ledger.store.rollups import ADD_DAYS

CLOSED = 2 * DAY
"""Seconds after which the rows of a day and several hosts become one: few come later."""
AT_ONCE = 500
"""Rows of one transaction: some hundredths of a second."""


def merge_hosts(pace: Pace, now: float) -> None:
    """A little at a time, with a rest after it in which others write. What a host writes for such a
    day later stands beside it. Raises StoreError."""
    days = fetch(
        pace.database,
        "SELECT day FROM author_day WHERE day < ? AND host <> '' GROUP BY day HAVING min(host) <>"
        " max(host) ORDER BY day",
        (int((now - CLOSED) // DAY) * DAY,),
    )
    for (day,) in days:
        name: str | None = ""
        while name is not None:
            pace.before_each()
            started = time.monotonic()
            name = attempt(pace.database, partial(_merge, day=int(day), first=name))
            pace.rest(time.monotonic() - started)


def _merge(transaction: Transaction, day: int, first: str) -> str | None:
    """Some rows of a day, from this name on; where to go on, or None. Those that a host is just
    writing are left."""
    rows = transaction.all(
        "SELECT author_reversed, host, messages, passed, failed, treated FROM author_day WHERE day"
        " = ? AND author_reversed >= ? AND host <> '' ORDER BY author_reversed, host LIMIT ?"
        " {skip_locked}",
        (day, first, AT_ONCE),
    )
    if not rows:
        return None
    sql = "DELETE FROM author_day WHERE day = ? AND (author_reversed, host) IN (VALUES {})"
    sql = sql.replace("{}", ", ".join(["(?, ?)"] * len(rows)))
    transaction.run(sql, (day, *(value for row in rows for value in row[:2])))
    counts: dict[str, list[int]] = {}
    for name, _, *numbers in rows:
        before = counts.get(name, [0, 0, 0, 0])
        counts[name] = [one + int(more) for one, more in zip(before, numbers, strict=True)]
    transaction.many(ADD_DAYS, [(day, name, "", *some) for name, some in sorted(counts.items())])
    return str(rows[-1][0]) if len(rows) == AT_ONCE else None
