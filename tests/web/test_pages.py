"""Author domains, impact, reports and health: what each page says of what the store holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from dmarc_milter.config import load
from dmarc_milter.core.dmarc.record import Record, parse
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.policy.decide import Disposition
from dmarc_milter.core.policy.verdict import Deferral
from dmarc_milter.core.spf.check import SpfResult, SpfStatus
from dmarc_milter.core.stored import Facts, encode
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolRow
from dmarc_milter.ledger.store.deliveries import DeliveryState
from dmarc_milter.ledger.store.reports import Document, NewDelivery, Report, ReportState
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web import WebOptions, create_app
from dmarc_milter.web.domain_view import badge, policy
from dmarc_milter.web.report_view import deliveries_text, no_rows_text, rows_text, state_text
from dmarc_milter.web.status import read
from dmarc_milter.web.words import NO_BREAK
from fakes.evaluations import NOON, evaluation
from fakes.stored import fill, week

NOW = NOON.timestamp() + 60
LATER = int(NOW) + 3 * 86400


def record(text: str) -> Record:
    found = parse(text.encode())
    assert found is not None
    return found


def without_policy(*trace: str, status: DmarcStatus = DmarcStatus.NONE, reason: str = "") -> Facts:
    """A message of a domain for which the walk found no policy to apply."""
    domain = Domain("odd.example")
    outcome = DomainOutcome(
        status=status,
        author_domain=domain,
        organizational_domain=domain,
        trace=trace,
        reason=reason,
    )
    each = evaluation("odd.example")
    return from_evaluation(replace(each, dmarc=DmarcResult(status, domain, outcome)))


class Site:
    """A dashboard over a store that the test fills."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/reports.db"
        self.spool = folder / "spool.db"
        self.config = folder / "c.toml"
        self.config.write_text(f'[store]\nurl = "{self.url}"\n')
        self.now = NOW
        self.store = Store.open(self.url, clock=lambda: self.now)
        self._opened = [self.store]

    def see(self, *evaluations: Evaluation) -> None:
        fill(self.spool, self.store, evaluations)

    def _open(self) -> Store:
        self._opened.append(Store.open(self.url))
        return self._opened[-1]

    def client(self) -> FlaskClient:
        options = WebOptions(
            self._open, self.spool, clock=lambda: self.now, status=lambda: read(self.config)
        )
        return create_app(options).test_client()

    def page(self, path: str) -> str:
        """Its words, without markup."""
        with self.client() as pages:
            answer = pages.get(path)
            assert answer.status_code == 200
            main = answer.text.partition("<main")[2].partition("</main>")[0]
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", main)).split())

    def close(self) -> None:
        for store in self._opened:
            store.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (from_evaluation(evaluation()), "p=reject"),
        (without_policy("_dmarc.odd.example: no DMARC record"), "none"),
        (without_policy("_dmarc.odd.example: v=DMARC1; p=rejct"), "invalid"),
        (without_policy("_dmarc.odd.example: 2 DMARC records, all discarded"), "invalid"),
        (without_policy(status=DmarcStatus.TEMPERROR), "not known"),
        (None, "not known"),
    ],
)
def test_an_invalid_record_is_not_taken_for_none(facts: Facts | None, word: str) -> None:
    assert badge(facts)[0] == word


def test_what_is_wrong_with_a_record_is_said_as_the_command_says_it() -> None:
    """The findings of `dmarc-milter domain` that need no DNS, from the record as it was last
    seen."""
    seen = policy(without_policy("_dmarc.odd.example: v=DMARC1; p=rejct"))
    assert "invalid" in seen.sentence
    assert "No policy was found" not in seen.sentence
    assert any("reject" in finding.text for finding in seen.findings)
    several = policy(without_policy("_dmarc.odd.example: 2 DMARC records, all discarded"))
    assert [finding.level for finding in several.findings] == ["error"]
    weak = record("v=DMARC1; p=reject; sp=none; rua=mailto:a@legit.example")
    found = policy(from_evaluation(evaluation(record=weak)))
    assert any(finding.where == "sp" for finding in found.findings)
    assert {tag.name: tag.value for tag in found.tags}["sp"] == "none"


