"""What the store had counted of a spool and has lost: after a restored backup, or a failover that
took commits with it."""

from __future__ import annotations

from typing import NamedTuple

from dmarc_milter.ledger.origins import enrol
from dmarc_milter.ledger.store.database import Transaction


class Gap(NamedTuple):
    """The spool `identity` was told that everything up to `through` is held; the store has it up to
    `last`."""

    identity: str
    last: int
    through: int

    @property
    def size(self) -> int:
        """Messages that are missing."""
        return self.through - self.last


class Lost(NamedTuple):
    """What one host's spool found missing: `lost` for good, `again` applied once more; seconds
    since 1970."""

    host: str
    lost: int
    again: int
    at: int


def note(transaction: Transaction, gap: Gap, host: str, kept: int, now: int) -> bool:
    """Count a gap once; False where it was noted already, by a drain that did not come to its
    end."""
    enrol(transaction, gap.identity, host)
    sql = (
        "UPDATE origin SET lost = lost + ?, again = again + ?, gap_at = ?, gap_through = ? WHERE"
        " identity = ? AND last_seq = ? AND gap_through <> ?"
    )
    lost = max(gap.size - kept, 0)
    values = (lost, kept, now, gap.through, gap.identity, gap.last, gap.through)
    return transaction.run(sql, values) == 1


def close(transaction: Transaction, gap: Gap) -> None:
    """What could be applied again is: what is lost is not looked for any more."""
    transaction.run(
        "UPDATE origin SET last_seq = ?, last_id = '' WHERE identity = ? AND last_seq < ?",
        (gap.through, gap.identity, gap.through),
    )


def losses(transaction: Transaction, since: int) -> list[Lost]:
    """Gaps that were found since then, newest first."""
    rows = transaction.all(
        "SELECT host, lost, again, gap_at FROM origin WHERE gap_at >= ? AND gap_through > 0 ORDER"
        " BY gap_at DESC, host",
        (since,),
    )
    return [Lost(row[0], *map(int, row[1:])) for row in rows]
