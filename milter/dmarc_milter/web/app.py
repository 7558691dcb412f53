"""The pages. Every one reads; none writes, and nothing of a message is shown but stored facts,
escaped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, abort, g, render_template, request

from dmarc_milter.config import Config
from dmarc_milter.config.core_options import local_policy
from dmarc_milter.core.explain import explain
from dmarc_milter.core.explain.message import changes
from dmarc_milter.core.explain.senders import ProbableSender, sources
from dmarc_milter.core.mail import domain
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.stored import Facts
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.impact import by_domain, by_kind, samples
from dmarc_milter.ledger.stopped import PAIRS, StoppedMail, treated_mail
from dmarc_milter.ledger.store.decisions import Filter
from dmarc_milter.ledger.store.reports import ReportState
from dmarc_milter.ledger.store.status import REMEDIES, spool_status
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web import charts, health, queries, report_view
from dmarc_milter.web.decision_view import suggestion, view
from dmarc_milter.web.domain_view import badge, policy
from dmarc_milter.web.lights import Light, lights, of_finding, without_store
from dmarc_milter.web.login import LoginGuard
from dmarc_milter.web.search import (
    OUTCOME_WORDS,
    asked_days,
    chosen_days,
    chosen_outcome,
    chosen_page,
    search_filter,
)
from dmarc_milter.web.status import HostStatus, host_status
from dmarc_milter.web.words import PERIODS, add_words

SEARCH = ("key", "author_domain", "source_ip", "status", "disposition", "days")
MAX_WAITING = 20
"""Lines about mail that waits."""
LOOKED_INTO = 30
"""Pairs of author domain and client whose messages the overview looks into."""
LISTED = 5
"""Probable lists and forwarders on the overview."""
IMPACT_COLUMNS = (
    *("refused", "quarantined", "deferred"),
    *("would refuse", "would quarantine", "would defer"),
)
"""The counts of DomainImpact in their order; a column of nothing is not shown."""
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
    app.jinja_env.globals["asked_days"] = asked_days
    pages = Pages(options)
    app.before_request(_refuse_nul)
    app.before_request(pages.choose_period)
    for endpoint, where in RULES.items():
        app.add_url_rule(where, endpoint, getattr(pages, endpoint))
    _failures(app, pages)
    return app


def _refuse_nul() -> None:
    """Nothing is named with NUL, which PostgreSQL takes in no text."""
    if "\0" in request.path:
        abort(404)


RULES = {
    "overview": "/",
    "domains": "/domains",
    "domain": "/domains/<name>",
    "impact": "/impact",
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

    def forget_store(self) -> None:
        """The next page opens the store anew: a replica may have gone."""
        if hasattr(self._local, "store"):
            self._local.store.close()
            del self._local.store

    def choose_period(self) -> None:
        g.days = chosen_days()
        today = int(self._options.clock()) // DAY * DAY
        g.since, g.longest = (today - (days - 1) * DAY for days in (g.days, max(PERIODS)))

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
            lights=self._lights(host),
            failing=queries.authors(database, g.since, failing=True)[:10],
            clients=queries.failing_clients(database, g.since),
            newest=queries.NEWEST,
            senders=[one for one in self._senders(self._stopped(), LOOKED_INTO) if one.rule][
                :LISTED
            ],
            waiting=decisions.waiting(g.since, limit=MAX_WAITING),
        )

    def _lights(self, host: HostStatus) -> list[Light]:
        bound = host.config.store.spool_max_bytes if host.config else 0
        spool, now = self._options.spool, self._options.clock()
        return lights(self._store, spool, host.reports_off, now, bound)

    def domains(self) -> str:
        rows = queries.authors(
            self._store.database,
            g.since,
            failing=request.args.get("failing") == "1",
            page=chosen_page(),
        )
        shown = rows[: queries.PAGE]
        return render_template(
            "domains.html",
            rows=shown,
            policies={row.domain: badge(self._newest(row.domain)) for row in shown},
            more=len(rows) > queries.PAGE,
            page=chosen_page(),
        )

    def _newest(self, name: str) -> Facts | None:
        """Of the newest decision about an author domain."""
        found = queries.latest(self._store.database, name)
        return found.facts if found else None

    def domain(self, name: str) -> str:
        newest, database = self._newest(name), self._store.database
        if newest is None and not queries.outcomes(database, name, g.longest).messages:
            abort(404)
        about = (newest.policy_domain if newest else "") or name
        return render_template(
            "domain.html",
            name=name,
            newest=newest,
            policy=policy(newest),
            row=queries.outcomes(database, name, g.since),
            chart=charts.chart(queries.daily(database, name, g.since), g.since, g.days),
            rows=queries.sources(database, name, g.since),
            reports=self._store.reports.find(policy_domain=about, limit=20),
            waiting=self._store.decisions.waiting(g.since, author_domain=name, limit=MAX_WAITING),
            most=queries.SOURCES,
            looked_at=queries.LOOKED_AT,
        )

    def _stopped(self, messages: int | None = None) -> StoppedMail:
        return StoppedMail(self._store.database, Filter(since=g.since, affected=True), messages)

    def _senders(self, stopped: StoppedMail, pairs: int) -> list[ProbableSender]:
        """Who probably stands behind mail that policy stopped, or would have."""
        found = stopped.pairs(pairs)
        return list(sources(samples(self._store.decisions, found)))

    def impact(self) -> str:
        decisions = self._store.decisions
        treated = treated_mail(self._store.database, g.since, limit=queries.PAGE)
        stopped = self._stopped(treated.messages)
        senders = self._senders(stopped, PAIRS)
        proven = [one for one in senders if one.identity]
        unproven = [one for one in senders if not one.identity]
        return render_template(
            "impact.html",
            host=self._options.status(),
            messages=decisions.messages(g.since),
            treated=treated.messages,
            kinds=by_kind(treated.all),
            stopped=stopped,
            pairs_looked_into=PAIRS,
            columns=[
                (name, index)
                for index, name in enumerate(IMPACT_COLUMNS, 1)
                if treated.totals[index]
            ],
            domains=by_domain(treated.parts, stopped.clients()),
            domains_left=max(0, treated.authors - queries.PAGE),
            senders=proven[: queries.PAGE],
            senders_left=max(0, len(proven) - queries.PAGE),
            unproven=unproven[: queries.PAGE],
            unproven_messages=sum(one.messages for one in unproven),
            unproven_clients=len(unproven),
            waiting=decisions.waiting(g.since, limit=MAX_WAITING),
        )

    def decisions(self) -> str:
        wanted, key = search_filter(g.since), request.args.get("key", "")[:255]
        page = queries.decisions(
            self._store.database,
            wanted,
            key=key,
            after=queries.parse_position(request.args.get("after", "")),
        )
        kept = {name: request.args[name] for name in SEARCH if name in request.args}
        return render_template(
            "decisions.html",
            page=page,
            wanted=wanted,
            key=key,
            kept=kept,
            done=chosen_outcome(),
            words=OUTCOME_WORDS,
        )

    def decision(self, identity: str) -> str:
        found = queries.decision(self._store.database, identity)
        if found is None:
            abort(404)
        status = self._options.status()
        sealers = local_policy(status.config).trusted_arc_sealers if status.config else ()
        allow = f"dmarc-milter allow {found.facts.queue_id} --apply"
        return render_template(
            "decision.html",
            facts=found.facts,
            host=found.host,
            story=explain(found.facts),
            view=view(found.facts),
            changes=list(changes(found.facts)),
            allow=health.command(allow, status.path),
            rule=suggestion(
                found.facts, {sealer.name for sealer in sealers}, self._options.clock()
            ),
        )

    def reports(self) -> str:
        store, wanted = self._store, request.args.get("state", "")
        about = domain.as_stored(request.args.get("policy_domain", "")[:255].strip().lower())
        states = [state for state in ReportState if state.value == wanted]
        found = store.reports.find(
            states,
            policy_domain=about,
            limit=queries.PAGE + 1,
            offset=(chosen_page() - 1) * queries.PAGE,
        )
        totals = queries.report_states(store.database)
        return render_template(
            "reports.html",
            rows=found[: queries.PAGE],
            more=len(found) > queries.PAGE,
            page=chosen_page(),
            states={state.value: totals.get(state.value, 0) for state in ReportState},
            wanted=states[0].value if states else "",
            policy_domain=about,
            suppressed=store.destinations.suppressions(100),
            failures=store.failures.find(
                [wanted] if states else [], policy_domain=about, limit=MAX_FAILURES
            )
            if chosen_page() == 1
            else [],
            off=self._options.status().reports_off,
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
            state_text=report_view.state_text(found, self._options.clock()),
            rows_text=report_view.rows_text(found, len(rows)),
            no_rows_text=report_view.no_rows_text(found),
            deliveries_text=report_view.deliveries_text(found),
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
        """The one page that is shown while the store does not answer."""
        host, spool = self._options.status(), self._options.spool
        found = health.findings(host.config, host.path) if host.config else ()
        try:
            running, details = self._lights(host), list(health.details(self._store, spool))
        except StoreError as error:
            self.forget_store()
            status = spool_status(spool)
            running = without_store(status, error, self._options.clock())
            details = [health.spool_details(status)]
        return render_template(
            "health.html",
            host=host,
            lights=running,
            findings=[of_finding(finding) for finding in found],
            details=details,
        )


def _failures(app: Flask, pages: Pages) -> None:
    """Pages for what went wrong: never a traceback."""

    @app.errorhandler(StoreError)
    def no_store(error: StoreError) -> tuple[str, int]:
        pages.forget_store()
        return (
            render_template(
                "failure.html",
                title="The store does not answer",
                text=f"{error}.",
                remedy=REMEDIES[error.kind],
            ),
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
