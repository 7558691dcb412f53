"""The pages. Every one reads; none writes, and nothing of a message is shown but stored facts,
escaped."""

from __future__ import annotations

import contextlib
import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flask import Flask, abort, g, render_template, request

from dmarc_milter.config import Config
from dmarc_milter.config.core_options import local_policy
from dmarc_milter.core.explain import explain
from dmarc_milter.core.explain.message import changes
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.message import plain_address
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.decisions import Filter
from dmarc_milter.ledger.store.status import spool_status, store_status
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web import charts, queries
from dmarc_milter.web.decision_view import suggestion, view
from dmarc_milter.web.lights import lights
from dmarc_milter.web.login import LoginGuard
from dmarc_milter.web.status import HostStatus, host_status
from dmarc_milter.web.words import PERIODS, add_words

SEARCH = ("key", "author_domain", "source_ip", "status", "disposition", "days")
MAX_WAITING = 20
"""Lines about mail that waits."""
MAX_ROWS = 200
MAX_FAILURES = 100
"""Rows of one report that a page shows."""


@dataclass(frozen=True, slots=True)
class WebOptions:
    """`open_store` makes a store for the thread that calls it; `token` is "" where only this
    machine may look; `status` is asked for each page that shows it."""

    open_store: Callable[[], Store]
    spool: Path
    token: str = ""
    clock: Callable[[], float] = time.time
    status: Callable[[], HostStatus] = lambda: host_status(Config())


