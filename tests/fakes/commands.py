"""`dmarc-milter ...` with a configuration of its own, and the spool as its workers would write."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from dmarc_milter.cli.main import main
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolRow, prepare
from fakes.stores import spool_row


class Answer(NamedTuple):
    """Of a command."""

    code: int
    out: str
    err: str


Ask = Callable[..., Answer]


def with_store(folder: Path) -> Path:
    """A configuration whose store, and so its spool, lies in the folder."""
    config = folder / "dmarc-milter.toml"
    config.write_text(f'[store]\nurl = "sqlite:///{folder}/reports.db"\n')
    config.chmod(0o640)
    return config


def asking(config: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(*words: str) -> Answer:
        code = main([*words, "--config", str(config)])
        return Answer(code, *capsys.readouterr())

    return ask


def record(folder: Path, evaluations: Iterable[Evaluation]) -> None:
    """Write them into the spool, as workers do, and nothing more."""
    write(folder / "spool.db", [spool_row(one) for one in evaluations])


def write(spool: Path, rows: list[SpoolRow]) -> None:
    prepare(spool)
    with closing(SpoolFile(spool)) as file:
        file.write(rows)
