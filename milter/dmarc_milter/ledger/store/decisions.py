"""The recent-decision log and the totals: what `why`, `impact`, `stats` and the dashboard ask."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.stored import Facts, decode
from dmarc_milter.core.text import printable
from dmarc_milter.ledger.store import rollups
from dmarc_milter.ledger.store.database import Database, chunks, fetch

MAX_KEY = 300
"""Characters of what is searched for; what is stored is printable ASCII and shorter."""


AFFECTED = (
    "disposition IN ('reject', 'quarantine', 'tempfail') OR would_be IN ('reject', 'quarantine',"
    " 'tempfail')"
)
"""In the words of the index decision_affected: SQLite compares them."""


DELIVERED = "disposition IN ('none', 'pass')"


BELOW = (
    "author_domain IN (SELECT CAST(? AS TEXT) UNION ALL SELECT name FROM author_name WHERE"
    " reversed >= ? AND reversed < ?)"
)
"""Not an OR of the name and those below it: PostgreSQL would read the whole log."""
BROAD = 5_000
"""Messages of a domain and what is below it, beyond which the newest are soon met in the order of
time."""


class Decision(NamedTuple):
    """One delivery attempt, and the host that decided. `facts` tells everything."""

    facts: Facts
    host: str


class PagePosition(NamedTuple):
    """Where a page of decisions ends: the next one begins after it."""

    at: int
    id: str

    def __str__(self) -> str:
        return f"{self.at}-{self.id}"


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that all hold; "" and None do not restrict. `since` (included) and `until` (not)
    in seconds since 1970."""

    since: int = 0
    until: int | None = None
    author_domain: str = ""
    """This domain or any below it."""
    author: str | None = None
    """This author domain alone; "" is an author that could not be read."""
    policy_domain: str = ""
    source_ip: str = ""
    status: str = ""
    disposition: str = ""
    """none, pass, quarantine, reject, or "tempfail": answered 4xx."""
    would_be: str = ""
    """Of mail that was delivered: what enforcement would have done."""
    delivered: bool = False
    affected: bool = False
    """Only what policy stopped, deferred or marked, or would have in monitor mode."""

    def where(self, *, broad: bool = False) -> tuple[str, list[Any]]:
        """The SQL condition and its values. `broad`: so much mail is of this domain that it is
        looked for in the order of time, not by its name."""
        conditions, values = ["at >= ?"], list[Any]([self.since])
        if self.until is not None:
            conditions.append("at < ?")
            values.append(self.until)
        if self.author_domain:
            conditions.append("{below_in_order}" if broad else BELOW)
            name = printable(self.author_domain, MAX_KEY)
            values += [name, *rollups.below(name)]
        if self.author is not None:
            conditions.append("author_domain = ?")
            values.append(printable(self.author, MAX_KEY))
        for column in ("policy_domain", "source_ip", "status", "disposition", "would_be"):
            if value := getattr(self, column):
                conditions.append(f"{column} = ?")
                values.append(printable(value, MAX_KEY))
        if self.delivered or self.would_be:  # what was done comes before what would have been
            conditions.append(DELIVERED)
        if self.affected:
            conditions.append(f"({AFFECTED})")
        return " AND ".join(conditions), values


def newest(
    database: Database,
    wanted: Filter,
    *,
    extra: str = "",
    values: Sequence[Any] = (),
    limit: int,
    after: PagePosition | None = None,
) -> list[tuple[Any, ...]]:
    """facts, host, at and id of decisions, newest first. `extra` is a further condition with its
    values. Pages follow (at, id): the last costs no more than the first, and mail that comes
    meanwhile moves none. Raises StoreError."""
    if after is not None:
        extra += " AND at <= ? AND (at < ? OR id < ?)"
        values = (*values, after.at, after.at, after.id)
    name = wanted.author_domain
    broad = bool(name) and _is_broad(database, wanted.since, name)
    if _has_none(database, wanted):
        return []
    where, mine = wanted.where(broad=broad)
    found = f"SELECT facts, host, at, id FROM decision WHERE {where}{extra}"
    order = "ORDER BY at DESC, id DESC LIMIT ?"
    sql = f"{found} {order}"
    if name and not broad:  # few: by the name, whatever the planner thinks of the order
        sql = f"WITH found AS MATERIALIZED ({found}) SELECT * FROM found {order}"
    return fetch(database, sql, (*mine, *values, limit))


def _is_broad(database: Database, since: int, name: str) -> bool:
    """Whether there is much mail of this domain and below it."""
    source = rollups.counted(since, author_domain=printable(name, MAX_KEY))
    sql = f"SELECT sum(messages) FROM (SELECT messages FROM {source.sql} LIMIT ?) AS part"
    [(number,)] = fetch(database, sql, (*source.values, BROAD))
    return number is not None and int(number) >= BROAD


