"""`dmarc-milter stats`: totals by day and outcome, in the terminal, as JSON, or as one HTML
page."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import dmarc_milter
from dmarc_milter import __version__
from dmarc_milter.cli import deferrals
from dmarc_milter.cli.main import EXIT_OK, add_config
from dmarc_milter.cli.tables import print_table
from dmarc_milter.cli.terminal import print_json, unavailable
from dmarc_milter.cli.times import count, shown
from dmarc_milter.config import Config, load
from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.explain.done import DONE, STOPPED
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.connect import answering_store
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.decisions import Total, Waiting

RESULTS = tuple(status.value for status in DmarcStatus)
COLUMNS = tuple(dict.fromkeys(DONE.values()))
"""What was done: delivered, quarantined, refused, deferred."""
WAITING = 20
"""Lines of the table of mail that waits; --json has them all."""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Totals · dmarc-milter</title>
<style>{{ style | safe }}</style></head><body>
<header class="top"><div class="wide"><span class="brand">
<span class="mark">{{ mark | safe }}</span>
<span>dmarc-milter</span>
</span></div></header>
<main class="wide"><h1>Totals</h1>
<p>{{ messages }} messages since {{ since }} UTC.</p>
{% for table in tables %}<section style="margin-top: var(--gap)">
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.title }}">
<table{% if table.numbers %} class="numbers"{% endif %}>
<caption>{{ table.title }}</caption>
<thead><tr>{% for name in table.head %}<th scope="col">{{ name }}</th>
{%- endfor %}</tr></thead>
<tbody>{% for row in table.rows %}<tr>{% for cell in row %}
{%- if loop.first %}<th scope="row">{{ cell }}</th>{% else %}<td>{{ cell }}</td>{% endif %}
{%- endfor %}</tr>
{% endfor %}</tbody></table></div></section>
{% endfor %}</main>
<footer><div class="wide">Written {{ now }} UTC by dmarc-milter {{ version }} · all times are UTC
</div></footer></body></html>"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--days",
        type=count,
        default=30,
        metavar="N",
        help="the last N days, today included (default 30)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object")
    form.add_argument("--html", action="store_true", help="one HTML page that needs nothing else")


def run(arguments: argparse.Namespace) -> int:
    """0, or 75 when the store cannot be asked."""
    config = load(arguments.config)
    now = int(time.time())
    since = (now // DAY - arguments.days + 1) * DAY
    try:
        with closing(answering_store(config)) as store:
            totals = store.decisions.totals(since)
            reports = store.reports.by_state()
            waits = store.decisions.waiting(since)
    except StoreError as error:
        return unavailable(error)
    if arguments.json:
        days = [{"day": day, **part._asdict()} for day, part in _by_day(totals).items()]
        print_json(
            {"since": since, "days": days, "sum": sums(totals), "reports": reports}
            | _waiting(waits, now)
        )
    elif arguments.html:
        print(page(totals, reports, waits, since=since, now=now, title=_reports(config)))
    else:
        _print(totals, reports, since, _reports(config))
        deferrals.print_waiting(waits, now, WAITING)
    return EXIT_OK


def _reports(config: Config) -> str:
    """What stands over or before their numbers: rows are kept while nothing is sent, too."""
    return "Reports" if config.reporting.is_on else "Reports (reporting is off: none is sent)"


def _waiting(found: Sequence[Waiting], now: float) -> dict[str, object]:
    """Why mail was deferred, in all and one by one."""
    return {"deferred": deferrals.by_reason(found), "deferrals": deferrals.document(found, now)}


class Sums(NamedTuple):
    """Messages in all, by dmarc= word, by what was done, and by what monitor mode would have
    done."""

    messages: int
    dmarc: dict[str, int]
    disposition: dict[str, int]
    would_be: dict[str, int]


def sums(totals: Sequence[Total]) -> Sums:
    """Added up over days."""
    results, done, would = Counter[str](), Counter[str](), Counter[str]()
    for total in totals:
        results[total.status] += total.messages
        done[total.disposition] += total.messages
        if total.would_be and DONE.get(total.disposition) == "delivered":
            would[total.would_be] += total.messages
    return Sums(results.total(), dict(results), dict(done), dict(would))


def _by_day(totals: Sequence[Total]) -> dict[str, Sums]:
    """YYYY-MM-DD -> what came on that day, oldest first."""
    return {
        shown(day)[:10]: sums([total for total in totals if total.day == day])
        for day in sorted({total.day for total in totals})
    }


def _rows(totals: Sequence[Total]) -> list[tuple[str, ...]]:
    """A line for each day and one for all: messages, then each dmarc= word, then what was done."""
    rows = []
    for label, part in (_by_day(totals) | {"all": sums(totals)}).items():
        done = (
            sum(n for disposition, n in part.disposition.items() if DONE.get(disposition) == word)
            for word in COLUMNS
        )
        numbers = (part.messages, *(part.dmarc.get(result, 0) for result in RESULTS), *done)
        rows.append((label, *(f"{number:,}" for number in numbers)))
    return rows


HEAD = ("day (UTC)", "messages", *(f"dmarc={result}" for result in RESULTS), *COLUMNS)


def page(
    totals: Sequence[Total],
    reports: dict[str, int],
    waits: Sequence[Waiting] = (),
    *,
    since: int,
    now: int,
    title: str = "Reports",
) -> str:
    """One HTML page without scripts or anything to fetch; every value is escaped."""
    from jinja2 import Environment  # takes long to load, and only this form needs it

    template = Environment(autoescape=True).from_string(PAGE)
    tables = [{"title": "Messages", "head": HEAD, "rows": _rows(totals), "numbers": True}]
    if reports:
        tables.append(
            {
                "title": title,
                "head": ("state", "reports"),
                "rows": [(state, f"{n:,}") for state, n in sorted(reports.items())],
                "numbers": True,
            }
        )
    if waits:
        tables.append(
            {"title": "Mail that waits", "head": deferrals.HEAD, "rows": deferrals.rows(waits)}
        )
    messages = sum(total.messages for total in totals)
    return template.render(
        tables=tables,
        style=_of_dashboard("style.css"),
        mark=_of_dashboard("mark.svg"),
        messages=f"{messages:,}",
        since=shown(since),
        now=shown(now),
        version=__version__,
    )


def _of_dashboard(name: str) -> str:
    """One of its files: this page looks as it does."""
    path = Path(dmarc_milter.__file__).parent / "web" / "static" / name
    return path.read_text(encoding="utf-8")


def _print(totals: Sequence[Total], reports: dict[str, int], since: int, title: str) -> None:
    if not totals:
        print(f"No message has been recorded since {shown(since)} UTC.")
    else:
        print_table({"day (UTC)": "left"} | dict.fromkeys(HEAD[1:], "right"), _rows(totals))
        would = sums(totals).would_be
        if any(would.get(kind) for kind in STOPPED):
            kinds = [kind for kind in STOPPED if kind != "tempfail" or would.get(kind)]
            counts = [f"{would.get(kind, 0):,} that would have been {DONE[kind]}" for kind in kinds]
            print(f"Delivered in monitor mode: {', '.join(counts)}")
    if reports:
        print(
            f"{title}: "
            + ", ".join(f"{number:,} {state}" for state, number in sorted(reports.items()))
        )
