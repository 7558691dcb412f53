"""`dmarc-milter config check | show | sample`."""

from __future__ import annotations

import argparse

from dmarc_milter.edge.cli import FINE, add_config
from dmarc_milter.edge.config import load
from dmarc_milter.edge.config.sample import sample, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True)
    for name, sentence in (
        ("check", "validate the file"),
        ("show", "print the effective configuration"),
        ("sample", "print a sample file"),
    ):
        command = what.add_parser(name, help=sentence)
        if name != "sample":
            add_config(command)


def run(arguments: argparse.Namespace) -> int:
    if arguments.what == "sample":
        print(sample(), end="")
        return FINE
    config = load(arguments.config)
    print(show(config) if arguments.what == "show" else f"{arguments.config}: fine", end="\n" if arguments.what == "check" else "")
    return FINE
