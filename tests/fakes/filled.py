"""A decision log filled by SQL: many rows in little time, none through the drain."""

from __future__ import annotations

from dmarc_milter.ledger.store.database import Database, attempt

NUMBERS = {
    "sqlite": (
        "WITH RECURSIVE t (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t WHERE n < ? - 1) SELECT"
    ),
    "postgresql": "WITH t AS (SELECT generate_series(0, CAST(? AS BIGINT) - 1) AS n) SELECT",
}


def fill_log(database: Database, number: int, first_at: int, last_at: int) -> None:
    """So many decisions, evenly from `first_at` to `last_at` (seconds since 1970); partitions must
    be there. The facts are no facts: these rows are counted, not read."""
    hexadecimal = (
        "printf('%032x', n)" if database.dialect == "sqlite" else "lpad(to_hex(n), 32, '0')"
    )

    def cycle(length: int) -> str:
        return f"(n - n / {length} * {length})"  # `%` is not for psycopg

    author = f"'d' || {cycle(1000)} || '.example'"
    columns = (
        hexadecimal,
        f"{first_at} + n * {last_at - first_at} / {number}",
        *("'mx1'", "'Q' || n", "n || '@x'", author, author, f"'192.0.2.' || {cycle(200)}"),
        *("'fail'", "'reject'", "''", "''", "''", "'x'"),
    )
    sql = (
        "INSERT INTO decision (id, at, host, queue_id, message_id, author_domain, policy_domain,"
        " source_ip, status, disposition, would_be, deferral, failing_name, facts) "
        f"{NUMBERS[database.dialect]} {', '.join(columns)} FROM t"
    )
    attempt(database, lambda transaction: transaction.run(sql, (number,)))
