"""What the pages ask of the store, paged and by index. Times are seconds since 1970; everything
raises StoreError."""

from __future__ import annotations

from typing import Any, NamedTuple

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.stored import decode
from dmarc_milter.ledger.store import rollups
from dmarc_milter.ledger.store.database import Database, fetch
from dmarc_milter.ledger.store.decisions import (
    Decision,
    Filter,
    PagePosition,
    Total,
    bare_key,
    newest,
)
from dmarc_milter.ledger.store.reports import ReportState

PAGE = 50
SOURCES = 100
LOOKED_AT = 200_000
"""Messages whose sources are counted."""
NEWEST = 20_000
"""Decisions that are looked through for clients."""


class DecisionPage(NamedTuple):
    decisions: list[Decision]
    next: PagePosition | None


class AuthorRow(NamedTuple):
    """One author domain in the period."""

    domain: str
    messages: int
    passed: int
    failed: int
    treated: int
    """Quarantined or refused, or in monitor mode what would have been."""


class SourceRow(NamedTuple):
    """Mail of one author domain from one client address with one outcome."""

    source_ip: str
    status: str
    disposition: str
    would_be: str
    messages: int
    last_at: int


def parse_position(text: str) -> PagePosition | None:
    """A place as `str` wrote it; None for anything else."""
    at, _, identity = text.partition("-")
    good = (
        at.isascii()
        and at.isdecimal()
        and len(at) <= 12
        and identity.isascii()
        and identity.isalnum()
        and len(identity) <= 64
    )
    return PagePosition(int(at), identity) if good else None


def decisions(
    database: Database,
    wanted: Filter,
    *,
    key: str = "",
    after: PagePosition | None = None,
) -> DecisionPage:
    """Decisions, newest first; `key` is a queue id or Message-ID."""
    extra, values = "", list[Any]()
    if key:
        extra += " AND (queue_id = ? OR message_id = ?)"
        values += [bare_key(key)] * 2
    rows = newest(database, wanted, extra=extra, values=values, limit=PAGE + 1, after=after)
    following = (
        PagePosition(int(rows[PAGE - 1][2]), rows[PAGE - 1][3]) if len(rows) > PAGE else None
    )
    return DecisionPage([Decision(decode(bytes(row[0])), row[1]) for row in rows[:PAGE]], following)


def decision(database: Database, identity: str) -> Decision | None:
    """One decision by its id."""
    rows = fetch(database, "SELECT facts, host FROM decision WHERE id = ?", (identity,))
    return Decision(decode(bytes(rows[0][0])), rows[0][1]) if rows else None


def authors(
    database: Database, since: int, *, failing: bool = False, page: int = 1
) -> list[AuthorRow]:
    """Author domains since that day, most messages (or failures) first; one more than a page when
    there is another. `failing`: those that failed on any of these days, with all their mail."""
    sql = (
        "SELECT author_reversed, sum(messages) AS number, sum(passed), sum(failed) AS failures,"
        " sum(treated) FROM author_day WHERE day >= ? AND author_reversed <> '' GROUP BY"
        f" author_reversed {'HAVING sum(failed) > 0' if failing else ''}"
        f" ORDER BY {'failures' if failing else 'number'} DESC, author_reversed LIMIT ? OFFSET ?"
    )
    values = (since // DAY * DAY, PAGE + 1, (page - 1) * PAGE)
    return [
        AuthorRow(rollups.reversed_name(row[0]), *map(int, row[1:]))
        for row in fetch(database, sql, values)
    ]


def sources(database: Database, author_domain: str, since: int) -> list[SourceRow]:
    """Where the newest LOOKED_AT messages of an author domain came from and what became of them,
    most messages first; at most SOURCES rows."""
    sql = (
        "SELECT source_ip, status, disposition, would_be, count(*) AS messages, max(at) FROM"
        " (SELECT source_ip, status, disposition, would_be, at FROM decision WHERE author_domain ="
        " ? AND at >= ? ORDER BY at DESC LIMIT ?) AS newest GROUP BY source_ip, status,"
        " disposition, would_be ORDER BY messages DESC, source_ip LIMIT ?"
    )
    return [
        SourceRow._make((*row[:4], int(row[4]), int(row[5])))
        for row in fetch(database, sql, (author_domain, since, LOOKED_AT, SOURCES))
    ]


def latest(database: Database, author_domain: str) -> Decision | None:
    """The newest decision about an author domain: it knows the policy."""
    sql = "SELECT facts, host FROM decision WHERE author_domain = ? ORDER BY at DESC LIMIT 1"
    rows = fetch(database, sql, (author_domain,))
    return Decision(decode(bytes(rows[0][0])), rows[0][1]) if rows else None


class ClientRow(NamedTuple):
    """A client whose mail failed DMARC. `authors`: how many author domains it used."""

    source_ip: str
    messages: int
    authors: int
    author_domain: str
    """One of them."""


def failing_clients(database: Database, since: int, limit: int = 10) -> list[ClientRow]:
    """Among the newest NEWEST decisions, clients with most failures."""
    sql = (
        "SELECT source_ip, count(*) AS messages, count(DISTINCT author_domain), max(author_domain)"
        " FROM (SELECT source_ip, author_domain, status FROM decision WHERE at >= ? ORDER BY at"
        " DESC LIMIT ?) AS newest WHERE status = 'fail' AND source_ip <> '' GROUP BY source_ip"
        " ORDER BY messages DESC, source_ip LIMIT ?"
    )
    return [
        ClientRow(row[0], int(row[1]), int(row[2]), row[3])
        for row in fetch(database, sql, (since, NEWEST, limit))
    ]


def report_states(database: Database) -> dict[str, int]:
    """Reports by state, in the order of their way."""
    found = {
        row[0]: int(row[1])
        for row in fetch(database, "SELECT state, count(*) FROM report GROUP BY state")
    }
    return {state.value: found[state.value] for state in ReportState if state.value in found}


def last_drained(database: Database) -> int:
    """When a host last wrote to the store; 0 for never."""
    return int(fetch(database, "SELECT coalesce(max(drained_at), 0) FROM origin")[0][0])


def outcomes(database: Database, author_domain: str, since: int) -> AuthorRow:
    """What became of one author domain's mail."""
    totals = daily(database, author_domain, since)
    return AuthorRow(
        author_domain,
        sum(total.messages for total in totals),
        sum(total.messages for total in totals if total.status == "pass"),
        sum(total.messages for total in totals if total.status == "fail"),
        sum(
            total.messages
            for total in totals
            if {total.disposition, total.would_be} & {"quarantine", "reject"}
        ),
    )


def daily(database: Database, author_domain: str, since: int) -> list[Total]:
    """Messages of one author domain by day and outcome; `since` is the first second of a day."""
    source = rollups.counted(since, author_domain=author_domain, exactly=True)
    sql = (
        "SELECT begin_at, status, disposition, would_be, sum(messages) FROM"
        f" {source.sql} GROUP BY begin_at, status, disposition, would_be ORDER BY begin_at"
    )
    return [
        Total._make((int(row[0]), *row[1:4], int(row[4])))
        for row in fetch(database, sql, source.values)
    ]
