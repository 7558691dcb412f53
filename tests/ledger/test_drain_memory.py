"""The following drain runs for months: its memory reaches a plateau."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from dmarc_milter.ledger.dialect import translate
from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.spool.file import SpoolFile
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import evaluation
from fakes.frozen_host import forked
from fakes.soak import LONG
from fakes.stores import fresh_schema, spool_row, upgraded
from live.postgres import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(1800)]
ROUNDS = 2000 if LONG else 90
ROOM = 8 << 20
"""Bytes that it may still grow after the first third. Texts of statements, one for each size of a
list, were once remembered without a bound."""


def memory() -> int:
    """Bytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def stays_the_same(url: str, path: Path) -> bool:
    """Batches of every size, of ever new sources."""
    dice, store, spool = Random(1), Store(connect(url)), SpoolFile(path)
    first = 0
    for number in range(ROUNDS):
        spool.write(
            [
                spool_row(evaluation(f"d{n % 9}.example", source_ip=f"10.{number % 250}.0.{n}"))
                for n in range(dice.randrange(1, 120))
            ]
        )
        assert drain(spool, store).problem == ""
        if number == ROUNDS // 3:
            first = memory()
    print(f"{first >> 20} MB, then {memory() >> 20} MB")
    return memory() - first < ROOM


def test_the_drain_does_not_grow(postgres_server: Postgres, tmp_path: Path) -> None:
    url = upgraded(fresh_schema(postgres_server))
    child = forked(lambda: stays_the_same(url, tmp_path / "spool.db"))
    assert os.waitpid(child, 0)[1] == 0
    assert translate.cache_info().maxsize is not None
