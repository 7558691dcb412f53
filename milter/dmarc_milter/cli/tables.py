"""Tables on standard output. Rich makes those that need its care: cells of several lines or with
letters beyond ASCII, tables wider than the screen, unusual terminals. All others are written here
in the same form: loading Rich and having it measure a table takes longer than asking the store.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence

from dmarc_milter.cli import terminal
from dmarc_milter.cli.terminal import COLUMN_STYLES, PIPE_WIDTH, Styled

CODES = {"": "", "bold": "1", "bold red": "1;31", "red": "31", "yellow": "33", "green": "32"}
"""Style -> parameters of ECMA-48 SGR."""
OF_RICH = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
"""Variables by which somebody asks for another form; Rich knows what they mean."""
RULE = "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
COLOURLESS = ("", "dumb", "unknown")
"""Of TERM."""


def print_table(
    columns: Mapping[str, str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> None:
    """`columns` are heading -> "left" or "right"; cells are text, never markup."""
    rows = list(rows)
    if (lines := _plain(columns, rows, title)) is not None:
        print("\n".join(lines))
        return
    terminal.console().print(terminal.table(columns, rows, title=title))


def _plain(
    columns: Mapping[str, str], rows: Sequence[Sequence[object]], title: str
) -> list[str] | None:
    """As Rich has it; None where that is needed."""
    table = [[*columns], *([str(cell) for cell in row] for row in rows)]
    simple = all(cell.isascii() and cell.isprintable() for line in table for cell in line)
    if not simple or not (title.isascii() and title.isprintable()) or _needs_rich():
        return None
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    across = sum(widths) + 3 * len(widths) - 1
    if across > _screen_width() or len(title) > across or not all(widths):
        return None
    right = [justify == "right" for justify in columns.values()]
    lines = [_line(table[0], ["bold"] * len(widths), widths, right)]
    for row, texts in zip(rows, table[1:], strict=True):
        styles = [_style(heading, cell) for heading, cell in zip(columns, row, strict=True)]
        lines.append(_line(texts, styles, widths, right))
    rule, edge = f" {RULE * (across - 2)} ", " " * across
    head = [_painted(title, "bold") + " " * (across - len(title))] if title else []
    return [*head, edge, lines[0], rule, *lines[1:], edge]


def _needs_rich() -> bool:
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return (
        encoding != "utf8"
        or any(name in os.environ for name in OF_RICH)
        or (terminal.on_terminal() and os.environ.get("TERM", "") in COLOURLESS)
    )


def _screen_width() -> int:
    return shutil.get_terminal_size().columns if terminal.on_terminal() else PIPE_WIDTH


def _style(heading: str, cell: object) -> str:
    if isinstance(cell, Styled):
        return cell.style
    return COLUMN_STYLES.get(heading, "") if str(cell) not in ("", "0") else ""


def _line(
    texts: Sequence[str], styles: Sequence[str], widths: Sequence[int], right: Sequence[bool]
) -> str:
    cells = []
    for text, style, width, to_right in zip(texts, styles, widths, right, strict=True):
        shown = text.rstrip() if to_right else text
        room, painted = " " * (width - len(shown)), _painted(shown, style)
        cells.append(room + painted if to_right else painted + room)
    return f" {'   '.join(cells)} "


def _painted(text: str, style: str) -> str:
    code = CODES[style] if terminal.on_terminal() else ""
    return f"\x1b[{code}m{text}\x1b[0m" if code and text else text