def _has_none(database: Database, wanted: Filter) -> bool:
    """Whether the totals already say that there is none: of two frequent outcomes that do not go
    together everything would be read."""
    columns = [name for name in ("status", "disposition", "would_be") if getattr(wanted, name)]
    if len(columns) < 2:
        return False
    reach = "SELECT (SELECT min(day) FROM daily) <= (SELECT min(at) FROM decision)"
    if not fetch(database, reach)[0][0]:  # the log is older than the totals
        return False
    sql = "SELECT 1 FROM daily WHERE day >= ?" + "".join(f" AND {name} = ?" for name in columns)
    asked = (printable(getattr(wanted, name), MAX_KEY) for name in columns)
    return not fetch(database, f"{sql} LIMIT 1", (wanted.since // DAY * DAY, *asked))


def bare_key(text: str) -> str:
    """A queue id or Message-ID as it is stored: without angle brackets, printable ASCII; and
    without what stands around it in a log, where it was copied from (`4Qabc:`, `message-id=<...>,`,
    `queue_id=...`)."""
    bare = COPIED.sub("", text.strip()).rstrip(":,;")
    return printable(bare.removeprefix("<").removesuffix(">"), MAX_KEY)


COPIED = re.compile(r"^(?:message-?id|msgid|queue_?id|id)[=:]\s*", re.IGNORECASE)


class Pair(NamedTuple):
    """Mail of one author domain from one client. `first_at` and `last_at` in seconds since 1970."""

    author_domain: str
    source_ip: str
    messages: int
    first_at: int
    last_at: int


class Treated(NamedTuple):
    """Mail of one author domain that policy stopped, deferred or marked, or would have. `kind` is
    senders.Kind, "" where it was not noted."""

    author_domain: str
    disposition: str
    would_be: str
    kind: str
    messages: int


class Waiting(NamedTuple):
    """Mail of one author domain that waits, or would, for one reason. `first_at` and `last_at` in
    seconds since 1970."""

    author_domain: str
    reason: str
    """dns, overloaded or failure."""
    failing_name: str
    """The DNS name that did not answer, or ""."""
    attempts: int
    """Deliveries tried: a message that waits is tried again and again."""
    deferred: int
    """Of these, answered 451; the others would have been, in monitor mode or from a relay of
    ours."""
    messages: int
    """Different Message-IDs."""
    first_at: int
    last_at: int


class Total(NamedTuple):
    """Messages of one UTC day (its first second) with the same outcome."""

    day: int
    status: str
    disposition: str
    would_be: str
    messages: int


class Decisions:
    """Reading only. Everything raises StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, key: str, *, limit: int = 20, by_message_id: bool = True) -> list[Decision]:
        """Decisions about a queue id or a Message-ID (with or without angle brackets), newest
        first. `by_message_id`: False for a queue id alone."""
        columns = ("queue_id", "message_id") if by_message_id else ("queue_id",)
        sql = (
            f"SELECT facts, host FROM decision WHERE {' OR '.join(f'{one} = ?' for one in columns)}"
            " ORDER BY at DESC, id DESC LIMIT ?"
        )
        values = (*[bare_key(key)] * len(columns), limit)
        return [
            Decision(decode(bytes(facts)), host)
            for facts, host in fetch(self._database, sql, values)
        ]

    def recent(self, wanted: Filter = Filter(), *, limit: int = 100) -> list[Decision]:
        """Decisions, newest first."""
        return [
            Decision(decode(bytes(row[0])), row[1])
            for row in newest(self._database, wanted, limit=limit)
        ]

    def all(self, wanted: Filter = Filter(), *, page: int = 1000) -> Iterator[Decision]:
        """All of them, newest first; `page` are read at once."""
        after = None
        while True:
            rows = newest(self._database, wanted, limit=page, after=after)
            yield from (Decision(decode(bytes(row[0])), row[1]) for row in rows)
            if len(rows) < page:
                return
            after = PagePosition(int(rows[-1][2]), rows[-1][3])

    def samples(
        self, pairs: Sequence[Pair], limit: int
    ) -> dict[tuple[str, str], tuple[Facts, ...]]:
        """The newest affected decisions of each author domain and source."""
        found: dict[tuple[str, str], list[Facts]] = {}
        for author, source, facts in self._samples(pairs, limit):
            found.setdefault((author, source), []).append(decode(bytes(facts)))
        return {pair: tuple(some) for pair, some in found.items()}

    def _samples(self, pairs: Sequence[Pair], limit: int) -> Iterator[tuple[str, str, bytes]]:
        # `+ 0`: not by an index on time, along which one client's few would be looked for in all
        # mail of a large domain. The times leave only days to look into that have such mail.
        newest_of = (
            "(SELECT facts FROM decision WHERE author_domain = {author} AND source_ip = {source}"
            f" AND at >= {{first}} AND at <= {{last}} AND ({AFFECTED}) ORDER BY at + 0 DESC LIMIT"
            " ?)"
        )
        if self._database.dialect == "sqlite":  # which has no LATERAL, and plans quickly
            sql = newest_of.format(author="?", source="?", first="?", last="?")[1:-1]
            with self._database.transaction(write=False) as transaction:
                for author, source, _, first, last in pairs:
                    for (facts,) in transaction.all(sql, (author, source, first, last, limit)):
                        yield author, source, facts
            return
        each = newest_of.format(
            author="pair.author", source="pair.source", first="pair.first", last="pair.last"
        )
        for chunk in chunks(pairs):
            sql = (
                "SELECT pair.author, pair.source, newest.facts FROM (VALUES"
                f" {', '.join(['(?, ?, CAST(? AS BIGINT), CAST(? AS BIGINT))'] * len(chunk))}) AS"
                f" pair (author, source, first, last) CROSS JOIN LATERAL {each} AS newest"
            )
            values = [value for a, s, _, first, last in chunk for value in (a, s, first, last)]
            yield from fetch(self._database, sql, (*values, limit))

    def count(self, wanted: Filter = Filter()) -> int:
        """How many decisions there are."""
        where, values = wanted.where()
        return int(
            fetch(self._database, f"SELECT count(*) FROM decision WHERE {where}", values)[0][0]
        )

    def messages(self, since: int = 0, *, author_domain: str = "") -> int:
        """How many decisions there are, of this domain and below it; `since` is rounded down to its
        hour."""
        if not author_domain:
            sql = "SELECT coalesce(sum(messages), 0) FROM hour_total WHERE hour >= ?"
            return int(fetch(self._database, sql, (rollups.since_hour(since),))[0][0])
        source = rollups.counted(since, author_domain=printable(author_domain, MAX_KEY))
        sql = f"SELECT coalesce(sum(messages), 0) FROM {source.sql}"
        return int(fetch(self._database, sql, source.values)[0][0])

    def treated(self, since: int = 0, *, author_domain: str = "") -> list[Treated]:
        """Mail that was, or would have been, treated by policy; `since` is rounded down to its
        hour."""
        name = printable(author_domain, MAX_KEY)
        source = rollups.counted(since, author_domain=name, only=AFFECTED)
        sql = (
            "SELECT author_reversed, disposition, would_be, kind, sum(messages) FROM"
            f" {source.sql} GROUP BY author_reversed, disposition, would_be, kind"
        )
        return [
            Treated._make((rollups.reversed_name(row[0]), *row[1:4], int(row[4])))
            for row in fetch(self._database, sql, source.values)
        ]

    def clients(self, wanted: Filter) -> dict[str, int]:
        """How many client addresses sent such mail, by author domain."""
        where, values = wanted.where()
        sql = (
            "SELECT author_domain, count(*) FROM (SELECT DISTINCT author_domain, source_ip FROM"
            f" decision WHERE {where}) AS pairs GROUP BY author_domain"
        )
        return {row[0]: int(row[1]) for row in fetch(self._database, sql, values)}

    def by_client(self, wanted: Filter) -> list[tuple[str, int]]:
        """Client addresses and their messages; most messages first."""
        where, values = wanted.where()
        sql = (
            f"SELECT source_ip, count(*) AS messages FROM decision WHERE {where} GROUP BY source_ip"
            " ORDER BY messages DESC, source_ip"
        )
        return [(row[0], int(row[1])) for row in fetch(self._database, sql, values)]

    def waiting(
        self,
        since: int = 0,
        *,
        until: int | None = None,
        author_domain: str = "",
        limit: int = 1000,
    ) -> list[Waiting]:
        """What was deferred, or would have been, by author domain, reason and failing name; most
        attempts first."""
        where, values = Filter(since=since, until=until, author_domain=author_domain).where()
        sql = (
            "SELECT author_domain, deferral, failing_name, count(*) AS attempts, sum(CASE WHEN"
            " disposition = 'tempfail' THEN 1 ELSE 0 END), count(DISTINCT message_id {bytewise}),"
            " min(at), max(at) FROM decision WHERE deferral IN ('dns', 'overloaded', 'failure')"
            f" AND {where} GROUP BY author_domain, deferral, failing_name ORDER BY attempts DESC,"
            " author_domain, failing_name LIMIT ?"
        )
        return [
            Waiting._make((*row[:3], *map(int, row[3:])))
            for row in fetch(self._database, sql, (*values, limit))
        ]

    def totals(self, since: int = 0, until: int | None = None) -> list[Total]:
        """Messages by day and outcome, oldest day first. They outlive the log; `since` is rounded
        down to its day."""
        sql = (
            "SELECT day, status, disposition, would_be, sum(messages) FROM daily WHERE day >="
            " ? AND day < ? GROUP BY day, status, disposition, would_be ORDER BY day, status,"
            " disposition, would_be"
        )
        rows = fetch(
            self._database, sql, (since // 86400 * 86400, until if until is not None else 2**62)
        )
        return [Total._make((int(row[0]), *row[1:4], int(row[4]))) for row in rows]
