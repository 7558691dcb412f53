"""Mail that policy stopped, deferred or marked, or would have, of the author domains with most of
it: of ten thousand domains nobody reads more than some tables' lines, and to hand over all of them
takes longer than to count them."""

from __future__ import annotations

from typing import NamedTuple

from dmarc_milter.core.text import printable
from dmarc_milter.ledger.impact import DomainImpact, by_domain
from dmarc_milter.ledger.store import rollups
from dmarc_milter.ledger.store.database import Database, fetch
from dmarc_milter.ledger.store.decisions import AFFECTED, MAX_KEY, Decisions, Treated

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
"""The last row is how many author domains there are."""


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
    found = [
        Treated._make((rollups.reversed_name(row[0] or ""), *row[1:4], int(row[4])))
        for row in rows[:-1]
    ]
    named = [row[0] is not None for row in rows[:-1]]
    return TreatedMail(
        [part for part, is_named in zip(found, named, strict=True) if is_named],
        [part for part, is_named in zip(found, named, strict=True) if not is_named],
        int(rows[-1][4]),
    )
