"""Reports after the store was put back to an earlier state: the hosts tell it what has left
already, before anything leaves again."""

from __future__ import annotations

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.sent_log import HandedOver, SentLog, read
from dmarc_milter.ledger.store.handed_over import SETTLING
from dmarc_milter.ledger.store.store import Store

RECENT = 10 * DAY
"""Seconds for which a run looks back in its host's sent log: longer than a report is tried."""


def tell_what_was_sent(store: Store, log: SentLog, *, wait: bool) -> None:
    """Tell the store what this host has sent and it has forgotten. Raises StoreError: with `wait`
    also while other hosts may not have done so after a loss."""
    now = int(store.clock())
    log.shorten(now)
    store.handed_over.tell([line for line in sent(log) if line.at >= now - RECENT])
    lost_at, hosts = store.handed_over.last_loss()
    if wait and hosts > 1 and 0 <= now - lost_at < SETTLING:
        raise StoreError(
            "locked",
            f"{store.database.name}: has lost messages a moment ago (a restored backup, a"
            " failover): no report leaves within an hour, in which every host tells what it has"
            " sent; `report send --now` does not wait",
        )


def sent(log: SentLog) -> list[HandedOver]:
    """What a host has sent, oldest first. Raises StoreError where that cannot be read: what was
    sent is not known then, and nothing is to leave."""
    try:
        return read(log.path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError("refused", f"{log.path}: {error.strerror}") from None
