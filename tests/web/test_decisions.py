"""The list of decisions in people's words, and the page of one: a banner, the chain from From to
what was done, what would change it, a rule that rests on something proven."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from dmarc_milter.core.arc import ArcHop, ArcResult, ArcStatus
from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.policy.decide import Disposition
from dmarc_milter.core.policy.verdict import Deferral
from dmarc_milter.core.spf.check import SpfResult, SpfStatus
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.web import WebOptions, create_app
from dmarc_milter.web.decision_view import SIGNATURES, View, suggestion, view
from dmarc_milter.web.status import read
from fakes.evaluations import NOON, evaluation
from fakes.stored import fill

NOW = NOON.timestamp() + 60
NOTHING = {"spf": SpfResult(SpfStatus.FAIL, Domain("attack.example"))}


def treated(disposition: Disposition, /, *, would: str = "", **changes: Any) -> Evaluation:
    each = evaluation(**changes)
    would_be = Disposition(would) if would else None
    return replace(each, verdict=replace(each.verdict, disposition=disposition, would_be=would_be))


def deferred() -> Evaluation:
    each = evaluation("slow.example", queue_id="DEFERRED")
    waits = Deferral("dns", "_dmarc.slow.example")
    assert each.dmarc.outcome is not None
    unknown = replace(each.dmarc.outcome, status=DmarcStatus.TEMPERROR, published=None)
    return replace(
        each,
        dmarc=DmarcResult(DmarcStatus.TEMPERROR, each.author.domain, unknown),
        verdict=replace(each.verdict, disposition=Disposition.NONE, deferral=waits),
    )


def malformed() -> Evaluation:
    each = evaluation(queue_id="MALFORMED")
    outcome = each.dmarc.outcome
    assert outcome is not None
    return replace(
        each,
        author=Author(None, malformed="two addresses"),
        dmarc=DmarcResult(DmarcStatus.PERMERROR, None, candidates=(outcome,)),
    )


MAIL: dict[str, Callable[[], Evaluation]] = {
    "passed": lambda: evaluation(passed=True, queue_id="PASSED"),
    "failed": lambda: evaluation(queue_id="REFUSED"),
    "quarantined": lambda: treated(Disposition.QUARANTINE, queue_id="QUARANTINED"),
    "monitored": lambda: treated(Disposition.NONE, would="reject", queue_id="MONITORED"),
    "no policy": lambda: treated(Disposition.NONE, record=None, queue_id="NOPOLICY"),
    "malformed": malformed,
    "deferred": deferred,
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    folder = tmp_path_factory.mktemp("decisions")
    url = f"sqlite:///{folder}/reports.db"
    store = Store.open(url)
    fill(folder / "spool.db", store, [make() for make in MAIL.values()])
    store.close()
    kept: list[Store] = []

    def opened() -> Store:
        kept.append(Store.open(url))
        return kept[-1]

    config: Path = folder / "c.toml"
    config.write_text(f'[store]\nurl = "{url}"\n')
    options = WebOptions(
        opened, folder / "spool.db", clock=lambda: NOW, status=lambda: read(config)
    )
    with create_app(options).test_client() as found:
        yield found
    for store in kept:
        store.close()


def page_of(pages: FlaskClient, queue_id: str) -> str:
    listing = pages.get(f"/decisions?key={queue_id}&days=90").text
    links = re.findall(r"/decisions/[0-9a-f]{32}", listing)
    assert len(links) == 1
    return unescape(pages.get(links[0]).text)


@pytest.mark.parametrize(
    ("done", "queue_ids"),
    [
        ("delivered", {"PASSED", "MONITORED", "NOPOLICY"}),
        ("refused", {"REFUSED", "MALFORMED"}),
        ("quarantined", {"QUARANTINED"}),
        ("deferred", {"DEFERRED"}),
        ("would be refused", {"MONITORED"}),
        ("would be quarantined", set()),
        ("reject", {"REFUSED", "MALFORMED"}),
        ("' OR 1=1 --", set()),
    ],
)
def test_what_was_done_is_searched_for_in_the_words_of_the_list(
    pages: FlaskClient, done: str, queue_ids: set[str]
) -> None:
    """The stored words (reject, none, pass) still find what they found."""
    text = pages.get("/decisions", query_string={"disposition": done, "days": 90}).text
    assert set(re.findall(r'<td class="queue" role="cell">(\w+)<', text)) == queue_ids


def test_nobody_reads_of_none_or_pass_where_mail_was_delivered(pages: FlaskClient) -> None:
    text = pages.get("/decisions?days=90").text
    words = re.findall(r'<td class="done" role="cell"><span class="badge [\w-]+">([^<]+)<', text)
    assert sorted(words) == [
        *("deferred", "delivered", "delivered", "quarantined", "refused", "refused"),
        "would be refused",
    ]


def test_older_decisions_stay_within_the_search(pages: FlaskClient) -> None:
    """A search for delivered mail is kept by the form."""
    text = pages.get("/decisions?days=90&disposition=delivered").text
    assert re.search(r"<option selected>delivered</option>", text)


@pytest.mark.parametrize(
    ("queue_id", "words"),
    [
        ("PASSED", ("It is proven that this message is from legit.example", "Aligned with")),
        ("REFUSED", ("Nothing proves that this message is from legit.example", "p=reject")),
        ("QUARANTINED", ("quarantined", "What would change it")),
        ("MONITORED", ("would be refused", "it was delivered all the same")),
        ("NOPOLICY", ("No policy applies",)),
        ("MALFORMED", ("Its From field cannot be trusted", "A reader could see: legit.example")),
        ("DEFERRED", ("could not be found out at that time", "_dmarc.slow.example")),
    ],
)
def test_a_decision_says_in_a_sentence_what_happened(
    pages: FlaskClient, queue_id: str, words: tuple[str, ...]
) -> None:
    text = page_of(pages, queue_id)
    for word in words:
        assert word in text


def of(each: Evaluation) -> View:
    return view(from_evaluation(each))


def boxes(each: Evaluation) -> list[tuple[str, str, str]]:
    return [(box.title, box.word, box.kind) for _, column in of(each).steps for box in column]


def test_the_chain_goes_from_the_author_to_what_was_done() -> None:
    """RFC 9989 4.4: SPF and DKIM count where they align; ARC is a forwarder's word."""
    assert boxes(evaluation(passed=True)) == [
        ("From", "", "none"),
        ("SPF", "pass", "none"),
        ("DKIM", "pass", "pass"),
        ("ARC", "none", "none"),
        ("DMARC", "pass", "pass"),
        ("Done", "delivered", "pass"),
    ]
    assert boxes(evaluation(**NOTHING)) == [
        ("From", "", "none"),
        ("SPF", "fail", "fail"),
        ("DKIM", "fail", "fail"),
        ("ARC", "none", "none"),
        ("DMARC", "fail", "fail"),
        ("Done", "refused", "fail"),
    ]


