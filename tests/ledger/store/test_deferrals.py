"""Mail that waits, in the store: stored with its reason and DNS name, listed by them, and none of
it lost by the upgrade."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import pytest

from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.policy.decide import Deferral, Disposition, Verdict
from dmarc_milter.core.stored import Facts, decode, encode
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.ledger.store import schema
from dmarc_milter.ledger.store.database import connect
from dmarc_milter.ledger.store.decisions import Filter, Waiting
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import NOON, evaluation, outcome
from fakes.stores import batch, upgraded


def test_a_store_of_the_version_before_keeps_its_decisions(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STO-03: rows without a reason to wait are read, found and counted as before; new ones have
    theirs."""
    with monkeypatch.context() as patch:
        patch.setattr(
            schema, "STEPS", schema.STEPS[: [name for name, *_ in schema.STEPS].index("deferrals")]
        )
        database = connect(upgraded(store_url, by_day=False))
    sql = (
        "INSERT INTO decision (id, at, host, queue_id, message_id, author_domain, policy_domain,"
        " source_ip, status, disposition, would_be, facts) VALUES ('old', 5, 'mx1', 'Q', 'm',"
        " 'legit.example', '', '', 'temperror', 'tempfail', '', ?)"
    )
    with database.transaction() as transaction:
        transaction.run(sql, (encode(Facts(id="old", at=5.0, queue_id="Q", counted=False)),))
    database.close()
    store = Store(connect(upgraded(store_url)))
    store.apply(batch(deferred("bank.example", "dns", "_dmarc.bank.example")))
    assert [each.facts.id for each in store.decisions.find("Q")] == ["old"]
    assert store.decisions.count(Filter(disposition="tempfail")) == 2
    assert [each.failing_name for each in store.decisions.waiting()] == ["_dmarc.bank.example"]
    store.close()


def deferred(
    author: str, reason: Literal["dns", "overloaded", "failure"], name: str = "", **changes: Any
) -> Evaluation:
    verdict = Verdict(Disposition.NONE, Policy.REJECT, deferral=Deferral(reason, name))
    return evaluation(
        author,
        verdict=verdict,
        dmarc=DmarcResult(DmarcStatus.TEMPERROR, Domain(author), outcome(author)),
        **changes,
    )


def test_what_waits_is_told_by_author_domain_reason_and_name(store_url: str) -> None:
    """How many, since when, and how many different messages; what only would have waited is told
    apart."""
    store = Store(connect(upgraded(store_url)))
    would = Verdict(
        Disposition.NONE,
        Policy.REJECT,
        would_be=Disposition.NONE,
        would_wait=Deferral("dns", "_dmarc.m.example"),
    )
    hour = timedelta(hours=1)
    store.apply(
        batch(
            *(
                deferred(
                    "bank.example",
                    "dns",
                    "inc.bank.example",
                    message_id="1@bank.example",
                    at=NOON + n * hour,
                )
                for n in range(3)
            ),
            deferred("bank.example", "dns", "_dmarc.bank.example", message_id="2@bank.example"),
            deferred("bank.example", "overloaded"),
            deferred("other.example", "failure"),
            evaluation("m.example", verdict=would),
            evaluation("legit.example"),
        )
    )
    found = store.decisions.waiting()
    begin = int(NOON.timestamp())
    assert found[0] == Waiting(
        "bank.example", "dns", "inc.bank.example", 3, 3, 1, begin, begin + 7200
    )
    assert {each[:5] for each in found[1:]} == {
        ("bank.example", "dns", "_dmarc.bank.example", 1, 1),
        ("bank.example", "overloaded", "", 1, 1),
        ("other.example", "failure", "", 1, 1),
        ("m.example", "dns", "_dmarc.m.example", 1, 0),
    }
    assert {
        each.author_domain for each in store.decisions.waiting(author_domain="bank.example")
    } == {"bank.example"}
    assert store.decisions.waiting(begin + 1)[0].attempts == 2
    assert store.decisions.count(Filter(affected=True, author_domain="m.example")) == 1
    store.close()


@pytest.mark.parametrize(
    "name", ["x'); DROP TABLE decision; --.example", '"<b>.example', "%_!", "a" * 300]
)
def test_a_failing_name_is_only_a_name(store_url: str, name: str) -> None:
    """STO-04: SPF's macros put the sender's text into it."""
    store = Store(connect(upgraded(store_url)))
    store.apply(batch(deferred("bank.example", "dns", name)))
    (found,) = store.decisions.waiting()
    assert found.failing_name == name[:253]
    store.close()


def test_rows_of_an_older_spool_are_read(store_url: str) -> None:
    """STO-03: facts that were written before they knew of reasons wait in the spool during an
    upgrade."""
    older = decode(encode(from_evaluation(evaluation("legit.example"))))
    assert (older.deferral, older.failing_name, older.stale) == ("", "", ())
    assert b"deferral" not in encode(older)
