"""Settings that an administrator gives the server, the database or the account change nothing of
what is counted, and a password that was changed is the next connection's."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.config import Config, load
from dmarc_milter.ledger import postgres
from dmarc_milter.ledger.connect import store_of
from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.spool.file import SpoolFile
from dmarc_milter.ledger.store import apply_batch
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.database import attempt, connect, fetch
from dmarc_milter.ledger.store.store import Store
from fakes.daemon import toml
from fakes.evaluations import evaluation
from fakes.stores import spool_row, upgraded
from live.postgres import Postgres

_numbers = count(1)
ENCODED = "TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING"
SETTINGS = {
    "no encoding, texts and dates as of old": (
        f"{ENCODED} SQL_ASCII",
        (
            "standard_conforming_strings = off",
            "backslash_quote = off",
            "bytea_output = 'escape'",
            "DateStyle = 'SQL, DMY'",
            "TimeZone = 'Pacific/Kiritimati'",
            "extra_float_digits = -15",
        ),
    ),
    "few letters, an account without an encoding, short patience": (
        f"{ENCODED} LATIN1",
        (
            "client_encoding = 'SQL_ASCII'",
            "statement_timeout = '50ms'",
            "idle_in_transaction_session_timeout = '100ms'",
        ),
    ),
    "Turkish letters, everything serializable": (
        "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'",
        ("default_transaction_isolation = 'serializable'",),
    ),
}


def account(server: Postgres, database: str = "", settings: tuple[str, ...] = ()) -> str:
    """The URL of a new account, with these settings, that owns a database."""
    name = f"settings_{next(_numbers)}"
    with psycopg.connect(server.url, autocommit=True) as administrator:
        administrator.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'one'".encode())
        administrator.execute(f"CREATE DATABASE {name} OWNER {name} {database}".encode())
        for setting in settings:
            administrator.execute(f"ALTER ROLE {name} SET {setting}".encode())
    return f"postgresql://{name}@127.0.0.1:{server.port}/{name}"


def configured(folder: Path, url: str, **store: Any) -> Path:
    tables = {"store": {"url": url, "spool": f"{folder}/spool.db"} | store}
    (folder / "c.toml").write_text(toml(tables))
    return folder / "c.toml"


@pytest.mark.parametrize("what", SETTINGS)
def test_what_is_counted_is_the_same(
    postgres_server: Postgres, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drain, questions and erasing, by the commands."""
    config = configured(tmp_path, account(postgres_server, *SETTINGS[what]))
    now = datetime.now(UTC)
    with closing(SpoolFile(tmp_path / "spool.db")) as spool:
        spool.write(
            [
                spool_row(evaluation(name, at=now, passed=passed), b"From: I\xc4\xb0\xff\r\n")
                for name in ("istanbul.example", "mail.istanbul.example", "x.example")
                for passed in (True, False)
            ]
        )

    def ask(*words: str) -> str:
        assert main([*words, "--config", str(config)]) == 0
        return capsys.readouterr().out

    ask("store", "upgrade")
    assert ask("store", "drain").startswith("6 messages")
    assert "istanbul.example" in ask("why", "--author", "ISTANBUL.example")
    assert '"due":3' in ask("store", "status", "--json")
    assert ask("store", "erase", "--domain", "ISTANBUL.example").startswith("erased: 4 decisions")
    with closing(store_of(load(config), Access.CHANGE)) as store:
        assert store.decisions.count() == 2


def test_a_batch_sees_what_was_erased_meanwhile_whatever_the_accounts_isolation(
    postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a snapshot of its beginning the tombstone would not be there yet."""
    settings = ("default_transaction_isolation = 'repeatable read'",)
    url = upgraded(account(postgres_server, "", settings))
    config, counted = configured(tmp_path, url), apply_batch.apply
    with closing(Store.open(url)) as store:
        store.apply(Batch("a", "mx1", [(1, spool_row(evaluation("legit.example")))]))
        asked = list[int]()

        def overtaken(transaction: Any, *arguments: Any) -> int:
            transaction.one("SELECT count(*) FROM tombstone")
            if not asked:
                words = ("store", "erase", "--domain", "private.example", "--config", str(config))
                asked.append(main(words))
            return counted(transaction, *arguments)

        monkeypatch.setattr(apply_batch, "apply", overtaken)
        late = [(1, spool_row(evaluation("private.example")))]
        assert store.apply(Batch("late", "mx2", late)) == 0
        assert asked == [0]
        assert store.decisions.count() == 1


class Changed:
    """A server that asks for this account's password, which is changed."""

    def __init__(self, server: Postgres, url: str) -> None:
        self._url, self._name = server.url, url.rpartition("/")[2]
        self._rules = server.folder / "data/pg_hba.conf"
        self._before = self._rules.read_text()
        rule = f"host {self._name} {self._name} 127.0.0.1/32 scram-sha-256\n"
        self._rules.write_text(rule + self._before)
        self.tell("SELECT pg_reload_conf()")

    def tell(self, sql: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as administrator:
            administrator.execute(sql.encode())

    def to(self, password: str) -> None:
        self.tell(f"ALTER ROLE {self._name} PASSWORD '{password}'")
        self.tell(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{self._name}'"
        )

    def close(self) -> None:
        self._rules.write_text(self._before)
        self.tell("SELECT pg_reload_conf()")


def test_a_password_that_was_changed_needs_no_restart(
    postgres_server: Postgres, tmp_path: Path
) -> None:
    """The file is read for each connection; one that cannot be read leaves the last one."""
    url, secret = account(postgres_server), tmp_path / "password"
    upgraded(url)
    secret.write_text("one\n")
    secret.chmod(0o600)
    config: Config = load(configured(tmp_path, url, password_file=str(secret)))
    spool = SpoolFile(tmp_path / "spool.db")

    def drained() -> str:
        spool.write([spool_row(evaluation())])
        return drain(spool, store).problem

    with (
        closing(Changed(postgres_server, url)) as password,
        closing(spool),
        closing(store_of(config, Access.OWN)) as store,
    ):
        assert drained() == ""
        password.to("two")
        assert "password authentication failed" in drained()
        secret.write_text("two\n")
        assert drained() == ""
        password.to("two")
        secret.unlink()
        assert drained() == ""
        assert store.decisions.count() == 4


def test_no_query_waits_for_the_compiler(postgres_server: Postgres) -> None:
    """Of a plan over many days it makes hundreds of functions: a second for what takes 50 ms."""
    url = account(postgres_server, settings=("jit_above_cost = 0", "jit = on"))
    with closing(connect(url, "one")) as database:
        plan = fetch(database, "EXPLAIN (ANALYZE) SELECT count(*) FROM pg_class")
    assert not any("JIT" in line for (line,) in plan)


def test_an_engine_without_a_compiler_is_asked_all_the_same(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "NO_COMPILER", "SET LOCAL no_such_setting = off")
    with closing(connect(account(postgres_server), "one")) as database:
        for _ in range(2):
            assert fetch(database, "SHOW lock_timeout") == [("3s",)]
            assert attempt(database, lambda transaction: transaction.run("SELECT 1")) == 1
