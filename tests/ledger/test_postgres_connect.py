"""A connection to PostgreSQL within a bounded time, on a host at its limits too."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dmarc_milter.ledger.postgres_connect import cut_after


def test_where_no_thread_can_be_had_there_is_no_bound_and_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that lives is not taken for a dead one, and the start does not end by it."""

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    connection: Any = None
    done = []
    with cut_after(5, connection):
        done.append(True)
    assert done
