"""The stored facts: complete, bounded, printable, and readable by every later version."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.arc import ArcHop, ArcResult, ArcStatus
from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.record import AlignmentMode, Policy, ReportUri
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus, Identifier
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.policy.decide import (
    Deferral,
    Disposition,
    OverrideReason,
    OverrideType,
    Verdict,
)
from dmarc_milter.core.stored import Facts, UnreadableFacts, decode, encode
from dmarc_milter.core.stored.facts import VERSION
from dmarc_milter.core.stored.from_evaluation import MAX_SIGNATURES, from_evaluation
from dmarc_milter.core.text import printable
from fakes.evaluations import RECORD, evaluation, outcome

texts = st.text(max_size=400)


def is_clean(value: Any) -> bool:
    """Whether every string in a stored value is printable ASCII."""
    match value:
        case str():
            return value.isascii() and (value.isprintable() or not value)
        case dict():
            return all(is_clean(each) for each in value.values())
        case list():
            return all(is_clean(each) for each in value)
    return True


@given(texts, texts, texts, texts, st.integers(), st.one_of(st.none(), st.integers()))
def test_whatever_the_sender_wrote_is_stored_printable_and_comes_back(
    helo: str, comment: str, text: str, address: str, pct: int, size: int | None
) -> None:
    """docs/attacks.md STO-01, RPT-01: NUL, controls, surrogates, non-ASCII and numbers of any
    length survive as escaped text."""
    record = replace(
        RECORD,
        text=text,
        pct=pct,
        ri=pct,
        rua=(ReportUri(address, size),),
        errors=(text,),
        fo=comment,
    )
    base = evaluation(record=record)
    facts = from_evaluation(
        replace(
            base,
            envelope=replace(base.envelope, helo=helo + "\udcff", queue_id=address),
            author=Author(None, malformed=text),
            facts=MessageFacts(message_id=comment, list_id=address),
            dkim=(DkimResult(DkimStatus.FAIL, Domain("a.example"), selector=text, reason=comment),),
            verdict=Verdict(
                Disposition.NONE,
                reasons=(OverrideReason(OverrideType.OTHER, comment),),
                decided_by=text,
                tags=(text,),
            ),
        )
    )
    stored = encode(facts)
    assert decode(stored) == facts
    plain = msgspec.msgpack.decode(stored)
    reasons = plain.pop("reasons")
    assert is_clean(plain)
    assert all(reason.get("comment", "").isprintable() for reason in reasons)


def test_a_rules_comment_keeps_its_letters() -> None:
    """It is the administrator's own text: reports and `why` show it as it was written."""
    comment = "Verein f\xfcr \u091f\u0947\u0938\u094d\u091f \u202e\x1b[31m"
    verdict = Verdict(
        Disposition.NONE,
        reasons=(OverrideReason(OverrideType.LOCAL_POLICY, comment),),
    )
    [reason] = from_evaluation(replace(evaluation(), verdict=verdict)).reasons
    assert reason.comment == "Verein f\xfcr \u091f\u0947\u0938\u094d\u091f \\u202e\\x1b[31m"


def test_what_a_signature_does_not_cover_is_kept() -> None:
    """ESP-20: for `why`, days later."""
    result = DkimResult(DkimStatus.PASS, Domain("a.example"), unsigned_headers=("subject",))
    (fact,) = decode(encode(from_evaluation(replace(evaluation(), dkim=(result,))))).dkim
    assert fact.unsigned == ("subject",)


@given(st.binary(max_size=200))
def test_damaged_facts_are_unreadable_and_nothing_worse(data: bytes) -> None:
    """A damaged row of a spool must not stop the drain."""
    with suppress(UnreadableFacts):
        facts = decode(data)
        assert decode(encode(facts)) == facts


