"""`dmarc-milter import FILE`: an opendmarc.conf as our configuration."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dmarc_milter.cli.main import EXIT_OK, EXIT_USAGE, add_config
from dmarc_milter.mta import opendmarc

MAX_BYTES = 20_000_000
"""Of any file that is read; the public suffix list has 0.3 million."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="e.g. /etc/opendmarc.conf")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write to this file instead of printing; it must not exist",
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        text = _read(arguments.file)
    except (OSError, ValueError) as error:
        print(
            f"dmarc-milter: {arguments.file}: cannot be read: {getattr(error, 'strerror', error)}",
            file=sys.stderr,
        )
        return EXIT_USAGE
    options = opendmarc.options(text)
    if not opendmarc.is_opendmarc(text):
        print(
            f"dmarc-milter: {arguments.file}: is no opendmarc.conf: it has no option of OpenDMARC,"
            " or those of another program",
            file=sys.stderr,
        )
        return EXIT_USAGE
    base = next((option.value for option in options if option.key == "basedirectory"), ".")
    translated = opendmarc.translate(
        text, str(arguments.file), lambda name: _text(Path(base, name))
    )
    if arguments.output is None:
        print(translated, end="")
        return EXIT_OK
    try:
        _write(arguments.output, translated)
    except OSError as error:
        print(
            f"dmarc-milter: {arguments.output}: cannot be written: {error.strerror}",
            file=sys.stderr,
        )
        return EXIT_USAGE
    print(
        f"{arguments.output}: written; read the notes at its end, then `dmarc-milter config check"
        f" --config {arguments.output}`"
    )
    return EXIT_OK


def _write(path: Path, text: str) -> None:
    """A new file, whole or not at all: half a file would stand in the way of the next try."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_BYTES).decode("utf-8", "replace")


def _text(path: Path) -> str | None:
    try:
        return _read(path)
    except (OSError, ValueError):
        return None
