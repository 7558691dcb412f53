"""Mail that policy stopped, deferred or marked, or would have, by author domain and client. Its
clients stand in the decision log only; of very much such mail a part of each day is looked at."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.text import printable
from dmarc_milter.ledger.impact import DomainImpact, by_domain
from dmarc_milter.ledger.store import rollups
from dmarc_milter.ledger.store.database import Database, fetch
from dmarc_milter.ledger.store.decisions import AFFECTED, MAX_KEY, Decisions, Filter, Pair, Treated

LOOKED_AT = 20_000
"""Messages that are looked at; of more, the newest of each day."""
OF_A_DOMAIN = 100_000
"""The same where a domain is asked for: so many are found by its name sooner than in the order of
time."""
SPANS = 60
"""A longer time than so many days is looked at in so many parts."""
PAIRS = 300
"""Pairs of author domain and client whose messages are looked into: those with most. Of the others
it is not said who they are."""
COLUMNS = "author_domain, source_ip, at"


class StoppedMail:
    """What `wanted` asks for of it. `messages`: how many they are by the sums, counted here where
    that is not known. Everything raises StoreError."""

    def __init__(self, database: Database, wanted: Filter, messages: int | None = None) -> None:
        self._database = database
        self.messages = self._counted(wanted) if messages is None else messages
        where, values = wanted.where()
        condition = f"{where} AND ({AFFECTED})"
        self._source = f"(SELECT {COLUMNS} FROM decision WHERE {condition})"
        self._values: tuple[Any, ...] = tuple(values)
        if self.messages > (OF_A_DOMAIN if wanted.author_domain else LOOKED_AT):
            self._look_at_some(wanted)

    def _counted(self, wanted: Filter) -> int:
        name = printable(wanted.author_domain, MAX_KEY)
        source = rollups.counted(
            wanted.since, until=wanted.until, author_domain=name, only=AFFECTED
        )
        sql = f"SELECT coalesce(sum(messages), 0) FROM {source.sql}"
        return int(fetch(self._database, sql, source.values)[0][0])

    def _look_at_some(self, wanted: Filter) -> None:
        reach = "SELECT min(hour), max(hour) FROM hour_total WHERE hour >= ? AND hour < ?"
        until = wanted.until if wanted.until is not None else 2**62
        first, last = fetch(self._database, reach, (rollups.since_hour(wanted.since), until))[0]
        if first is None:
            return
        begin = max(wanted.since, int(first))
        days = (int(last) - begin) // DAY + 1
        length = -(-days // SPANS) * DAY
        begins = range(begin // DAY * DAY, int(last) + 1, length)
        parts, values = [], list[Any]()
        for number, start in enumerate(begins):
            where, mine = wanted.where(broad=True)
            parts.append(
                f"SELECT * FROM (SELECT {COLUMNS} FROM decision WHERE {where} AND at >= ? AND at <"
                f" ? AND ({AFFECTED}) ORDER BY at DESC LIMIT ?) AS part{number}"
            )
            values += [*mine, start, start + length, LOOKED_AT // len(begins)]
        self._source, self._values = f"({' UNION ALL '.join(parts)})", tuple(values)

    @cached_property
    def _found(self) -> _Found:
        """All of it from one look at the log."""
        sql = (
            "WITH pair AS MATERIALIZED (SELECT author_domain, source_ip, count(*) AS messages,"
            f" min(at) AS first_at, max(at) AS last_at FROM {self._source} AS looked GROUP BY"
            " author_domain, source_ip) SELECT * FROM (SELECT author_domain, source_ip, messages,"
            " first_at, last_at FROM pair ORDER BY messages DESC, last_at DESC, author_domain,"
            " source_ip LIMIT ?) AS most UNION ALL SELECT author_domain, NULL, sum(messages), 0,"
            " count(*) FROM pair GROUP BY author_domain"
        )
        rows = fetch(self._database, sql, (*self._values, PAIRS))
        return _Found(
            [Pair._make((*row[:2], *map(int, row[2:]))) for row in rows if row[1] is not None],
            {row[0]: int(row[4]) for row in rows if row[1] is None},
            sum(int(row[2]) for row in rows if row[1] is None),
        )

    @property
    def looked_at(self) -> int:
        """Of how many of the messages the clients are told: the log may be shorter than the sums,
        where `decision_max_rows` is reached or something was erased."""
        return self._found.looked_at

    @property
    def looked_into(self) -> int:
        """How many messages are those of `pairs`."""
        return sum(pair.messages for pair in self._found.pairs)

    def clients(self) -> dict[str, int]:
        """How many client addresses sent such mail, by author domain."""
        return self._found.clients

    def pairs(self, limit: int | None = None) -> list[Pair]:
        """By author domain and client; most messages first, of as many the newest."""
        return self._found.pairs[:limit]


class _Found(NamedTuple):
    pairs: list[Pair]
    clients: dict[str, int]
    looked_at: int


# --- by author domain, from the sums --------------------------------------------------------------


MOST = (
    "WITH part AS MATERIALIZED (SELECT author_reversed, disposition, would_be, kind, sum(messages)"
    " AS messages FROM {source} GROUP BY author_reversed, disposition, would_be, kind), author AS"
    " MATERIALIZED (SELECT author_reversed AS name, sum(messages) AS messages FROM part GROUP BY"
    " author_reversed), most AS MATERIALIZED (SELECT name FROM author ORDER BY messages DESC,"
    " reverse(name) {{bytewise}} LIMIT ?) SELECT author_reversed, disposition, would_be, kind,"
    " messages FROM part WHERE author_reversed IN (SELECT name FROM most) UNION ALL SELECT NULL,"
    " disposition, would_be, kind, sum(messages) FROM part WHERE author_reversed NOT IN (SELECT"
    " name FROM most) GROUP BY disposition, would_be, kind UNION ALL SELECT NULL, '', '', '',"
    " count(*) FROM author"
)
"""Of ten thousand author domains nobody reads more than the first, and to hand over all of them
takes longer than to count them. The row without disposition and would_be, which AFFECTED leaves no
other, is how many author domains there are; SQL promises no order of the rows."""


class TreatedMail(NamedTuple):
    """By author domain, and that of all others in sum."""

    parts: list[Treated]
    others: list[Treated]
    """Their author_domain is ""."""
    authors: int
    """Author domains in all."""

    @property
    def all(self) -> list[Treated]:
        return self.parts + self.others

    @property
    def messages(self) -> int:
        return sum(part.messages for part in self.all)

    @property
    def totals(self) -> DomainImpact:
        """Of all author domains together."""
        nobody = DomainImpact("", 0, 0, 0, 0, 0, 0, 0)
        one = by_domain([part._replace(author_domain="") for part in self.all], {})
        return one[0] if one else nobody


def treated_mail(
    database: Database, since: int, *, author_domain: str = "", limit: int | None = None
) -> TreatedMail:
    """Of the `limit` author domains with most, as by_domain ranks them; None: of all. `since` is
    rounded down to its hour. Raises StoreError."""
    if limit is None:
        parts = Decisions(database).treated(since, author_domain=author_domain)
        return TreatedMail(parts, [], len({part.author_domain for part in parts}))
    name = printable(author_domain, MAX_KEY)
    source = rollups.counted(since, author_domain=name, only=AFFECTED)
    rows = fetch(database, MOST.format(source=source.sql), (*source.values, limit))
    groups = [row for row in rows if row[1] or row[2]]
    found = [
        Treated._make((rollups.reversed_name(row[0] or ""), *row[1:4], int(row[4])))
        for row in groups
    ]
    named = [row[0] is not None for row in groups]
    return TreatedMail(
        [part for part, is_named in zip(found, named, strict=True) if is_named],
        [part for part, is_named in zip(found, named, strict=True) if not is_named],
        sum(int(row[4]) for row in rows if not (row[1] or row[2])),
    )