@given(st.text(), st.integers(0, 50))
def test_printable_text_is_bounded_ascii(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert all(" " <= each <= "~" for each in shown)


def test_facts_of_a_newer_program_are_refused() -> None:
    """A spool written by a newer version must wait for it, not be misread."""
    with pytest.raises(UnreadableFacts, match="version 2"):
        decode(encode(msgspec.structs.replace(from_evaluation(evaluation()), version=VERSION + 1)))


def test_facts_without_later_fields_are_read_with_their_defaults() -> None:
    """Stored rows are older than the code: only the id and the time were always there."""
    facts = decode(msgspec.msgpack.encode({"id": "x", "at": 1.5, "a_field_of_the_future": 1}))
    assert facts == Facts(id="x", at=1.5)


def test_facts_hold_what_reports_need() -> None:
    """RFC 9990 3: raw facts, both organizational domains, every tag."""
    facts = from_evaluation(
        evaluation("sub.legit.example", policy_domain="legit.example", source_ip="2001:db8::1")
    )
    assert facts.source_ip == "2001:db8::1"
    assert facts.author_domain == "sub.legit.example"
    assert facts.policy_domain == "legit.example"
    assert facts.outcome is not None
    assert facts.outcome.published is not None
    published = facts.outcome.published
    assert (published.p, published.sp, published.np, published.discovery_method) == (
        "reject",
        "quarantine",
        "",
        "treewalk",
    )
    assert published.text == RECORD.text
    assert [uri.address for uri in published.rua] == ["agg@legit.example"]
    assert facts.envelope_to == ("example.com",)
    assert facts.spf is not None
    assert (facts.spf.result, facts.spf.domain, facts.spf.scope) == (
        "pass",
        "attack.example",
        "mfrom",
    )


@pytest.mark.parametrize(
    ("path", "stored"),
    [
        (ReversePath(), ""),
        (ReversePath("x", Domain("a.example")), "a.example"),
        (ReversePath("x", None, "address literal"), None),
    ],
)
def test_null_sender_and_unreadable_sender_differ(path: ReversePath, stored: str | None) -> None:
    """RFC 9990 3: envelope_from is empty for <>, and absent where there is no domain."""
    base = evaluation()
    assert (
        from_evaluation(
            replace(base, envelope=replace(base.envelope, mail_from=path))
        ).envelope_from
        == stored
    )


def test_signatures_stand_in_the_priority_of_rfc_9990() -> None:
    """RFC 9990 3.1.3: pass and strictly aligned, pass and relaxed, other passes, the rest; at most
    100."""
    author, below, other = (
        Domain("legit.example"),
        Domain("mail.legit.example"),
        Domain("esp.example"),
    )
    found = replace(
        outcome(passed=True),
        identifiers=tuple(
            Identifier("dkim", each, "pass", each != other, AlignmentMode.RELAXED)
            for each in (author, below, other)
        ),
    )
    dkim = (
        DkimResult(DkimStatus.FAIL, author, "broken"),
        DkimResult(DkimStatus.PASS, other, "esp"),
        DkimResult(DkimStatus.PASS, below, "relaxed"),
        DkimResult(DkimStatus.PASS, author, "strict"),
        *(DkimResult(DkimStatus.PERMERROR, None) for _ in range(200)),
    )
    facts = from_evaluation(
        replace(evaluation(), dkim=dkim, dmarc=DmarcResult(DmarcStatus.PASS, author, found))
    )
    assert [(each.selector, each.aligned) for each in facts.dkim[:4]] == [
        ("strict", "strict"),
        ("relaxed", "relaxed"),
        ("esp", ""),
        ("broken", ""),
    ]
    assert len(facts.dkim) == MAX_SIGNATURES


def test_a_message_answered_4xx_is_not_counted() -> None:
    """docs/design.md, The ledger: logged, but not counted for reports."""
    assert not from_evaluation(
        evaluation(verdict=Verdict(Disposition.NONE, deferral=Deferral("dns")))
    ).counted
    assert from_evaluation(evaluation()).counted


def test_candidates_of_a_malformed_from_are_kept() -> None:
    """`why` must explain them; the first is the author domain of the log."""
    dmarc = DmarcResult(
        DmarcStatus.PERMERROR, None, candidates=(outcome("a.example"), outcome("b.example"))
    )
    facts = from_evaluation(evaluation(dmarc=dmarc, author=Author(None, "two From fields")))
    assert [each.author_domain for each in facts.candidates] == ["a.example", "b.example"]
    assert (facts.author_domain, facts.policy_domain, facts.malformed_from) == (
        "a.example",
        "",
        "two From fields",
    )


def test_monitor_mode_and_arc_are_kept() -> None:
    """`impact` shows what enforcement would have done."""
    arc = ArcResult(ArcStatus.PASS, (ArcHop(1, Domain("list.example"), "s"),))
    facts = from_evaluation(
        evaluation(
            arc=arc, verdict=Verdict(Disposition.NONE, Policy.REJECT, would_be=Disposition.REJECT)
        )
    )
    assert (facts.disposition, facts.would_be, facts.policy) == ("none", "reject", "reject")
    assert facts.arc is not None
    assert facts.arc.sealers == ("list.example",)
