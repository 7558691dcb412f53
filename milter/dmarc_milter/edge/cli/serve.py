"""`dmarc-milter serve`."""

from __future__ import annotations

import argparse

from dmarc_milter.edge.cli import add_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--no-jobs", action="store_true", help="leave draining the spool and sending reports to timers")


def run(arguments: argparse.Namespace) -> int:
    """Runs until SIGTERM; the exit code is the supervisor's."""
    from dmarc_milter.edge.service import serve

    return serve(arguments.config, with_jobs=not arguments.no_jobs)
