"""The decision log counted row by row: what the sums, which are kept beside it, must agree with."""

from __future__ import annotations

from typing import NamedTuple

from dmarc_milter.ledger.store.database import Database, fetch
from dmarc_milter.ledger.store.decisions import Filter


class Group(NamedTuple):
    """What happened, or would have happened, to the mail of one author domain from one source."""

    author_domain: str
    source_ip: str
    status: str
    disposition: str
    would_be: str
    messages: int


def groups(database: Database, wanted: Filter = Filter()) -> list[Group]:
    where, values = wanted.where()
    columns = ", ".join(Group._fields[:-1])
    sql = f"SELECT {columns}, count(*) FROM decision WHERE {where} GROUP BY {columns}"
    return [Group._make((*row[:-1], int(row[-1]))) for row in fetch(database, sql, values)]