def create_app(options: WebOptions) -> Flask:
    """The WSGI application."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 4096
    LoginGuard(app, options.token)
    add_words(app, options.clock)
    pages = Pages(options)
    app.before_request(_refuse_nul)
    app.before_request(pages.choose_period)
    for endpoint, where in RULES.items():
        app.add_url_rule(where, endpoint, getattr(pages, endpoint))
    _failures(app)
    return app


def _refuse_nul() -> None:
    """Nothing is named with NUL, which PostgreSQL takes in no text."""
    if "\0" in request.path:
        abort(404)


def _days() -> int:
    """The period that the reader chose; a week where the parameter is missing or odd."""
    days = request.args.get("days", "7")
    return int(days) if days in map(str, PERIODS) else 7


def _page() -> int:
    page = request.args.get("page", "1")
    return (
        int(page) if page.isascii() and page.isdecimal() and 0 < len(page) <= 4 and int(page) else 1
    )


DONE = {
    **{word: ("disposition", stored) for stored, word in charts.DONE.items() if stored != "none"},
    **{
        f"would be {charts.DONE[stored]}": ("would_be", stored)
        for stored in ("quarantine", "reject", "tempfail")
    },
    "delivered": ("delivered", ""),
}
"""What the search form calls what was done: the column of Filter and its value."""
WORDS = ("delivered", "refused", "quarantined", "deferred", *(word for word in DONE if " " in word))


def _filter(since: int) -> Filter:
    """What the search form asks for; odd values find nothing rather than failing."""
    asked = {
        name: request.args.get(name, "")[:255].strip().lower()
        for name in ("author_domain", "source_ip", "status")
    }
    column, value = DONE.get(_done(), ("disposition", _done()))
    if column != "delivered":
        asked[column] = value
    asked["author_domain"] = domain.as_stored(asked["author_domain"])
    with contextlib.suppress(ValueError):
        asked["source_ip"] = str(plain_address(ipaddress.ip_address(asked["source_ip"])))
    return replace(Filter(since=since), **asked)  # type: ignore[arg-type]


def _done() -> str:
    return request.args.get("disposition", "")[:255].strip().lower()


RULES = {
    "overview": "/",
    "domains": "/domains",
    "domain": "/domains/<name>",
    "decisions": "/decisions",
    "decision": "/decisions/<identity>",
    "reports": "/reports",
    "report": "/reports/<identity>",
    "health": "/health",
}
"""Page (a method of Pages, and its template) -> address."""


class Pages:
    """One method a page."""

    def __init__(self, options: WebOptions) -> None:
        self._options = options
        self._local = threading.local()

    @property
    def _store(self) -> Store:
        """This thread's store."""
        if not hasattr(self._local, "store"):
            store = self._options.open_store()
            store.ready()
            self._local.store = store
        found: Store = self._local.store
        return found

    def choose_period(self) -> None:
        g.days = _days()
        g.since = int(self._options.clock()) // DAY * DAY - (g.days - 1) * DAY

    def overview(self) -> str:
        decisions, database = self._store.decisions, self._store.database
        host = self._options.status()
        totals = decisions.totals(g.since)
        before = decisions.totals(g.since - g.days * DAY, g.since)
        return render_template(
            "overview.html",
            host=host,
            cards=charts.cards(totals, before),
            chart=charts.chart(totals, g.since, g.days),
            lights=lights(
                self._store, self._options.spool, host.reports_off, self._options.clock()
            ),
            failing=queries.authors(database, g.since, failing=True)[:10],
            clients=queries.failing_clients(database, g.since),
            newest=queries.NEWEST,
            waiting=decisions.waiting(g.since, limit=MAX_WAITING),
        )

    def domains(self) -> str:
        rows = queries.authors(
            self._store.database, g.since, failing=request.args.get("failing") == "1", page=_page()
        )
        return render_template(
            "domains.html", rows=rows[: queries.PAGE], more=len(rows) > queries.PAGE, page=_page()
        )

    def domain(self, name: str) -> str:
        newest = queries.latest(self._store.database, name)
        if newest is None:
            abort(404)
        rows = queries.sources(self._store.database, name, g.since)
        reports = self._store.reports.find(
            policy_domain=newest.facts.policy_domain or name, limit=20
        )
        waiting = self._store.decisions.waiting(g.since, author_domain=name, limit=MAX_WAITING)
        return render_template(
            "domain.html",
            name=name,
            newest=newest.facts,
            rows=rows,
            reports=reports,
            waiting=waiting,
            most=queries.SOURCES,
            looked_at=queries.LOOKED_AT,
        )

    def decisions(self) -> str:
        wanted, key = _filter(g.since), request.args.get("key", "")[:255]
        page = queries.decisions(
            self._store.database,
            wanted,
            key=key,
            delivered=_done() == "delivered",
            after=queries.parse_position(request.args.get("after", "")),
        )
        kept = {name: request.args[name] for name in SEARCH if name in request.args}
        return render_template(
            "decisions.html",
            page=page,
            wanted=wanted,
            key=key,
            kept=kept,
            done=_done(),
            words=WORDS,
        )

    def decision(self, identity: str) -> str:
        found = queries.decision(self._store.database, identity)
        if found is None:
            abort(404)
        config = self._options.status().config
        sealers = local_policy(config).trusted_arc_sealers if config else ()
        return render_template(
            "decision.html",
            facts=found.facts,
            host=found.host,
            story=explain(found.facts),
            view=view(found.facts),
            changes=list(changes(found.facts)),
            rule=suggestion(
                found.facts, {sealer.name for sealer in sealers}, self._options.clock()
            ),
        )

    def reports(self) -> str:
        found = self._store.reports.find(
            limit=queries.PAGE + 1, offset=(_page() - 1) * queries.PAGE
        )
        suppressed = self._store.destinations.suppressions(100)
        more = len(found) > queries.PAGE
        off = self._options.status().reports_off
        return render_template(
            "reports.html",
            rows=found[: queries.PAGE],
            more=more,
            page=_page(),
            suppressed=suppressed,
            failures=self._store.failures.find(limit=MAX_FAILURES) if _page() == 1 else [],
            off=off,
        )

    def report(self, identity: str) -> str:
        found = self._store.reports.get(identity)
        if found is None:
            return self._failure_report(identity)
        rows = [
            row for row, _ in zip(self._store.reports.rows(identity), range(MAX_ROWS), strict=False)
        ]
        return render_template(
            "report.html",
            report=found,
            rows=rows,
            deliveries=self._store.deliveries.of(identity),
            most=MAX_ROWS,
        )

    def _failure_report(self, identity: str) -> str:
        failure = self._store.failures.get(identity)
        if failure is None:
            abort(404)
        return render_template(
            "failure_report.html",
            failure=failure,
            deliveries=self._store.deliveries.of(identity),
        )

    def health(self) -> str:
        return render_template(
            "health.html",
            spool=spool_status(self._options.spool),
            store=store_status(self._store.database),
        )


def _failures(app: Flask) -> None:
    """Pages for what went wrong: never a traceback."""

    @app.errorhandler(StoreError)
    def no_store(error: StoreError) -> tuple[str, int]:
        return (
            render_template("failure.html", title="The store does not answer", text=str(error)),
            503,
        )

    @app.errorhandler(403)
    def refused(_: Exception) -> tuple[str, int]:
        return (
            render_template(
                "failure.html",
                title="Not allowed from there",
                text="Use a loopback name, or set [web] token_file.",
            ),
            403,
        )

    @app.errorhandler(404)
    def unknown(_: Exception) -> tuple[str, int]:
        return (
            render_template(
                "failure.html",
                title="Nothing there",
                text="It may have been deleted: decisions are kept for some days.",
            ),
            404,
        )
