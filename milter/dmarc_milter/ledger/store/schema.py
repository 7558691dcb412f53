"""The shared store's tables, as steps that are applied once each, every step in one transaction
with the note of it.

All times are whole seconds since 1970 (UTC). Only what PostgreSQL, the distributed engines with its
protocol, and SQLite share.
"""

from __future__ import annotations

import time
from functools import partial

from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.database import Database, Transaction, attempt

COUNTING = (
    # Who has handed over what: a spool's identity and the last of its sequence numbers that is
    # counted here.
    (
        "CREATE TABLE origin (identity TEXT PRIMARY KEY, host TEXT NOT NULL, last_seq BIGINT NOT"
        " NULL, drained_at BIGINT NOT NULL)"
    ),
    # Rows of a spool that could not be read, kept for a person to look at.
    (
        "CREATE TABLE parked (id TEXT PRIMARY KEY, at BIGINT NOT NULL, reason TEXT NOT NULL, facts"
        " {blob} NOT NULL)"
    ),
    # The recent-decision log.
    (
        "CREATE TABLE decision (id TEXT PRIMARY KEY, at BIGINT NOT NULL, host TEXT NOT NULL,"
        " queue_id TEXT NOT NULL, message_id TEXT NOT NULL, author_domain TEXT NOT NULL,"
        " policy_domain TEXT NOT NULL, source_ip TEXT NOT NULL, status TEXT NOT NULL, disposition"
        " TEXT NOT NULL, would_be TEXT NOT NULL, facts {blob} NOT NULL)"
    ),
    "CREATE INDEX decision_at ON decision (at)",
    "CREATE INDEX decision_queue_id ON decision (queue_id)",
    "CREATE INDEX decision_message_id ON decision (message_id)",
    "CREATE INDEX decision_author_domain ON decision (author_domain, at)",
    "CREATE INDEX decision_source_ip ON decision (source_ip, at)",
    "CREATE INDEX decision_disposition ON decision (disposition, at)",
    # Totals that outlive the log.
    (
        "CREATE TABLE daily (day BIGINT NOT NULL, status TEXT NOT NULL, disposition TEXT NOT NULL,"
        " would_be TEXT NOT NULL, messages BIGINT NOT NULL, PRIMARY KEY (day, status, disposition,"
        " would_be)) {compact}"
    ),
    # Organizational domains that once passed here (report_domains = "known").
    "CREATE TABLE known_domain (domain TEXT PRIMARY KEY, last_at BIGINT NOT NULL) {compact}",
    # Distinct rows, or reports, counted against a cap; folded is what came after it.
    (
        "CREATE TABLE quota (scope TEXT NOT NULL, begin_at BIGINT NOT NULL, used BIGINT NOT NULL,"
        " folded BIGINT NOT NULL, PRIMARY KEY (scope, begin_at)) {compact}"
    ),
)
REPORTS = (
    # One policy domain, one policy configuration, one period; part 2 and on hold what came after
    # the report had been closed.
    (
        "CREATE TABLE report (id TEXT PRIMARY KEY, policy_domain TEXT NOT NULL, configuration TEXT"
        " NOT NULL, begin_at BIGINT NOT NULL, end_at BIGINT NOT NULL, part BIGINT NOT NULL,"
        " organizational_domain TEXT NOT NULL, published {blob} NOT NULL, state TEXT NOT NULL,"
        " messages BIGINT NOT NULL, loud BIGINT NOT NULL, rows_count BIGINT NOT NULL, folded BIGINT"
        " NOT NULL, note TEXT NOT NULL, next_at BIGINT NOT NULL, attempts BIGINT NOT NULL,"
        " lease_owner TEXT NOT NULL, lease_until BIGINT NOT NULL, closed_at BIGINT NOT NULL,"
        " done_at BIGINT NOT NULL, UNIQUE (policy_domain, configuration, begin_at, end_at, part))"
    ),
    "CREATE INDEX report_state ON report (state, next_at)",
    "CREATE INDEX report_begin ON report (begin_at)",
    (
        "CREATE TABLE report_row (report_id TEXT NOT NULL, row_key {blob} NOT NULL, messages BIGINT"
        " NOT NULL, facts {blob} NOT NULL, PRIMARY KEY (report_id, row_key)) {compact}"
    ),
    (
        "CREATE TABLE report_document (report_id TEXT NOT NULL, format TEXT NOT NULL, filename TEXT"
        " NOT NULL, content {blob} NOT NULL, PRIMARY KEY (report_id, format))"
    ),
    (
        "CREATE TABLE delivery (report_id TEXT NOT NULL, address TEXT NOT NULL, format TEXT NOT"
        " NULL, max_size BIGINT, state TEXT NOT NULL, attempts BIGINT NOT NULL, next_at BIGINT NOT"
        " NULL, last_reply TEXT NOT NULL, last_at BIGINT NOT NULL, lease_owner TEXT NOT NULL,"
        " lease_until BIGINT NOT NULL, PRIMARY KEY (report_id, address))"
    ),
    "CREATE INDEX delivery_state ON delivery (state, next_at)",
    "CREATE INDEX delivery_address ON delivery (address)",
    (
        "CREATE TABLE suppression (address TEXT PRIMARY KEY, at BIGINT NOT NULL, until_at BIGINT"
        " NOT NULL, reason TEXT NOT NULL, report_id TEXT NOT NULL)"
    ),
    "CREATE TABLE destination (domain TEXT PRIMARY KEY, first_at BIGINT NOT NULL)",
    (
        "CREATE TABLE spent (day BIGINT NOT NULL, scope TEXT NOT NULL, used BIGINT NOT NULL,"
        " PRIMARY KEY (day, scope)) {compact}"
    ),
    (
        "CREATE TABLE authorisation (policy_domain TEXT NOT NULL, destination TEXT NOT NULL, kind"
        " TEXT NOT NULL, outcome TEXT NOT NULL, addresses TEXT NOT NULL, expires_at BIGINT NOT"
        " NULL, PRIMARY KEY (policy_domain, destination, kind))"
    ),
    # Failure reports waiting, or merged into the one that waits (incidents).
    (
        "CREATE TABLE failure (id TEXT PRIMARY KEY, at BIGINT NOT NULL, policy_domain TEXT NOT"
        " NULL, state TEXT NOT NULL, incidents BIGINT NOT NULL, facts {blob} NOT NULL, sample"
        " {blob} NOT NULL, attempts BIGINT NOT NULL, next_at BIGINT NOT NULL, last_reply TEXT NOT"
        " NULL, lease_owner TEXT NOT NULL, lease_until BIGINT NOT NULL)"
    ),
    "CREATE INDEX failure_state ON failure (state, next_at)",
    "CREATE INDEX failure_policy_domain ON failure (policy_domain, at)",
)
IMPACT = (
    # What monitor mode would have done, for `impact`; nothing at all where policy is enforced.
    (
        "CREATE INDEX decision_would_be ON decision (would_be, at) WHERE would_be IN ('reject',"
        " 'quarantine')"
    ),
)
BOUNCES = (
    # What a delivery's envelope sender has that no other address of its report knows.
    "ALTER TABLE delivery ADD COLUMN tag TEXT NOT NULL DEFAULT ''",
)
DEFERRALS = (
    # Why a message waits and for which DNS name, and what monitor mode would have let wait; "" in
    # rows of older versions.
    "ALTER TABLE decision ADD COLUMN deferral TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE decision ADD COLUMN failing_name TEXT NOT NULL DEFAULT ''",
    (
        "CREATE INDEX decision_deferral ON decision (deferral, at) WHERE deferral IN ('dns',"
        " 'overloaded', 'failure')"
    ),
    "DROP INDEX decision_would_be",
    (
        "CREATE INDEX decision_would_be ON decision (would_be, at) WHERE would_be IN ('reject',"
        " 'quarantine', 'tempfail')"
    ),
)
FAILURES = (
    # In which way the message of a failure report failed: only messages that failed in the same way
    # are its incidents. "" in rows of older versions.
    "ALTER TABLE failure ADD COLUMN alike TEXT NOT NULL DEFAULT ''",
)
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("counting", COUNTING),
    ("reports", REPORTS),
    ("impact", IMPACT),
    ("bounces", BOUNCES),
    ("deferrals", DEFERRALS),
    ("failures", FAILURES),
)
"""(name, statements). Steps are only ever added; what a released version has applied is never
changed."""