def test_a_domain_says_when_its_policy_was_last_seen(site: Site) -> None:
    site.see(*week())
    text = site.page("/domains/legit.example?days=7")
    assert "As last seen 2026-11-20 12:00:00 UTC" in text
    assert "dmarc-milter domain legit.example" in text
    assert "203 messages, 65.5 % passed, 70 failed" in text


def test_the_sources_of_a_domain_are_one_table_each_in_words(site: Site) -> None:
    site.see(*week())
    text = site.page("/domains/legit.example?days=7")
    assert "would be refused" in text
    assert " reject " not in text.partition("Sources")[2].partition("Reports")[0]


def test_the_list_of_domains_has_a_policy_and_a_pass_rate(site: Site) -> None:
    site.see(evaluation(passed=True), evaluation(), evaluation("none.example", record=None))
    with site.client() as pages:
        text = pages.get("/domains").text
    assert re.search(r'<span class="badge policy">p=reject</span>', text)
    assert 'aria-label="50.0 % passed"' in text.replace(NO_BREAK, " ")
    assert re.search(r'<span class="badge none">none</span>', text)


def test_impact_adds_up_to_what_it_says(site: Site) -> None:
    site.see(*week())
    text = site.page("/impact?days=7")
    assert "70 of 210 messages (33.3 %)" in text
    assert "attack.example" in text


def test_a_list_is_offered_with_its_rule_on_overview_and_impact(site: Site) -> None:
    each = evaluation("author.example")
    listed = replace(
        each,
        facts=replace(each.facts, list_id="talk.lists.example"),
        dkim=(replace(evaluation(passed=True).dkim[0], domain=Domain("lists.example")),),
    )
    site.see(listed)
    for path in ("/?days=7", "/impact?days=7"):
        text = site.page(path)
        assert "mailing list" in text, path
        assert 'dkim = ["lists.example"]' in text, path


def test_every_rule_that_is_offered_can_be_loaded(site: Site) -> None:
    """Each is appended to a configuration as it was copied, whatever the names in it."""
    long = ".".join(["w" * 63] * 3 + ["x" * 53, "example"])
    listed = replace(
        evaluation(long, source_ip="2001:db8::9", queue_id='"]\\n#', message_id="'\"" * 60),
        facts=replace(evaluation().facts, list_id='news."]\n.example'),
        spf=SpfResult(SpfStatus.PASS, Domain(long)),
    )
    waits = replace(listed.verdict, disposition=Disposition.NONE, deferral=Deferral("dns", '"\n]'))
    site.see(listed, replace(evaluation(long), verdict=waits))
    with site.client() as pages:
        texts = [pages.get(path).text for path in ("/?days=90", "/impact?days=90")]
        listing = pages.get("/decisions?days=90").text
        texts += [pages.get(link).text for link in re.findall(r"/decisions/[0-9a-f]{32}", listing)]
    rules = [
        unescape(rule)
        for text in texts
        for rule in re.findall(r"<pre id=[^>]*>([^<]*)</pre>", text)
    ]
    assert len(rules) >= 4
    config = site.config.with_name("with-rules.toml")
    for rule in rules:
        config.write_text(f"{site.config.read_text()}\n{rule}\n")
        assert len(load(config).policy.rules) == 1, rule


def test_a_period_without_trouble_says_so(site: Site) -> None:
    assert site.page("/impact").endswith("No mail in this period.")
    site.see(evaluation(passed=True))
    assert "stopped or marked none of 1 message, and would" in site.page("/impact")


# --- reports --------------------------------------------------------------------------------------


def one(site: Site) -> Report:
    return site.store.reports.find(policy_domain="legit.example")[0]


