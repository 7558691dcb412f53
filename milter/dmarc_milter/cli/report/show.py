"""`dmarc-milter report show`: a report file of anybody, or one of ours in whatever state it is."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, EXIT_USAGE
from dmarc_milter.cli.report.views import (
    of_id,
    print_destinations,
    print_lines,
    print_reports,
    print_show,
    print_shown,
)
from dmarc_milter.cli.terminal import console
from dmarc_milter.config import Config
from dmarc_milter.core.report.aggregate import Feedback, Reporter
from dmarc_milter.core.report.read import MAX_FILE, ReadReport, UnreadableReport, read
from dmarc_milter.core.report.rows import Period
from dmarc_milter.core.report.xml import InvalidReport, render
from dmarc_milter.core.text import printable
from dmarc_milter.ledger.connect import answering_store
from dmarc_milter.ledger.store.reports import Report
from dmarc_milter.ledger.store.status import matching
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.reporting.context import reporter_of

UNKNOWN = "no report in the store has this id (32 hexadecimal digits)"
LISTED = "`dmarc-milter report list` shows the ids"
PREFIX = re.compile(r"[0-9a-f]{4,32}")
"""What may be the beginning of an id."""
MAX_ROWS = 100_000
FORMS = ("rfc9990", "rfc7489")


class NotOne(Exception):
    """An id, or the beginning of one, that stands for no report or for several; `str()` says so."""


def whole(text: str, store: Store) -> str:
    """The id that begins so. Raises NotOne, StoreError."""
    found = matching(store.database, text) if PREFIX.fullmatch(text) else []
    if len(found) > 1:
        raise NotOne("several reports have ids that begin so; give more digits")
    if not found:
        raise NotOne(f"{UNKNOWN}; {LISTED}")
    return found[0]


def show_report(config: Config, arguments: argparse.Namespace) -> int:
    name = arguments.file
    try:
        if PREFIX.fullmatch(name) and not Path(name).exists():
            return _ours(config, name, as_json=arguments.json)
        reports = read(_file(name), clock=time.process_time)
    except OSError as error:
        hint = f", and no id of a report; {LISTED}" if isinstance(error, FileNotFoundError) else ""
        print(f"dmarc-milter: {printable(name, 300)}: {error.strerror}{hint}", file=sys.stderr)
        return EXIT_USAGE
    except (UnreadableReport, NotOne) as error:
        print(f"dmarc-milter: {name}: {error}", file=sys.stderr)
        return EXIT_NO
    _print(reports, {}, as_json=arguments.json)
    return EXIT_OK


def _file(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(MAX_FILE + 1)
    with Path(name).open("rb") as file:
        return file.read(MAX_FILE + 1)


def _print(reports: list[ReadReport], became: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        for report in reports:
            print_shown(report, became)
        return
    print_show(reports)
    if became.get("note"):
        console().print(f"{became['state']}: {became['note']}")
    print_destinations(became.get("destinations", []))


def _ours(config: Config, prefix: str, *, as_json: bool) -> int:
    """What was built, what would be, or where nothing is left of it what is known. Raises NotOne,
    StoreError, UnreadableReport."""
    with closing(answering_store(config)) as store:
        identity = whole(prefix, store)
        row = of_id(identity, store)
        content = _content(identity, config, store)
        mail = store.reports.document(identity, "rfc9991")
    if row is None:
        raise NotOne(f"{UNKNOWN}; {LISTED}")
    if content:
        keys = ("destinations", "state", "note")
        became = {key: row[key] for key in keys}
        _print(read(content, clock=time.process_time), became, as_json=as_json)
    elif as_json:
        text = mail.content.decode("ascii", "replace") if mail is not None else ""
        print_lines([row | {"mail": text}] if row["kind"] == "failure" else [row])
    else:
        print_reports([row])
        if mail is not None:
            lines = mail.content.decode("ascii", "replace").splitlines()
            print("\n".join(printable(line, 1000) for line in lines))
    return EXIT_OK


def _content(identity: str, config: Config, store: Store) -> bytes:
    """The document of an aggregate report: as it was built, or as it would be now; b"" where there
    are no rows (any more)."""
    for form in FORMS:
        document = store.reports.document(identity, form)
        if document is not None:
            return document.content
    report = store.reports.get(identity)
    if report is None:
        return b""
    return _preview(report, reporter_of(config.reporting, report.identity), store)


def _preview(report: Report, reporter: Reporter, store: Store) -> bytes:
    rows = tuple(
        row for row, _ in zip(store.reports.rows(report.id), range(MAX_ROWS), strict=False)
    )
    who = (
        reporter if reporter.email else Reporter("(reporting is off)", "nobody@invalid", "invalid")
    )
    period = Period(report.begin, report.end)
    try:
        return render(
            Feedback(who, report.id, period, report.published, rows, report.folded), "rfc9990"
        )
    except InvalidReport:
        return b""


Change = Callable[[Store, str], bool]


def changed(text: str, store: Store, change: Change) -> tuple[bool, dict[str, Any]]:
    """Do something to the report whose id begins so: whether it was done, and the report. Raises
    NotOne, StoreError."""
    identity = whole(text, store)
    done = change(store, identity)
    return done, of_id(identity, store) or {"report_id": identity}
