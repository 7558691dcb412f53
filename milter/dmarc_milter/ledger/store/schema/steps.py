"""What the steps of the shared store's schema do: the statements of each, oldest first.

Every statement may run again: an engine that cannot undo a step halfway goes on where it stopped.
All times are whole seconds since 1970 (UTC). Only what PostgreSQL, the distributed engines with its
protocol, and SQLite share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dmarc_milter.ledger.store.database import Transaction

COUNTING = (
    # Who has handed over what: a spool's identity and the last of its sequence numbers that is
    # counted here.
    (
        "CREATE TABLE IF NOT EXISTS origin (identity TEXT PRIMARY KEY, host TEXT NOT NULL,"
        " last_seq BIGINT NOT"
        " NULL, drained_at BIGINT NOT NULL)"
    ),
    # Rows of a spool that could not be read, kept for a person to look at.
    (
        "CREATE TABLE IF NOT EXISTS parked (id TEXT PRIMARY KEY, at BIGINT NOT NULL, reason TEXT"
        " NOT NULL, facts"
        " {blob} NOT NULL)"
    ),
    # The recent-decision log.
    (
        "CREATE TABLE IF NOT EXISTS decision (id TEXT PRIMARY KEY, at BIGINT NOT NULL, host TEXT"
        " NOT NULL,"
        " queue_id TEXT NOT NULL, message_id TEXT NOT NULL, author_domain TEXT NOT NULL,"
        " policy_domain TEXT NOT NULL, source_ip TEXT NOT NULL, status TEXT NOT NULL, disposition"
        " TEXT NOT NULL, would_be TEXT NOT NULL, facts {blob} NOT NULL)"
    ),
    "CREATE INDEX IF NOT EXISTS decision_at ON decision (at)",
    "CREATE INDEX IF NOT EXISTS decision_queue_id ON decision (queue_id)",
    "CREATE INDEX IF NOT EXISTS decision_message_id ON decision (message_id)",
    "CREATE INDEX IF NOT EXISTS decision_author_domain ON decision (author_domain, at)",
    "CREATE INDEX IF NOT EXISTS decision_source_ip ON decision (source_ip, at)",
    "CREATE INDEX IF NOT EXISTS decision_disposition ON decision (disposition, at)",
    # Totals that outlive the log.
    (
        "CREATE TABLE IF NOT EXISTS daily (day BIGINT NOT NULL, status TEXT NOT NULL, disposition"
        " TEXT NOT NULL,"
        " would_be TEXT NOT NULL, messages BIGINT NOT NULL, PRIMARY KEY (day, status, disposition,"
        " would_be)) {compact}"
    ),
    # Organizational domains that once passed here (report_domains = "known").
    "CREATE TABLE IF NOT EXISTS known_domain (domain TEXT PRIMARY KEY, last_at BIGINT NOT NULL)"
    " {compact}",
    # Distinct rows, or reports, counted against a cap; folded is what came after it.
    (
        "CREATE TABLE IF NOT EXISTS quota (scope TEXT NOT NULL, begin_at BIGINT NOT NULL, used"
        " BIGINT NOT NULL,"
        " folded BIGINT NOT NULL, PRIMARY KEY (scope, begin_at)) {compact}"
    ),
)
REPORTS = (
    # One policy domain, one policy configuration, one period; part 2 and on hold what came after
    # the report had been closed.
    (
        "CREATE TABLE IF NOT EXISTS report (id TEXT PRIMARY KEY, policy_domain TEXT NOT NULL,"
        " configuration TEXT"
        " NOT NULL, begin_at BIGINT NOT NULL, end_at BIGINT NOT NULL, part BIGINT NOT NULL,"
        " organizational_domain TEXT NOT NULL, published {blob} NOT NULL, state TEXT NOT NULL,"
        " messages BIGINT NOT NULL, loud BIGINT NOT NULL, rows_count BIGINT NOT NULL, folded BIGINT"
        " NOT NULL, note TEXT NOT NULL, next_at BIGINT NOT NULL, attempts BIGINT NOT NULL,"
        " lease_owner TEXT NOT NULL, lease_until BIGINT NOT NULL, closed_at BIGINT NOT NULL,"
        " done_at BIGINT NOT NULL, UNIQUE (policy_domain, configuration, begin_at, end_at, part))"
    ),
    "CREATE INDEX IF NOT EXISTS report_state ON report (state, next_at)",
    "CREATE INDEX IF NOT EXISTS report_begin ON report (begin_at)",
    (
        "CREATE TABLE IF NOT EXISTS report_row (report_id TEXT NOT NULL, row_key {blob} NOT NULL,"
        " messages BIGINT"
        " NOT NULL, facts {blob} NOT NULL, PRIMARY KEY (report_id, row_key)) {compact}"
    ),
    (
        "CREATE TABLE IF NOT EXISTS report_document (report_id TEXT NOT NULL, format TEXT NOT"
        " NULL, filename TEXT"
        " NOT NULL, content {blob} NOT NULL, PRIMARY KEY (report_id, format))"
    ),
    (
        "CREATE TABLE IF NOT EXISTS delivery (report_id TEXT NOT NULL, address TEXT NOT NULL,"
        " format TEXT NOT"
        " NULL, max_size BIGINT, state TEXT NOT NULL, attempts BIGINT NOT NULL, next_at BIGINT NOT"
        " NULL, last_reply TEXT NOT NULL, last_at BIGINT NOT NULL, lease_owner TEXT NOT NULL,"
        " lease_until BIGINT NOT NULL, PRIMARY KEY (report_id, address))"
    ),
    "CREATE INDEX IF NOT EXISTS delivery_state ON delivery (state, next_at)",
    "CREATE INDEX IF NOT EXISTS delivery_address ON delivery (address)",
    (
        "CREATE TABLE IF NOT EXISTS suppression (address TEXT PRIMARY KEY, at BIGINT NOT NULL,"
        " until_at BIGINT"
        " NOT NULL, reason TEXT NOT NULL, report_id TEXT NOT NULL)"
    ),
    "CREATE TABLE IF NOT EXISTS destination (domain TEXT PRIMARY KEY, first_at BIGINT NOT NULL)",
    (
        "CREATE TABLE IF NOT EXISTS spent (day BIGINT NOT NULL, scope TEXT NOT NULL, used BIGINT"
        " NOT NULL,"
        " PRIMARY KEY (day, scope)) {compact}"
    ),
    (
        "CREATE TABLE IF NOT EXISTS authorisation (policy_domain TEXT NOT NULL, destination TEXT"
        " NOT NULL, kind"
        " TEXT NOT NULL, outcome TEXT NOT NULL, addresses TEXT NOT NULL, expires_at BIGINT NOT"
        " NULL, PRIMARY KEY (policy_domain, destination, kind))"
    ),
    # Failure reports waiting, or merged into the one that waits (incidents).
    (
        "CREATE TABLE IF NOT EXISTS failure (id TEXT PRIMARY KEY, at BIGINT NOT NULL,"
        " policy_domain TEXT NOT"
        " NULL, state TEXT NOT NULL, incidents BIGINT NOT NULL, facts {blob} NOT NULL, sample"
        " {blob} NOT NULL, attempts BIGINT NOT NULL, next_at BIGINT NOT NULL, last_reply TEXT NOT"
        " NULL, lease_owner TEXT NOT NULL, lease_until BIGINT NOT NULL)"
    ),
    "CREATE INDEX IF NOT EXISTS failure_state ON failure (state, next_at)",
    "CREATE INDEX IF NOT EXISTS failure_policy_domain ON failure (policy_domain, at)",
)
IMPACT = (
    # What monitor mode would have done, for `impact`; nothing at all where policy is enforced.
    (
        "CREATE INDEX IF NOT EXISTS decision_would_be ON decision (would_be, at) WHERE would_be"
        " IN ('reject',"
        " 'quarantine')"
    ),
)
BOUNCES = (
    # What a delivery's envelope sender has that no other address of its report knows.
    "ALTER TABLE delivery ADD COLUMN {if_absent} tag TEXT NOT NULL DEFAULT ''",
)
DEFERRALS = (
    # Why a message waits and for which DNS name, and what monitor mode would have let wait; "" in
    # rows of older versions.
    "ALTER TABLE decision ADD COLUMN {if_absent} deferral TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE decision ADD COLUMN {if_absent} failing_name TEXT NOT NULL DEFAULT ''",
    (
        "CREATE INDEX IF NOT EXISTS decision_deferral ON decision (deferral, at) WHERE deferral"
        " IN ('dns',"
        " 'overloaded', 'failure')"
    ),
    "DROP INDEX IF EXISTS decision_would_be",
    (
        "CREATE INDEX IF NOT EXISTS decision_would_be ON decision (would_be, at) WHERE would_be"
        " IN ('reject',"
        " 'quarantine', 'tempfail')"
    ),
)
FAILURES = (
    # In which way the message of a failure report failed: only messages that failed in the same way
    # are its incidents. "" in rows of older versions.
    "ALTER TABLE failure ADD COLUMN {if_absent} alike TEXT NOT NULL DEFAULT ''",
)
LEASES = (
    # Work that one host does at a time: schema steps, expiry.
    (
        "CREATE TABLE IF NOT EXISTS lease (name TEXT PRIMARY KEY, owner TEXT NOT NULL, until_at"
        " BIGINT NOT NULL)"
    ),
)
DAYS = (
    *LEASES,
    # Messages that were counted and are not in the decision log: too old for it, or of a day that
    # has no partition and gets none.
    "ALTER TABLE origin ADD COLUMN {if_absent} unlogged BIGINT NOT NULL DEFAULT 0",
)
SUPPRESSIONS = (
    # An address that is left alone with reports about one policy domain.
    (
        "CREATE TABLE IF NOT EXISTS suppressed_pair (address TEXT NOT NULL, policy_domain TEXT NOT"
        " NULL, at BIGINT NOT NULL, until_at BIGINT NOT NULL, reason TEXT NOT NULL, report_id TEXT"
        " NOT NULL, PRIMARY KEY (address, policy_domain)) {compact}"
    ),
)
CLOCK = (
    # The last time that was believed, and since when another is doubted (0: none is).
    (
        "CREATE TABLE IF NOT EXISTS clock (only_row BIGINT PRIMARY KEY, seen_at BIGINT NOT NULL,"
        " doubted_from BIGINT NOT NULL, doubted_at BIGINT NOT NULL)"
    ),
)
GAPS = (
    # What a spool had handed over and the store has lost: messages lost for good and applied again,
    # when that was found last, and up to which sequence number.
    "ALTER TABLE origin ADD COLUMN {if_absent} lost BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE origin ADD COLUMN {if_absent} again BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE origin ADD COLUMN {if_absent} gap_at BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE origin ADD COLUMN {if_absent} gap_through BIGINT NOT NULL DEFAULT 0",
)
IDENTITIES = (
    # The secret under which report ids are made, and what has left already according to the hosts'
    # sent logs.
    ("CREATE TABLE IF NOT EXISTS installation (only_row BIGINT PRIMARY KEY, secret TEXT NOT NULL)"),
    (
        "CREATE TABLE IF NOT EXISTS handed_over (report_id TEXT NOT NULL, address TEXT NOT NULL,"
        " at BIGINT NOT NULL, PRIMARY KEY (report_id, address)) {compact}"
    ),
)
DAILY = COUNTING[9]
QUOTA = COUNTING[11]
ROWS = REPORTS[3]
HOSTS = (
    # Counters belong to the spool that counts (origin.number; 0: of older versions) and are summed
    # when they are read, so that no host ever waits for a row of another. A step that was
    # interrupted begins again: by then an old table may be gone, or the new one have its name.
    "ALTER TABLE origin ADD COLUMN {if_absent} number BIGINT NOT NULL DEFAULT 0",
    (
        "UPDATE origin SET number = (SELECT count(*) FROM origin other WHERE other.identity <="
        " origin.identity)"
    ),
    "CREATE UNIQUE INDEX IF NOT EXISTS origin_number ON origin (number)",
    DAILY,
    (
        "CREATE TABLE IF NOT EXISTS daily_of_spool (day BIGINT NOT NULL, origin BIGINT NOT NULL,"
        " status TEXT NOT NULL, disposition TEXT NOT NULL, would_be TEXT NOT NULL, messages BIGINT"
        " NOT NULL, PRIMARY KEY (day, origin, status, disposition, would_be)) {compact}"
    ),
    (
        "INSERT INTO daily_of_spool (day, origin, status, disposition, would_be, messages) SELECT"
        " day, 0, status, disposition, would_be, messages FROM daily WHERE true ON CONFLICT DO"
        " NOTHING"
    ),
    "DROP TABLE daily",
    "ALTER TABLE daily_of_spool RENAME TO daily",
    QUOTA,
    (
        "CREATE TABLE IF NOT EXISTS quota_of_spool (scope TEXT NOT NULL, begin_at BIGINT NOT NULL,"
        " origin BIGINT NOT NULL, used BIGINT NOT NULL, folded BIGINT NOT NULL, PRIMARY KEY (scope,"
        " begin_at, origin)) {compact}"
    ),
    (
        "INSERT INTO quota_of_spool (scope, begin_at, origin, used, folded) SELECT scope, begin_at,"
        " 0, used, folded FROM quota WHERE true ON CONFLICT DO NOTHING"
    ),
    "DROP TABLE quota",
    "ALTER TABLE quota_of_spool RENAME TO quota",
    ROWS,
    (
        "CREATE TABLE IF NOT EXISTS row_of_spool (report_id TEXT NOT NULL, row_key {blob} NOT NULL,"
        " origin BIGINT NOT NULL, messages BIGINT NOT NULL, facts {blob} NOT NULL, PRIMARY KEY"
        " (report_id, row_key, origin)) {compact}"
    ),
    (
        "INSERT INTO row_of_spool (report_id, row_key, origin, messages, facts) SELECT report_id,"
        " row_key, 0, messages, facts FROM report_row WHERE true ON CONFLICT DO NOTHING"
    ),
    "DROP TABLE report_row",
    "ALTER TABLE row_of_spool RENAME TO report_row",
    # Beside the numbers in the report itself, which are of older versions.
    (
        "CREATE TABLE IF NOT EXISTS report_count (report_id TEXT NOT NULL, origin BIGINT NOT NULL,"
        " messages BIGINT NOT NULL, loud BIGINT NOT NULL, rows_count BIGINT NOT NULL, folded BIGINT"
        " NOT NULL, PRIMARY KEY (report_id, origin)) {compact}"
    ),
    (
        "CREATE TABLE IF NOT EXISTS incident_count (failure_id TEXT NOT NULL, origin BIGINT NOT"
        " NULL, incidents BIGINT NOT NULL, PRIMARY KEY (failure_id, origin)) {compact}"
    ),
)

ROLLUPS = (
    # Messages by hour (span 3600) and by day (86400), one row for each host.
    (
        "CREATE TABLE IF NOT EXISTS rollup (span BIGINT NOT NULL, author_reversed TEXT {bytewise}"
        " NOT NULL, begin_at BIGINT NOT NULL, status TEXT NOT NULL, disposition TEXT NOT NULL,"
        " would_be TEXT NOT NULL, kind TEXT NOT NULL, host TEXT NOT NULL, messages BIGINT NOT NULL,"
        " PRIMARY KEY (span, author_reversed, begin_at, status, disposition, would_be, kind, host))"
        " {compact}"
    ),
    "CREATE INDEX IF NOT EXISTS rollup_begin ON rollup (begin_at)",
    # Author domains that a host has seen, letters reversed: what is below a domain stands together.
    (
        "CREATE TABLE IF NOT EXISTS author_name (reversed TEXT {bytewise} NOT NULL, host TEXT NOT"
        " NULL, name TEXT NOT NULL, last_at BIGINT NOT NULL, PRIMARY KEY (reversed, host))"
        " {compact}"
    ),
    # How many new ones the spool's host has been given rows for on its latest day.
    "ALTER TABLE origin ADD COLUMN {if_absent} names_day BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE origin ADD COLUMN {if_absent} names_used BIGINT NOT NULL DEFAULT 0",
    # What impact, the pages and the lists of mail that waits read is all in the index.
    "DROP INDEX IF EXISTS decision_author_domain",
    (
        "CREATE INDEX IF NOT EXISTS decision_author ON decision (author_domain, at, source_ip,"
        " status, disposition, would_be)"
    ),
    "CREATE INDEX IF NOT EXISTS decision_status ON decision (status, at)",
    (
        "CREATE INDEX IF NOT EXISTS decision_affected ON decision (author_domain, source_ip,"
        " status, disposition, would_be, at) WHERE disposition IN ('reject', 'quarantine',"
        " 'tempfail') OR would_be IN ('reject', 'quarantine', 'tempfail')"
    ),
    "DROP INDEX IF EXISTS decision_deferral",
    (
        "CREATE INDEX IF NOT EXISTS decision_waiting ON decision (author_domain, deferral,"
        " failing_name, message_id, disposition, at) WHERE deferral IN ('dns', 'overloaded',"
        " 'failure')"
    ),
)
ERASURES = (
    # What was erased, as a hash: nothing recorded before comes back.
    (
        "CREATE TABLE IF NOT EXISTS tombstone (kind TEXT NOT NULL, digest TEXT NOT NULL, at BIGINT"
        " NOT NULL, PRIMARY KEY (kind, digest)) {compact}"
    ),
)
REPORTERS = (
    # In whose name the report is: a reporting address, "" for the organization's own.
    "ALTER TABLE report ADD COLUMN {if_absent} identity TEXT NOT NULL DEFAULT ''",
)

ROLLUP_DAYS = (
    # Days stand between five times as many hours: what the pages read of them is all in the index.
    (
        "CREATE INDEX IF NOT EXISTS rollup_day ON rollup (author_reversed, begin_at, status,"
        " disposition, would_be, messages) WHERE span = 86400"
    ),
)

TOTALS = (
    # The sums get another name first: a drain of an older program, which would not write what is
    # made of them here, adds nothing from then on.
    "ALTER TABLE {if_there} rollup RENAME TO outcome_sum",
    # What all author domains are ranked by, in one row for each day and host; '' is of all hosts.
    (
        "CREATE TABLE IF NOT EXISTS author_day (day BIGINT NOT NULL, author_reversed TEXT"
        " {bytewise} NOT NULL, host TEXT NOT NULL, messages INTEGER NOT NULL, passed INTEGER NOT"
        " NULL, failed INTEGER NOT NULL, treated INTEGER NOT NULL, PRIMARY KEY"
        " (author_reversed, day, host)) {compact}"
    ),
    (
        "INSERT INTO author_day (day, author_reversed, host, messages, passed, failed, treated)"
        " SELECT begin_at, author_reversed, '', sum(messages), sum(CASE WHEN status = 'pass' THEN"
        " messages ELSE 0 END), sum(CASE WHEN status = 'fail' THEN messages ELSE 0 END), sum(CASE"
        " WHEN disposition IN ('quarantine', 'reject') OR would_be IN ('quarantine', 'reject') THEN"
        " messages ELSE 0 END) FROM outcome_sum WHERE span = 86400 GROUP BY begin_at,"
        " author_reversed ON CONFLICT DO NOTHING"
    ),
    # All messages of an hour; and of a day those that are not in the log any more (it was full, or
    # they were erased).
    (
        "CREATE TABLE IF NOT EXISTS hour_total (hour BIGINT NOT NULL, host TEXT NOT NULL, messages"
        " BIGINT NOT NULL, PRIMARY KEY (hour, host)) {compact}"
    ),
    "CREATE TABLE IF NOT EXISTS log_gone (day BIGINT PRIMARY KEY, messages BIGINT NOT NULL)",
    (
        "INSERT INTO hour_total (hour, host, messages) SELECT begin_at, host, sum(messages) FROM"
        " outcome_sum WHERE span = 3600 GROUP BY begin_at, host ON CONFLICT DO NOTHING"
    ),
    # What policy stopped or marked is a small part of all; in the words of AFFECTED.
    (
        "CREATE INDEX IF NOT EXISTS outcome_affected ON outcome_sum (span, begin_at,"
        " author_reversed, disposition, would_be, kind, messages) WHERE disposition IN ('reject',"
        " 'quarantine', 'tempfail') OR would_be IN ('reject', 'quarantine', 'tempfail')"
    ),
    # The same of the log, whose clients are asked for by time.
    (
        "CREATE INDEX IF NOT EXISTS decision_stopped ON decision (at, author_domain, source_ip,"
        " status, disposition, would_be) WHERE disposition IN ('reject', 'quarantine', 'tempfail')"
        " OR would_be IN ('reject', 'quarantine', 'tempfail')"
    ),
)


LAST_IDS = (
    # Which message the last number is of: two spools of one name are told apart by it. '' where
    # that is not known.
    "ALTER TABLE origin ADD COLUMN {if_absent} last_id TEXT NOT NULL DEFAULT ''",
)


class SchemaStep(NamedTuple):
    """`convert` runs after the statements, in a transaction of its own where the engine has one for
    each statement; it too may run again."""

    name: str
    statements: tuple[str, ...]
    convert: Callable[[Transaction], None] | None = None