def advance(site: Site, state: str) -> None:
    """Bring the one report there, as the report job does."""
    site.now = LATER
    reports = site.store.reports
    if state in ("open", "due"):
        site.now = NOW if state == "open" else LATER
        return
    claimed = reports.claim("me", ended_before=LATER)
    assert len(claimed) == 1
    identity = claimed[0].id
    if state == "postponed":
        reports.postpone(identity, "me", LATER + 3600, "the DNS of x.example did not answer")
    elif state in ("suppressed", "expired"):
        reports.finish(identity, "me", ReportState(state), "nobody asked for it")
    elif state in ("queued", "sent"):
        document = Document("rfc9990", "r.xml.gz", b"x")
        delivery = NewDelivery("agg@legit.example", "rfc9990", LATER)
        assert reports.queue(identity, "me", [document], [delivery])
    if state == "sent":
        found = site.store.deliveries.claim("me")[0]
        assert site.store.deliveries.settle(found, "me", DeliveryState.SENT, "250 ok")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("open", ("due", "Its period is open until 2026-11-21 00:00 UTC", "None yet", "only row")),
        ("due", ("due", "the next run of the report job takes it", "None yet", "only row")),
        ("postponed", ("due", "It is tried again at", "The DNS of x.example did not answer.")),
        ("building", ("building", "is building it", "only row")),
        ("queued", ("queued", "on its way", "agg@legit.example", "only row")),
        ("sent", ("sent", "It was delivered", "250 ok", "They were deleted when the report")),
        ("suppressed", ("suppressed", "It is not sent. Nobody asked for it.", "only row")),
        ("expired", ("expired", "It was given up", "Nobody asked for it.", "only row")),
    ],
)
def test_a_report_is_explained_in_every_state(
    site: Site, state: str, words: tuple[str, ...]
) -> None:
    site.see(evaluation())
    advance(site, state)
    text = site.page(f"/reports/{one(site).id}")
    for word in words:
        assert word in text
    assert ("gone" in text, "At most" in text) == (False, False)
    assert words[0] in site.page(f"/reports?state={words[0]}")


def test_what_is_said_of_rows_is_true_of_any_number() -> None:
    base = Report(
        *("0" * 32, "a.example", "a.example", None, 0, 86400, 1, ReportState.DUE),  # type: ignore[arg-type]
        *(300, 300, 300, 0, "", 0, 0, True, 0),
    )
    assert rows_text(base, 200) == "The first 200 of 300 rows"
    assert rows_text(base._replace(rows=3), 3) == "All 3 rows"
    assert "deleted" in no_rows_text(base._replace(state=ReportState.SENT))
    assert "not kept" in no_rows_text(base)
    assert "as many rows as it may" in no_rows_text(base._replace(rows=0, folded=7))
    assert deliveries_text(base._replace(state=ReportState.EXPIRED)) == "None."
    assert "no reason to send" in state_text(base._replace(reportable=0), 10**6)


def test_reports_are_filtered_by_state_and_domain(site: Site) -> None:
    site.see(evaluation(), evaluation("other.example"))
    rows = r"/reports/[0-9a-f]{32}"
    with site.client() as pages:
        for query, number in (
            ("", 2),
            ("?state=due", 2),
            ("?state=sent", 0),
            ("?state=nonsense", 2),
            ("?policy_domain=Legit.Example.", 1),
            ("?state=due&policy_domain=%27;--", 0),
        ):
            assert len(re.findall(rows, pages.get(f"/reports{query}").text)) == number, query


# --- health ---------------------------------------------------------------------------------------


def test_health_is_lights_with_sentences_and_no_row_counts(site: Site) -> None:
    site.see(*week())
    text = site.page("/health")
    for words in ("DNS", "Spool", "Store", "Reports", "enforcing", "suffix list", "schema"):
        assert words in text
    for words in ("report row", "parked", "known domain"):
        assert words not in text


