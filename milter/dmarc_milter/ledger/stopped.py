"""Mail that policy stopped, deferred or marked, or would have, by author domain and client. Its
clients stand in the decision log only; of very much such mail a part of each day is looked at."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.text import printable
from dmarc_milter.ledger.store import rollups
from dmarc_milter.ledger.store.database import Database, fetch
from dmarc_milter.ledger.store.decisions import AFFECTED, MAX_KEY, Filter, Impact

LOOKED_AT = 30_000
"""Messages that are looked at; of more, the newest of each day."""
SPANS = 60
"""A longer time than so many days is looked at in so many parts."""
OUTCOME = "author_domain, source_ip, status, disposition, would_be"
COLUMNS = f"{OUTCOME}, at"


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
        if self.messages > LOOKED_AT:
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
    def _authors(self) -> list[tuple[str, int, int]]:
        """Author domain, clients, messages that were looked at."""
        sql = (
            "SELECT author_domain, count(*), sum(number) FROM (SELECT author_domain, source_ip,"
            f" count(*) AS number FROM {self._source} AS looked GROUP BY author_domain, source_ip)"
            " AS pairs GROUP BY author_domain"
        )
        rows = fetch(self._database, sql, self._values)
        return [(row[0], int(row[1]), int(row[2])) for row in rows]

    @property
    def looked_at(self) -> int:
        """Of how many of the messages the clients are told."""
        if self.messages <= LOOKED_AT:
            return self.messages
        return sum(number for _, _, number in self._authors)

    def clients(self) -> dict[str, int]:
        """How many client addresses sent such mail, by author domain."""
        return {name: clients for name, clients, _ in self._authors}

    def groups(self, limit: int) -> list[Impact]:
        """By author domain, client and outcome; most messages first."""
        sql = (
            f"SELECT {OUTCOME}, count(*) AS messages, max(at) FROM {self._source} AS looked GROUP"
            f" BY {OUTCOME} ORDER BY messages DESC, author_domain LIMIT ?"
        )
        return [
            Impact._make((*row[:5], int(row[5]), int(row[6])))
            for row in fetch(self._database, sql, (*self._values, limit))
        ]
