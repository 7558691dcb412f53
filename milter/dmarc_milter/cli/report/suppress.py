"""`dmarc-milter report suppress | allow`: addresses and domains that get no reports."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing

from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, EXIT_USAGE
from dmarc_milter.cli.terminal import print_json
from dmarc_milter.cli.times import parse_end, shown
from dmarc_milter.config import Config
from dmarc_milter.config.checks import destination
from dmarc_milter.core.text import printable
from dmarc_milter.ledger.connect import store_of
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.store.destinations import ALWAYS

MAX_WHY = 200


def add_arguments(name: str, command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "address",
        metavar="ADDRESS|DOMAIN",
        help="as `report list` shows it below the reports; a domain stands for all at or below it",
    )
    if name == "suppress":
        command.add_argument(
            "--until",
            type=parse_end,
            default=ALWAYS,
            metavar="WHEN",
            help="a date, or how long: 30d (default: until `report allow`)",
        )
        command.add_argument("--why", default="", metavar="TEXT", help="a note for whoever asks")


def suppress(config: Config, arguments: argparse.Namespace) -> int:
    target = _target(arguments.address)
    if target is None:
        return EXIT_USAGE
    why = printable(" ".join(arguments.why.split()), MAX_WHY) or "by the administrator"
    with closing(store_of(config, Access.CREATE)) as store:
        store.ready()
        store.destinations.suppress(target, arguments.until, why, replace=True)
    until = arguments.until if arguments.until < ALWAYS else None
    if arguments.json:
        print_json({"address": target, "done": True, "until": until, "why": why})
    else:
        what = target if "@" in target else f"{target}, all addresses there and reports about it"
        end = f"until {shown(until)} UTC" if until else "until `dmarc-milter report allow`"
        print(f"{what}: no reports {end}")
    return EXIT_OK


def allow(config: Config, arguments: argparse.Namespace) -> int:
    target = _target(arguments.address) or printable(arguments.address, 320)
    with closing(store_of(config, Access.CREATE)) as store:
        store.ready()
        done = store.destinations.allow(target)
        left = store.destinations.suppression(target, "" if "@" in target else target)
    if arguments.json:
        print_json({"address": target, "done": done})
        return EXIT_OK if done else EXIT_NO
    print(f"{target}: {'gets reports again' if done else 'was not suppressed'}")
    if left is not None:
        print(f"dmarc-milter: still suppressed: {left.address}: {left.reason}", file=sys.stderr)
    if target in map(destination, config.reporting.never_report):
        print(f"dmarc-milter: [reporting] never_report has {target}", file=sys.stderr)
    return EXIT_OK if done else EXIT_NO


def _target(text: str) -> str | None:
    """The address or domain as the store has it; None, and said why, for anything else."""
    try:
        return destination(text)
    except ValueError as error:
        print(f"dmarc-milter: {printable(str(error), 400)}", file=sys.stderr)
        return None
