"""`dmarc-milter summary`: a day or a week for the postmaster, printed or sent as mail."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta

from dmarc_milter.cli.main import EXIT_OK, EXIT_TEMPFAIL, EXIT_USAGE, add_config
from dmarc_milter.cli.summary.digest import Digest, digest
from dmarc_milter.cli.summary.letter import html, letter, text
from dmarc_milter.cli.terminal import unavailable
from dmarc_milter.cli.times import count
from dmarc_milter.config import Config, load
from dmarc_milter.config.checks import authserv_id, host_and_port
from dmarc_milter.config.secrets import signing_key, smtp_password
from dmarc_milter.ledger.connect import answering_store
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.reporting.smtp import Mailer, Sent, Submission

DAYS = {"day": 1, "week": 7}
MONDAY = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--days",
        type=count,
        metavar="N",
        help="the N days before today (UTC; default: as [summary] every says)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--html", action="store_true", help="print the HTML form")
    form.add_argument(
        "--send",
        action="store_true",
        help="mail it to [summary] to; for a timer: nothing is sent where that is empty, or on"
        " another day than Monday where every is week",
    )


def run(arguments: argparse.Namespace) -> int:
    """0, 2 when it cannot be sent as configured, 75 when store or mail server cannot be asked."""
    config, now = load(arguments.config), datetime.now(UTC)
    if arguments.send and (why := _not_due(config, now, arguments.days)):
        print(why)
        return EXIT_OK
    until = now.replace(hour=0, minute=0, second=0, microsecond=0)
    since = until - timedelta(days=arguments.days or DAYS[config.summary.every])
    try:
        with closing(answering_store(config)) as store:
            found = digest(
                store,
                since=int(since.timestamp()),
                until=int(until.timestamp()),
                enforce=config.policy.enforce,
            )
    except StoreError as error:
        return unavailable(error)
    if arguments.send:
        return _send(config, found, now)
    show = html if arguments.html else text
    print(show(found, authserv_id(config)), end="")
    return EXIT_OK


def _not_due(config: Config, now: datetime, days: int | None) -> str:
    if not config.summary.to:
        return "No summary is sent: [summary] to is empty."
    if config.summary.every == "week" and now.weekday() != MONDAY and days is None:
        return "The summary of the week is sent on Mondays; --days N sends one now."
    return ""


def _send(config: Config, found: Digest, now: datetime) -> int:
    host, options = authserv_id(config), config.reporting
    sender = options.email or f"dmarc-milter@{host}"
    where, port = host_and_port(options.smtp, 25)
    mailer = Mailer(
        Submission(
            where,
            port,
            options.smtp_tls,
            options.smtp_user,
            smtp_password(config),
            signing_key(config),
        )
    )
    try:
        message = letter(found, host, sender, config.summary.to, now)
        outcome = mailer.send(sender, config.summary.to, message)
    except ValueError as error:
        print(f"dmarc-milter: the summary cannot be written: {error}", file=sys.stderr)
        return EXIT_USAGE
    finally:
        mailer.close()
    if isinstance(outcome, Sent):
        print(f"Sent to {config.summary.to}.")
        return EXIT_OK
    print(f"dmarc-milter: {options.smtp} did not take it: {outcome.reply}", file=sys.stderr)
    return EXIT_TEMPFAIL