def test_health_shows_what_config_check_finds(site: Site) -> None:
    site.config.write_text(
        f'[store]\nurl = "{site.url}"\n[authentication]\nauthserv_id = "localhost"\n'
        '[[policy.rules]]\naction = "accept"\nnetworks = ["0.0.0.0/0"]\n'
    )
    text = site.page("/health")
    assert "does not name this host alone" in text
    named = f"dmarc-milter --config {site.config}"
    assert f"What to do: {named} config set authentication.authserv_id" in text
    assert "0.0.0.0/0" in text


def test_health_of_a_broken_configuration_is_a_page(site: Site) -> None:
    site.config.write_text("[policy]\nenforce = <1>")
    assert "The configuration file cannot be used" in site.page("/health")


def test_quarantined_mail_is_counted_as_stopped(site: Site) -> None:
    each = evaluation()
    verdict = replace(each.verdict, disposition=Disposition.QUARANTINE)
    site.see(replace(each, verdict=verdict))
    assert "1 of 1 message (100 %) was stopped" in site.page("/impact")


def test_a_domain_has_the_same_numbers_on_each_page(site: Site) -> None:
    """Many messages that pass on one day and two that fail on the next: with all domains, with
    those that fail, on the overview and on its own page."""
    before = NOON - timedelta(days=1)
    good = [replace(evaluation("d.example", passed=True), at=before) for _ in range(100)]
    site.see(*good, evaluation("d.example"), evaluation("d.example"))
    everything = site.page("/domains")
    row = everything[everything.index("d.example") :]
    assert row == (failing := site.page("/domains?failing=1"))[failing.index("d.example") :]
    assert "102 98.0 %" in row
    assert "d.example 102 98.0 %" in site.page("/").partition("with the most failures")[2]
    assert re.search(r"\b102\b", site.page("/domains/d.example"))


def test_health_is_shown_while_the_store_does_not_answer(site: Site) -> None:
    """Other pages say what is wrong and what to do, and lead there."""

    def no_store() -> Store:
        raise StoreError("unreachable", "db.example.net: connection refused")

    site.see(evaluation())
    options = WebOptions(
        no_store, site.spool, clock=lambda: site.now, status=lambda: read(site.config)
    )
    with create_app(options).test_client() as pages:
        answer = pages.get("/health")
        assert answer.status_code == 200
        for words in ("connection refused", "What to do", "Spool", "configuration of this host"):
            assert words in answer.text
        for path in ("/", "/decisions", "/reports", "/domains", "/impact"):
            answer = pages.get(path)
            assert answer.status_code == 503
            for words in ("connection refused", "the database runs", 'button" href="/health"'):
                assert words in answer.text


def test_a_full_spool_is_a_light(site: Site) -> None:
    """Full at its own limit, though the disk has room."""
    each = evaluation(message_id="m" * 250)
    facts = encode(from_evaluation(each))
    spool = SpoolFile(site.spool)
    spool.write([SpoolRow(f"{number:032x}", facts) for number in range(1_000_000 // len(facts))])
    spool.close()
    assert "spool is full" not in site.page("/health")
    site.config.write_text(f'[store]\nurl = "{site.url}"\nspool_max_bytes = {1 << 20}\n')
    text = site.page("/")
    assert "The spool is full, at its limit of 1,048,576 bytes." in text
    assert "What to do: make room" in text


def test_no_row_of_impact_has_a_column_of_nothing(site: Site) -> None:
    site.see(evaluation())
    text = site.page("/impact?days=90")
    assert "refused clients" in text
    assert "would refuse" not in text


def test_a_domain_whose_messages_are_not_kept_any_more_has_a_page(site: Site) -> None:
    """The overview still counts and links it."""
    site.see(evaluation("old.example"))
    with site.store.database.transaction() as transaction:
        transaction.run("DELETE FROM decision")
    text = site.page("/domains/old.example")
    assert "1 messages" not in text
    for words in ("1 message, 0 % passed, 1 failed", "none of them is kept any more"):
        assert words in text
    with site.client() as pages:
        assert pages.get("/domains/never.example").status_code == 404