def version(database: Database) -> int:
    """The number of steps that the store has seen; 0 for an empty one. Raises StoreError."""
    with database.transaction(write=False) as transaction:
        return _applied(transaction, database.dialect)


def _has_list(transaction: Transaction, dialect: str) -> bool:
    catalogue = (
        "SELECT count(*) FROM sqlite_master WHERE name = 'schema_step'"
        if dialect == "sqlite"
        else (
            "SELECT count(*) FROM information_schema.tables WHERE table_name = 'schema_step' AND"
            " table_schema = current_schema()"
        )
    )
    return transaction.one(catalogue) != (0,)


def _applied(transaction: Transaction, dialect: str) -> int:
    if not _has_list(transaction, dialect):
        return 0
    row = transaction.one("SELECT coalesce(max(number), 0) FROM schema_step")
    return int(row[0]) if row else 0


def check(database: Database) -> None:
    """Raises StoreError ("older" or "newer") unless the store has exactly this program's schema."""
    found = version(database)
    if found < len(STEPS):
        raise StoreError(
            "older",
            f"{database.name}: schema {found}, this program needs {len(STEPS)}: run `dmarc-milter"
            " store upgrade`",
        )
    if found > len(STEPS):
        raise StoreError(
            "newer",
            f"{database.name}: schema {found}, this program knows {len(STEPS)}: run the newer"
            " program everywhere",
        )


def upgrade(database: Database) -> list[str]:
    """Apply the steps that are missing; their names. Several hosts may try at once. Raises
    StoreError, also for a newer schema."""
    applied: list[str] = []
    if version(database) == 0:  # whoever only asks must not wait for a writer
        _make_list(database)
    while (found := version(database)) < len(STEPS):
        if attempt(database, partial(_step, number=found)):
            applied.append(STEPS[found][0])
    check(database)
    return applied


def _make_list(database: Database) -> None:
    """The list of steps. Of two hosts at once PostgreSQL may tell the second that it exists, `IF
    NOT EXISTS` or not."""
    sql = (
        "CREATE TABLE IF NOT EXISTS schema_step (number BIGINT PRIMARY KEY, name TEXT NOT NULL,"
        " applied_at BIGINT NOT NULL)"
    )
    try:
        attempt(database, lambda transaction: transaction.run(sql))
    except StoreError:
        with database.transaction(write=False) as transaction:
            if not _has_list(transaction, database.dialect):
                raise


def _step(transaction: Transaction, number: int) -> bool:
    """Step `number` and the note of it. The note comes first: of two hosts the second waits for the
    first, and then has nothing to do."""
    name, statements = STEPS[number]
    note = (
        "INSERT INTO schema_step (number, name, applied_at) VALUES (?, ?, ?) ON CONFLICT (number)"
        " DO NOTHING"
    )
    if transaction.run(note, (number + 1, name, int(time.time()))) == 0:
        return False
    for statement in statements:
        transaction.run(statement)
    return True
