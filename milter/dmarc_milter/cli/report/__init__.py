"""`dmarc-milter report list | preview | send | show | resend | drop | allow | bounce`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from dmarc_milter.cli.actions import add_action
from dmarc_milter.cli.main import (
    EXIT_NO,
    EXIT_OK,
    EXIT_TEMPFAIL,
    EXIT_USAGE,
    load_or_defaults,
)
from dmarc_milter.cli.report import suppress
from dmarc_milter.cli.report.show import Change, NotOne, changed, show_report
from dmarc_milter.cli.report.views import (
    failure_row,
    print_lines,
    print_reports,
    print_run,
    print_suppressions,
    row_of,
    rows_of,
)
from dmarc_milter.cli.terminal import print_json, unavailable
from dmarc_milter.cli.times import count, parse_time
from dmarc_milter.config import Config, ConfigError, load
from dmarc_milter.config.identities import bounce_addresses
from dmarc_milter.core.mail import domain
from dmarc_milter.core.text import printable
from dmarc_milter.dns.suffix_list import SuffixListError
from dmarc_milter.ledger.connect import answering_store, drained_store, store_of
from dmarc_milter.ledger.dialect import JOB
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.ownership import Access
from dmarc_milter.ledger.store.reports import ReportState
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.reporting import bounce
from dmarc_milter.telemetry.log import complain, open_log

# Reports are made by libraries that take long to load: they are imported where they are needed.
if TYPE_CHECKING:
    from dmarc_milter.cli.report.job import Previewed

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
        command = add_action(what, "report", name, sentence)
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
        "--kind", choices=["aggregate", "failure"], default="", help="only these reports"
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
        command.add_argument(
            "id", metavar="ID", help="the report's id or its beginning, as `report list` shows it"
        )
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
        "show": show_report,
        "resend": _resend,
        "drop": _drop,
        "suppress": suppress.suppress,
        "allow": suppress.allow,
        "bounce": _bounce,
    }
    try:
        settings = load_or_defaults if arguments.what == "show" else load
        return actions[arguments.what](settings(arguments.config), arguments)
    except StoreError as error:
        code = unavailable(error)
    except (SuffixListError, ConfigError) as error:
        complain(str(error))
        code = EXIT_USAGE
    # An MTA loses the notification for any other code.
    return EXIT_TEMPFAIL if arguments.what == "bounce" else code


def _list(config: Config, arguments: argparse.Namespace) -> int:
    with closing(answering_store(config)) as store:
        rows = _listed(store, arguments)
        suppressions = store.destinations.suppressions()
    if arguments.json:
        print_lines(rows)
    elif rows:
        print_reports(rows)
        if len(rows) == arguments.limit:
            print(f"these are the newest {arguments.limit}; --limit shows more")
    else:
        print("no reports")
    if not arguments.json:
        print_suppressions(suppressions)
    return EXIT_OK


def _listed(store: Store, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Aggregate and failure reports, newest period first."""
    states = [ReportState(word) for word in arguments.state or []]
    about, since, limit = _policy_domain(arguments), arguments.since, arguments.limit
    rows: list[dict[str, Any]] = []
    if arguments.kind in ("", "aggregate"):
        found = store.reports.find(states, policy_domain=about, since=since, limit=limit)
        rows += rows_of(found, store)
    if arguments.kind in ("", "failure"):
        words = [state.value for state in states]
        failures = store.failures.find(words, policy_domain=about, since=since, limit=limit)
        rows += [failure_row(one, store.deliveries.of(one.id)) for one in failures]
    rows.sort(key=lambda row: -int(row["begin"]))  # stable: each kind's own order within a day
    return rows[:limit]


def _policy_domain(arguments: argparse.Namespace) -> str:
    """--domain as the store spells it: A-labels, lower case."""
    return printable(domain.as_stored(arguments.domain), 300)


def _preview(config: Config, arguments: argparse.Namespace) -> int:
    from dmarc_milter.cli.report.job import OFF, preview

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
    from dmarc_milter.cli.report.job import OFF, sending

    open_log(config, ours=logging.WARNING)
    with closing(drained_store(config, waits=JOB)) as store:
        if not config.reporting.is_on:
            complain(OFF)
            return EXIT_OK
        done = sending(config, store, now=arguments.now)
        if arguments.json:
            print_lines(rows_of(filter(None, map(store.reports.get, done.reports)), store))
        else:
            print_run(done)
    if done.problem:
        complain(f"{config.reporting.smtp} does not take mail now: {done.problem}")
        return EXIT_TEMPFAIL
    return EXIT_OK


def _resend(config: Config, arguments: argparse.Namespace) -> int:
    return _change(
        config,
        arguments,
        lambda store, identity: store.reports.resend(identity) or store.failures.resend(identity),
        "goes out once more with the next run",
        "there is nothing left to send of it, or it was dropped",
    )


def _drop(config: Config, arguments: argparse.Namespace) -> int:
    return _change(
        config,
        arguments,
        lambda store, identity: store.reports.drop(identity) or store.failures.drop(identity),
        "will not be sent",
        "it was sent already",
    )


def _change(
    config: Config, arguments: argparse.Namespace, change: Change, yes: str, no: str
) -> int:
    text = printable(arguments.id, 64)
    with closing(drained_store(config)) as store:
        try:
            done, row = changed(text, store, change)
        except NotOne as error:
            done, row, no = False, {"report_id": text}, str(error)
    if arguments.json:
        print_lines([{**row, "done": done}])
    else:
        identity = row["report_id"]
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
    from dmarc_milter.cli.report.job import own_mx

    bounces = bounce_addresses(config.reporting)
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