def test_a_pass_of_another_domain_is_not_drawn_as_a_success() -> None:
    """Green only where it proves the author: a forger's own SPF passes, too."""
    spf = next(box for _, column in of(evaluation()).steps for box in column if box.title == "SPF")
    assert (spf.word, spf.kind) == ("pass", "none")
    assert "Not aligned with legit.example" in spf.text


def test_a_message_without_a_signature_says_so() -> None:
    assert ("DKIM", "none", "none") in boxes(evaluation(dkim=()))


def test_an_arc_chain_names_the_newest_sealer() -> None:
    hops = tuple(
        ArcHop(number, Domain(name), "s") for number, name in ((1, "a.example"), (2, "b.example"))
    )
    each = evaluation(arc=ArcResult(ArcStatus.PASS, hops))
    arc = next(box for _, column in of(each).steps for box in column if box.title == "ARC")
    assert (arc.word, arc.domain) == ("pass", "b.example")


def test_a_hundred_signatures_are_not_a_hundred_boxes() -> None:
    many = tuple(DkimResult(DkimStatus.FAIL, Domain(f"s{number}.example")) for number in range(100))
    found = of(evaluation(dkim=many))
    drawn = [box for _, column in found.steps for box in column if box.title == "DKIM"]
    assert len(drawn) + len(found.folded) == SIGNATURES
    assert found.more_signatures == 100 - SIGNATURES


def test_the_signature_that_decides_is_not_hidden_behind_others() -> None:
    """A sender may add any number before it; whether each aligns is said in a badge."""
    aligned = DkimResult(DkimStatus.PASS, Domain("legit.example"), "k1")
    others = [DkimResult(DkimStatus.FAIL, Domain(f"s{number}.example")) for number in range(20)]
    others.append(DkimResult(DkimStatus.PASS, Domain("shop.example")))
    facts = from_evaluation(evaluation(passed=True, dkim=(*others, aligned)))
    found = view(facts)
    drawn = [box for _, column in found.steps for box in column if box.title == "DKIM"]
    assert [(box.domain, box.aligned) for box in drawn[:2]] == [
        ("legit.example", True),
        ("shop.example", False),
    ]
    assert {box.aligned for box in drawn[2:]} == {None}, "what does not verify aligns with nothing"
    assert "Selector k1." in drawn[0].text


def test_a_rule_is_offered_only_for_what_was_stopped_and_is_proven() -> None:
    def offered(each: Evaluation, sealers: tuple[str, ...] = ()) -> str:
        found = suggestion(from_evaluation(each), sealers, NOW)
        return found.text if found else ""

    assert offered(evaluation(passed=True)) == ""
    assert 'spf = ["attack.example"]' in offered(evaluation())
    assert 'networks = ["192.0.2.66/32"]' in offered(evaluation(**NOTHING))
    unknown = evaluation(**NOTHING)
    unknown = replace(unknown, envelope=replace(unknown.envelope, source_ip=None))
    assert offered(unknown) == ""
    assert 'author_domains = ["slow.example"]' in offered(deferred())
    assert "expires" in offered(evaluation())


def test_the_page_has_the_rule_ready_to_copy(pages: FlaskClient) -> None:
    """The command is about the dashboard's own configuration, not about the usual file."""
    text = page_of(pages, "REFUSED")
    assert re.search(r'<pre id="rule"[^>]*>\[\[policy\.rules\]\]', text)
    assert 'data-copies="rule"' in text
    assert re.search(r"dmarc-milter --config /\S+/c\.toml allow REFUSED --apply", text)
    assert "data-copies" not in page_of(pages, "PASSED")


def test_the_walk_is_folded(pages: FlaskClient) -> None:
    text = page_of(pages, "REFUSED")
    assert re.search(r"<details><summary>The walk through the DNS</summary>\s*<ol", text)
    assert "TXT _dmarc.legit.example" in text
