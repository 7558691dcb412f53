"""`dmarc-milter import FILE`: an opendmarc.conf as our configuration."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dmarc_milter.cli.main import FINE, USAGE
from dmarc_milter.mta import opendmarc

MAX_BYTES = 20_000_000
"""Of any file that is read; the public suffix list has 0.3 million."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="e.g. /etc/opendmarc.conf")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write there instead of printing; it must not exist",
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        text = _read(arguments.file)
    except (OSError, ValueError) as error:
        print(
            f"dmarc-milter: {arguments.file}: cannot be read: {getattr(error, 'strerror', error)}",
            file=sys.stderr,
        )
        return USAGE
    base = next(
        (each.value for each in opendmarc.options(text) if each.key == "basedirectory"), "."
    )

    def read(name: str) -> str | None:
        return _text(Path(base, name))

    made = opendmarc.translate(text, str(arguments.file), read)
    if arguments.output is None:
        print(made, end="")
        return FINE
    try:
        number = os.open(arguments.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(made)
        except OSError:
            arguments.output.unlink(
                missing_ok=True
            )  # half a file would stand in the way of the next try
            raise
    except OSError as error:
        print(
            f"dmarc-milter: {arguments.output}: cannot be written: {error.strerror}",
            file=sys.stderr,
        )
        return USAGE
    print(
        f"{arguments.output}: written; read the notes at its end, then `dmarc-milter config check"
        f" --config {arguments.output}`"
    )
    return FINE


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_BYTES).decode("utf-8", "replace")


def _text(path: Path) -> str | None:
    try:
        return _read(path)
    except (OSError, ValueError):
        return None
