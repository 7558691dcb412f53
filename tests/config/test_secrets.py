"""Where spool and store lie, and commands that see everything this host has answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmarc_milter.config import Config, ConfigError, parse
from dmarc_milter.config.paths import spool_path
from dmarc_milter.config.secrets import store_password
from dmarc_milter.ledger.connect import drained_store, spool_of
from dmarc_milter.ledger.ownership import Access
from fakes.evaluations import evaluation
from fakes.stores import spool_row


def config(text: str) -> Config:
    return parse(f"[store]\n{text}\n")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "/var/lib/dmarc-milter/spool.db"),
        ('url = "sqlite:////srv/mail/reports.db"', "/srv/mail/spool.db"),
        ('url = "postgresql://u@h/d"', "/var/lib/dmarc-milter/spool.db"),
        ('url = "postgresql://u@h/d"\nspool = "/srv/spool.db"', "/srv/spool.db"),
    ],
)
def test_the_spool_is_local_whatever_the_store(text: str, path: str) -> None:
    assert spool_path(config(text)) == Path(path)


def test_the_password_comes_from_a_file_or_from_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[store] password_file; $CREDENTIALS_DIRECTORY/store-password is tried too."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert store_password(config("")) == ""
    (tmp_path / "store-password").write_text("from systemd\n")
    (tmp_path / "file").write_text("from the file\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert store_password(config("")) == "from systemd"
    assert store_password(config(f'password_file = "{tmp_path}/file"')) == "from the file"
    with pytest.raises(ConfigError, match="cannot be read"):
        store_password(config(f'password_file = "{tmp_path}/missing"'))


def test_commands_see_what_was_answered_a_moment_ago(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`why QUEUE-ID` directly after the message, whether or not a drain runs; and where it cannot
    drain, it says so."""
    made = config(f'url = "sqlite:///{tmp_path}/reports.db"')
    store = drained_store(made)
    assert store.decisions.count() == 0
    assert not spool_path(made).exists(), "looking makes no spool"
    store.close()
    spool = spool_of(made, Access.OWN)
    spool.write([spool_row(evaluation(queue_id="4QX"))])
    spool.close()
    store = drained_store(made)
    assert len(store.decisions.find("4QX")) == 1
    store.close()
    assert capsys.readouterr().err == ""
    spool_path(made).unlink()
    spool_path(made).mkdir()
    drained_store(made).close()
    assert "the latest messages are not in this answer" in capsys.readouterr().err
