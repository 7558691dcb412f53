"""`dmarc-milter report list | preview | send | show | resend | drop | allow | bounce`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, EXIT_TEMPFAIL, EXIT_USAGE, add_config
from dmarc_milter.cli.report import suppress
from dmarc_milter.cli.report.job import OFF, Previewed, own_mx, preview, sending
from dmarc_milter.cli.report.views import (
    print_destinations,
    print_lines,
    print_reports,
    print_run,
    print_show,
    print_shown,
    print_suppressions,
    row_of,
    rows_of,
)
from dmarc_milter.cli.terminal import print_json, unavailable
from dmarc_milter.cli.times import count, parse_time
from dmarc_milter.config import Config, ConfigError, load
from dmarc_milter.config.checks import in_a_labels
from dmarc_milter.core.mail import domain
from dmarc_milter.core.report.mail import REPORT_ID
from dmarc_milter.core.report.read import MAX_FILE, UnreadableReport, read
from dmarc_milter.core.text import printable
from dmarc_milter.dns.suffix_list import SuffixListError
from dmarc_milter.ledger.connect import answering_store, drained_store, store_of
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.store.reports import Reports, ReportState
from dmarc_milter.reporting import bounce

UNKNOWN = "no report in the store has this id (32 hexadecimal digits)"
LISTED = "`dmarc-milter report list` shows the ids"


ACTIONS = {
    "list": "the reports in the store, and what became of them",
    "preview": "what would be sent for the periods not reported yet, and where it would go",
    "send": "build and send what is due; one run",
    "show": (
        "a report as tables: a file (xml, gz, zip, eml; - is standard input), or the id of one of"
        " ours"
    ),
    "resend": "send a report once more, with the same identity",
    "drop": "never send a report",
    "suppress": "send no reports to an address or domain, nor about that domain",
    "allow": "end the suppression of an address or domain",
    "bounce": (
        "read a delivery status notification on standard input, and leave its address alone for"
        " a while"
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True)
    for name, sentence in ACTIONS.items():
        command = what.add_parser(
            name, help=sentence, description=sentence[0].upper() + sentence[1:] + "."
        )
        add_config(command)
        command.add_argument(
            "--json", action="store_true", help="JSON, one object a line for lists"
        )
        if name == "list":
            _list_arguments(command)
        if name in ("list", "preview"):
            _selection_arguments(command)
        elif name == "bounce":
            _bounce_arguments(command)
        else:
            _one_argument(name, command)


def _list_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state",
        action="append",
        choices=[state.value for state in ReportState],
        help="only these (may be repeated)",
    )
    command.add_argument(
        "--since",
        type=parse_time,
        default=0,
        metavar="WHEN",
        help="periods that began then or later, e.g. 7d",
    )


def _selection_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--domain", default="", help="only this policy domain")
    command.add_argument(
        "--limit",
        type=count,
        default=1000,
        metavar="N",
        help="at most so many, newest first (default 1000)",
    )


def _one_argument(name: str, command: argparse.ArgumentParser) -> None:
    if name == "send":
        command.add_argument(
            "--now",
            action="store_true",
            help="close the period still open too, without waiting",
        )
    elif name == "show":
        command.add_argument(
            "file", metavar="FILE|ID", help="a file, -, or an id as `report list` shows it"
        )
    elif name in ("resend", "drop"):
        command.add_argument("id", metavar="ID", help="the report's id, as `report list` shows it")
    elif name in ("suppress", "allow"):
        suppress.add_arguments(name, command)


def _bounce_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--recipient",
        default=os.environ.get("ORIGINAL_RECIPIENT", ""),
        help="the address that it came to",
    )
    command.add_argument(
        "--sender",
        default=os.environ.get("SENDER"),
        help="its envelope sender (default: taken from its fields)",
    )


def run(arguments: argparse.Namespace) -> int:
    actions: dict[str, Callable[[Config, argparse.Namespace], int]] = {
        "list": _list,
        "preview": _preview,
        "send": _send,
        "show": _show,
        "resend": _resend,
        "drop": _drop,
        "suppress": suppress.suppress,
        "allow": suppress.allow,
        "bounce": _bounce,
    }
    try:
        return actions[arguments.what](load(arguments.config), arguments)
    except StoreError as error:
        code = unavailable(error)
    except (SuffixListError, ConfigError) as error:
        print(f"dmarc-milter: {error}", file=sys.stderr)
        code = EXIT_USAGE
    # An MTA loses the notification for any other code.
    return EXIT_TEMPFAIL if arguments.what == "bounce" else code


def _list(config: Config, arguments: argparse.Namespace) -> int:
    with closing(drained_store(config)) as store:
        states = [ReportState(word) for word in arguments.state or []]
        found = store.reports.find(
            states,
            policy_domain=_policy_domain(arguments),
            since=arguments.since,
            limit=arguments.limit,
        )
        rows = rows_of(found, store)
        suppressions = store.destinations.suppressions()
    if arguments.json:
        print_lines(rows)
    elif rows:
        print_reports(rows)
    else:
        print("no reports")
    if not arguments.json:
        print_suppressions(suppressions)
    return EXIT_OK


def _policy_domain(arguments: argparse.Namespace) -> str:
    """--domain as the store spells it: A-labels, lower case."""
    return printable(domain.as_stored(arguments.domain), 300)


def _preview(config: Config, arguments: argparse.Namespace) -> int:
    with closing(answering_store(config)) as store:
        rows = [
            _previewed(previewed)
            for previewed in preview(config, store, _policy_domain(arguments), arguments.limit)
        ]
    if arguments.json:
        print_lines(rows)
    elif rows:
        print_reports(rows)
    else:
        print("nothing is due")
    if not config.reporting.is_on:
        print(f"dmarc-milter: nothing of this will be sent: {OFF}", file=sys.stderr)
    return EXIT_OK


def _previewed(previewed: Previewed) -> dict[str, object]:
    destinations: list[dict[str, object]] = [
        {
            "address": recipient.address,
            "state": "due",
            "format": recipient.format,
            "reply": f"{recipient.format}: {recipient.why}" if recipient.why else "",
        }
        for recipient in previewed.recipients.allowed
    ]
    destinations += [
        {"address": one.address, "state": "skipped", "reply": one.reason}
        for one in previewed.recipients.skipped
    ]
    destinations += [
        {"address": one.address, "state": "undecided", "reply": one.reason}
        for one in previewed.recipients.undecided
    ]
    nowhere = bool(previewed.recipients.skipped) and not (
        previewed.recipients.allowed or previewed.recipients.undecided
    )
    return row_of(
        previewed.report,
        destinations,
        "suppressed" if previewed.nothing or nowhere else "due",
        previewed.nothing,
    )


def _send(config: Config, arguments: argparse.Namespace) -> int:
    """0 when the run went through or reporting is off, with a line that says so; 75 when the
    submission server or the store takes nothing.

    Never 1: that is what a defect of ours ends with, and whoever watches the timer's unit must see
    it.
    """
    with closing(drained_store(config)) as store:
        if not config.reporting.is_on:
            print(f"dmarc-milter: {OFF}", file=sys.stderr)
            return EXIT_OK
        done = sending(config, store, now=arguments.now)
        if arguments.json:
            print_lines(rows_of(filter(None, map(store.reports.get, done.reports)), store))
        else:
            print_run(done)
    if done.problem:
        print(
            f"dmarc-milter: {config.reporting.smtp} does not take mail now: {done.problem}",
            file=sys.stderr,
        )
        return EXIT_TEMPFAIL
    return EXIT_OK


def _show(config: Config, arguments: argparse.Namespace) -> int:
    try:
        data, became = _content(config, arguments.file)
        reports = read(data, clock=time.process_time)
    except OSError as error:
        hint = f", and no id of a report; {LISTED}" if isinstance(error, FileNotFoundError) else ""
        file = printable(arguments.file, 300)
        print(f"dmarc-milter: {file}: {error.strerror}{hint}", file=sys.stderr)
        return EXIT_USAGE
    except UnreadableReport as error:
        print(f"dmarc-milter: {arguments.file}: {error}", file=sys.stderr)
        return EXIT_NO
    if arguments.json:
        for report in reports:
            print_shown(report, became)
    else:
        print_show(reports)
        print_destinations(became.get("destinations", []))
    return EXIT_OK


def _content(config: Config, name: str) -> tuple[bytes, dict[str, Any]]:
    """A file, standard input, or a report of ours as it was built and what became of it. Raises
    OSError, StoreError, UnreadableReport."""
    if REPORT_ID.fullmatch(name) and not Path(name).exists():
        return _stored_content(config, name)
    if name == "-":
        return sys.stdin.buffer.read(MAX_FILE + 1), {}
    with Path(name).open("rb") as file:
        return file.read(MAX_FILE + 1), {}


def _stored_content(config: Config, identity: str) -> tuple[bytes, dict[str, Any]]:
    with closing(store_of(config, Access.READ)) as store:
        store.ready()
        documents = (store.reports.document(identity, form) for form in ("rfc9990", "rfc7489"))
        document = next(filter(None, documents), None)
        report = store.reports.get(identity)
        became = {
            key: row[key]
            for row in rows_of([report] if report else [], store)
            for key in ("destinations", "state")
        }
    if document is None:
        raise UnreadableReport("no report of this id has been built")
    return document.content, became


def _resend(config: Config, arguments: argparse.Namespace) -> int:
    return _change(
        config,
        arguments,
        Reports.resend,
        "goes out once more with the next run",
        "there is nothing left to send of it",
    )


def _drop(config: Config, arguments: argparse.Namespace) -> int:
    return _change(config, arguments, Reports.drop, "will not be sent", "it was sent already")


def _change(
    config: Config,
    arguments: argparse.Namespace,
    change: Callable[[Reports, str], bool],
    yes: str,
    no: str,
) -> int:
    with closing(drained_store(config)) as store:
        identity = printable(arguments.id, 64)
        done = change(store.reports, identity)
        report = store.reports.get(identity)
        rows = rows_of([report] if report else [], store)
    if arguments.json:
        print_lines([{"report_id": identity, "done": done, **(rows[0] if rows else {})}])
    else:
        no = no if rows else f"{UNKNOWN}; {LISTED}"
        print(f"report {identity} {yes}" if done else f"report {identity}: {no}")
    return EXIT_OK if done else EXIT_NO


def _bounce(config: Config, arguments: argparse.Namespace) -> int:
    """For an alias or transport: 0 for whatever was read, since nobody is to be told; 75 lets the
    MTA try again."""
    data = sys.stdin.buffer.read(bounce.MAX_OCTETS)
    while sys.stdin.buffer.read(1 << 20):
        pass  # an MTA takes a pipe that breaks for a failure
    noted, said = _noted(config, data, arguments)
    if arguments.json:
        print_json(
            {
                "report_id": noted.report_id if noted else "",
                "hard": bool(noted and noted.hard),
                "text": said,
            }
        )
    else:
        print(said)
    return EXIT_OK


def _noted(
    config: Config, data: bytes, arguments: argparse.Namespace
) -> tuple[bounce.Bounce | None, str]:
    """The bounce, and what was done about it. The tag comes first: without a good one nothing is
    read and no store is opened."""
    bounces = in_a_labels(config.reporting.bounce_address or config.reporting.email)
    try:
        tag = bounce.tag_of(data, bounces, arguments.recipient)
    except bounce.NotOurs as reason:
        return None, str(reason)
    with closing(store_of(config, Access.CREATE)) as store:
        store.ready()
        address = bounce.address_of(tag, store)
        if not address:
            return None, bounce.unknown(tag.report_id)
        found = bounce.read(
            data, bounces, arguments.recipient, address=address, sender=arguments.sender
        )
        days = config.reporting.suppress_days
        return found, bounce.note(found, store, days, partial(own_mx, config))
