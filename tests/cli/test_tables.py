"""Tables that Rich is not needed for look as if it had made them."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from dmarc_milter.cli import tables, terminal
from dmarc_milter.cli.tables import print_table
from dmarc_milter.cli.terminal import PIPE_WIDTH, coloured

CELLS = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    st.integers(0, 5000),
    st.sampled_from(["", "0", "reject", " x ", "two  words"]).map(coloured),
)
TABLES = st.dictionaries(
    st.text("abc def", min_size=1, max_size=12).filter(str.strip) | st.just("refused"),
    st.sampled_from(["left", "right"]),
    min_size=1,
    max_size=5,
).flatmap(
    lambda columns: st.tuples(
        st.just(columns),
        st.lists(st.lists(CELLS, min_size=len(columns), max_size=len(columns)), max_size=5),
        st.sampled_from(["", "A title"]),
    )
)


def of_rich(columns: dict[str, str], rows: Sequence[Sequence[object]], title: str) -> str:
    out = io.StringIO()
    console = Console(file=out, markup=False, emoji=False, highlight=False, width=PIPE_WIDTH)
    console.print(terminal.table(columns, rows, title=title))
    return out.getvalue()


class Output(io.StringIO):
    encoding = "utf-8"

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tables.OF_RICH:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def printed(
    columns: dict[str, str],
    rows: Sequence[Sequence[object]],
    title: str = "",
    *,
    output: Output | None = None,
) -> str:
    sys.stdout, before = output or Output(), sys.stdout
    try:
        print_table(columns, rows, title=title)
        return sys.stdout.getvalue()  # type: ignore[attr-defined,no-any-return]
    finally:
        sys.stdout = before


@given(TABLES)
def test_a_table_in_a_pipe_is_that_of_rich(
    table: tuple[dict[str, str], list[list[object]], str],
) -> None:
    assert printed(*table) == of_rich(*table)


@pytest.mark.parametrize(
    "cell", ["Zürich", "two\nlines", "\N{CJK UNIFIED IDEOGRAPH-4E2D}", "x" * 250]
)
def test_what_needs_care_is_left_to_rich(cell: str) -> None:
    columns = {"name": "left", "messages": "right"}
    assert printed(columns, [(cell, 5)]) == of_rich(columns, [(cell, 5)], "")


def test_on_a_terminal_outcomes_have_their_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(
        {"done": "left", "refused": "right", "deferred": "right"},
        [(coloured("reject"), 3, 0)],
        output=Output(terminal=True),
    )
    assert "\x1b[1mdone\x1b[0m" in text
    assert "\x1b[1;31mreject\x1b[0m" in text
    assert "      \x1b[31m3\x1b[0m" in text
    assert text.count("\x1b[33m") == 0  # nothing was deferred


@pytest.mark.parametrize(
    ("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("FORCE_COLOR", "1")]
)
def test_who_asks_for_another_form_gets_that_of_rich(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    text = printed({"done": "left"}, [(coloured("reject"),)], output=Output(terminal=True))
    assert ("31mreject" in text) == (name == "FORCE_COLOR")


def test_a_terminal_too_narrow_gets_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = printed(
        {"From": "left", "messages": "right"},
        [("a-long-name.of-a-domain.example" * 2, 5)],
        output=Output(terminal=True),
    )
    assert "messages 5" in text
