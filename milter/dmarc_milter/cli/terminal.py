"""What every command shares towards the person or program that reads it: tables, sentences, JSON,
and a store that cannot be had."""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dmarc_milter.cli.main import EXIT_NO, EXIT_TEMPFAIL
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.ledger.errors import StoreError

if TYPE_CHECKING:  # rich is loaded where something is printed: the jobs of the daemon print nothing
    from rich.console import Console, RenderableType
    from rich.text import Text

PIPE_WIDTH = 200
"""Columns where standard output is no terminal, so that nothing is cut."""
PROSE = 24
"""Columns that a sentence needs at least to be read."""
OTHERS = "; run this as the service's account"
STATUS = "; `dmarc-milter store status` says what to do"
"""Where the store cannot be opened: for an account that may not, and for root."""
GLUE = "\N{NO-BREAK SPACE}"
STYLES = {
    **dict.fromkeys(("reject", "refused"), "bold red"),
    "would be refused": "red",
    "fail": "red",
    "permerror": "red",
    **dict.fromkeys(("quarantine", "quarantined", "would be quarantined"), "yellow"),
    **dict.fromkeys(("tempfail", "deferred", "would be deferred"), "yellow"),
    "temperror": "yellow",
    "pass": "green",
    "error": "bold red",
    "warning": "yellow",
    "warn": "yellow",
    "ok": "green",
}
COLUMN_STYLES = {
    **dict.fromkeys(("refused", "would refuse", "dmarc=fail"), "red"),
    **dict.fromkeys(("quarantined", "would quarantine", "deferred", "would defer"), "yellow"),
    "dmarc=temperror": "yellow",
}
"""Of numbers that are not 0, by their heading."""


def on_terminal() -> bool:
    """Whether somebody looks at standard output, and not a program."""
    return sys.stdout.isatty()


def console() -> Console:
    """Standard output. Markup, emoji and highlighting are off: what is printed may come from a
    sender."""
    from rich.console import Console

    width = None if on_terminal() else PIPE_WIDTH
    return Console(markup=False, emoji=False, highlight=False, width=width)


def styled(word: str) -> Text:
    """A status or disposition in its colour."""
    from rich.text import Text

    return Text(word, STYLES.get(word, ""))


class Styled(str):
    """The text of a cell, and how it looks on a terminal."""

    style = ""


def coloured(word: str) -> Styled:
    """The same for a cell."""
    cell = Styled(word)
    cell.style = STYLES.get(word, "")
    return cell


def table(
    columns: Mapping[str, str], rows: Iterable[Sequence[object]], *, title: str = ""
) -> RenderableType:
    """`columns` are heading -> "left" or "right"; cells are str or Text, never markup. A terminal
    too narrow for it gets a list."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    screen = console()
    if on_terminal() and _least_width(columns, rows) > screen.width:
        words = [heading for heading, justify in columns.items() if justify == "left"]
        head = [title] * bool(title) + [", ".join(words) + ":"] * (len(words) > 1)
        return Text("\n".join([*head, *_lines(columns, rows, screen.width)]), overflow="fold")
    made = Table(
        box=SIMPLE_HEAD,
        title=Text(title, "bold") if title else None,
        title_justify="left",
        pad_edge=False,
    )
    for heading, justify in columns.items():
        made.add_column(
            Text(heading), justify="right" if justify == "right" else "left", overflow="fold"
        )
    for row in rows:
        made.add_row(*map(_cell, columns, row))
    return made


def _cell(heading: str, cell: object) -> Text:
    from rich.text import Text

    if isinstance(cell, Text):
        return cell
    if isinstance(cell, Styled):
        return Text(cell, cell.style)
    counted = str(cell) not in ("", "0")
    return Text(str(cell), COLUMN_STYLES.get(heading, "") if counted else "")


def _least_width(columns: Mapping[str, str], rows: Sequence[Sequence[object]]) -> int:
    """In columns: below it a queue id or a number would be broken over lines. Only the last column,
    when it is prose, may wrap."""
    from rich.cells import cell_len

    widths = [
        max(cell_len(str(cell)) for cell in cells) for cells in zip(columns, *rows, strict=True)
    ]
    if [*columns.values()][-1] == "left":
        widths[-1] = min(widths[-1], PROSE)
    return sum(widths) + 3 * len(widths)


def _lines(columns: Mapping[str, str], rows: Iterable[Sequence[object]], width: int) -> list[str]:
    """A row as running text, indented from its second line on: text as it is, numbers that are not
    0 with their heading."""
    made = []
    for row in rows:
        cells = (
            (heading, justify, str(cell))
            for (heading, justify), cell in zip(columns.items(), row, strict=True)
        )
        said = (
            f"{heading} {cell}".replace(" ", GLUE) if justify == "right" else cell
            for heading, justify, cell in cells
            if cell not in ("", "0")
        )
        text = "  ".join(said)
        made += textwrap.wrap(
            text,
            max(width, 20),
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return [line.replace(GLUE, " ") for line in made]


def plain(value: object) -> Any:
    """Structs, tuples and mappings as JSON has them, every field there whatever its value."""
    if isinstance(value, msgspec.Struct):
        return {
            field.name: plain(getattr(value, field.name)) for field in msgspec.structs.fields(value)
        }
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def print_json(document: object) -> None:
    """One JSON document on standard output."""
    print(msgspec.json.format(msgspec.json.encode(plain(document)), indent=2).decode())


def unavailable(error: StoreError) -> int:
    """Say why the store cannot be asked; the exit code."""
    from dmarc_milter.telemetry.log import complain

    hint = ""
    if error.kind in ("read_only", "denied"):
        hint = STATUS
    elif error.kind == "refused":
        hint = OTHERS if os.geteuid() else STATUS
    complain(f"{error}{hint}")
    stays = error.kind in (
        "older", "newer", "refused", "absent", "exists", "copy", "read_only", "denied"
    )  # fmt: skip
    return EXIT_NO if stays else EXIT_TEMPFAIL


AROUND = re.compile(
    r"^<?(?:[A-Za-z][A-Za-z0-9+.-]{0,20}:(?://)?)?(?:[^@/]{1,300}@)?(?=[^:/]*\.)|(?::[0-9]{1,5})?(?:[/?#].*)?>?$"
)
"""What stands around the domain in <USER@DOMAIN>, mailto:USER@DOMAIN, https://DOMAIN:PORT/PATH."""


DOTS = dict.fromkeys(map(ord, "\u3002\uff0e\uff61"), ".")


def domain_argument(text: str) -> Domain:
    """The domain that somebody typed: letters may be composed of several characters, and dots may
    be those of other scripts (RFC 5895 2). Raises argparse.ArgumentTypeError."""
    found = domain.parse(unicodedata.normalize("NFC", text.strip()).translate(DOTS))
    if not isinstance(found, Domain):
        raise argparse.ArgumentTypeError(f"{text!r} is not a domain name: {found.reason}")
    return found


def domain_of(text: str) -> Domain:
    """The domain that somebody typed, or that of the mail address or URL. Raises
    argparse.ArgumentTypeError."""
    return domain_argument(AROUND.sub("", text.strip()))
