"""A look at a shared store when the daemon starts, so that one that is away is said at once and not
when the first drain fails."""

from __future__ import annotations

from typing import Any

from dmarc_milter.config import Config, ConfigError
from dmarc_milter.config.secrets import store_password
from dmarc_milter.ledger.errors import without_sql
from dmarc_milter.ledger.postgres_connect import cut_after
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.ledger.store.schema import STEPS

SECONDS = 2
"""For the connection, and for the question: mail waits for the start."""


def problem(config: Config) -> str:
    """What is wrong with a PostgreSQL store, in one line without secrets, or "". Never raises."""
    name = connect(config.store.url).name
    try:
        import psycopg
    except ImportError as error:
        return f"{name}: PostgreSQL needs the Python library psycopg ({error})"
    password = ""
    try:
        password = store_password(config)
        secret: dict[str, Any] = {"password": password} if password else {}
        with (
            psycopg.connect(config.store.url, connect_timeout=SECONDS, **secret) as connection,
            cut_after(2 * SECONDS, connection),
            connection.transaction(),
        ):
            connection.execute(f"SET LOCAL statement_timeout = {SECONDS * 1000}")
            row = connection.execute("SELECT coalesce(max(number), 0) FROM schema_step").fetchone()
    except psycopg.errors.UndefinedTable:
        row = (0,)
    except (psycopg.Error, ConfigError) as error:
        text = without_sql(error)
        return f"{name}: {text.replace(password, '***') if password else text}"
    found = int(row[0]) if row else 0
    if found == len(STEPS):
        return ""
    remedy = "run `dmarc-milter store upgrade`" if found < len(STEPS) else "run the newer program"
    return f"{name}: schema {found}, this program needs {len(STEPS)}: {remedy}"
