"""Decisions told to people: advice that would help, and evidence that is proof."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.explain import explain, sentence
from dmarc_milter.core.explain.senders import Identity, Kind, SenderGroup, identities, sources
from dmarc_milter.core.stored import ArcFact, DkimFact, Facts, SpfFact, StoredOutcome, StoredPolicy
from dmarc_milter.core.text import printable


def facts(**changes: Any) -> Facts:
    """A refused message From news.brand.example by 192.0.2.66; `strict` asks for strict
    alignment."""
    mode = "s" if changes.pop("strict", False) else "r"
    published = StoredPolicy(
        "brand.example", p="reject", adkim=mode, aspf=mode, text="v=DMARC1; p=reject"
    )
    outcome = StoredOutcome(
        "news.brand.example", "fail", "reject", "p", "brand.example", published=published
    )
    base = Facts(
        id="1" * 32,
        at=1_790_000_000.0,
        queue_id="4Q",
        source_ip="192.0.2.66",
        envelope_from="bounce.example",
        status="fail",
        outcome=outcome,
        disposition="reject",
        policy="reject",
        decided_by="DMARC failed and brand.example asks for p=reject",
        spf=SpfFact("pass", "bounce.example"),
    )
    return replace_facts(base, **changes)


def replace_facts(base: Facts, **changes: Any) -> Facts:
    return msgspec.structs.replace(base, **changes)


def advice(found: Facts) -> str:
    text = "\n".join(explain(found))
    return text.partition("What would change it:")[2]


@pytest.mark.parametrize(
    ("changes", "there", "absent"),
    [
        (
            {},
            (
                "SPF passed for bounce.example, which does not align",
                "an envelope sender in news.brand.example",
            ),
            "SPF record",
        ),
        (
            {"spf": SpfFact("fail", "brand.example", mechanism="-all")},
            ("brand.example's SPF record listing 192.0.2.66 (now it matches -all)",),
            "an envelope",
        ),
        (
            {"spf": SpfFact("none", "mail.brand.example")},
            ("an SPF record at mail.brand.example that lists 192.0.2.66",),
            "an envelope",
        ),
        (
            {"spf": SpfFact("fail", "brand.example"), "strict": True},
            ("an envelope sender in news.brand.example",),
            "brand.example's SPF record",
        ),
        (
            {"spf": SpfFact("permerror", "brand.example", reason="record too long")},
            ("a sound SPF record", "record too long"),
            "an envelope",
        ),
        (
            {"spf": SpfFact("fail", "else.example")},
            ("an envelope sender in news.brand.example, and an SPF record there",),
            "else.example's",
        ),
        (
            {"dkim": (DkimFact("pass", "esp.example"),)},
            ("DKIM passed for esp.example", "d=news.brand.example would"),
            "survives transport",
        ),
        (
            {"dkim": (DkimFact("fail", "brand.example", reason="body changed"),)},
            ("the signature of brand.example verifying (now: fail, body changed)",),
            "survives",
        ),
        (
            {"dkim": (DkimFact("fail", "esp.example"),)},
            ("a DKIM signature with d=news.brand.example that survives transport",),
            "verifying",
        ),
        ({"counted": False, "status": "temperror"}, ("the DNS answering",), "envelope sender"),
        (
            {"malformed_from": "several From fields", "outcome": None},
            ("one From field with one address",),
            "envelope sender",
        ),
    ],
)
def test_the_advice_is_what_would_really_help(
    changes: dict[str, Any], there: tuple[str, ...], absent: str
) -> None:
    """SPF is recommended only where the name that it checks would align."""
    said = advice(facts(**changes))
    for words in there:
        assert words in said
    assert absent not in said


def test_mail_that_was_delivered_needs_no_advice() -> None:
    assert "What would change it" not in "\n".join(
        explain(facts(disposition="none", policy="none"))
    )
    assert "What would change it" in "\n".join(
        explain(facts(disposition="none", would_be="reject"))
    )


def test_what_a_passing_signature_leaves_uncovered_is_told() -> None:
    """ESP-20, RFC 6376 8.15: a field added on top passes, and whoever asks is told which; of a
    failing one it says nothing."""
    signed = DkimFact("pass", "legit.example", unsigned=("subject", "content-type"))
    assert "  not covered by it: subject, content-type" in explain(facts(dkim=(signed,)))
    assert "not covered" not in "\n".join(
        explain(facts(dkim=(msgspec.structs.replace(signed, result="fail"),)))
    )


def test_a_rule_is_named_that_rests_on_what_was_proven() -> None:
    said = advice(
        facts(spf=SpfFact("fail", "x.example"), dkim=(DkimFact("pass", "lists.example"),))
    )
    assert (
        'if you know lists.example: a [[policy.rules]] entry with action = "accept" and dkim ='
        ' ["lists.example"]' in said
    )
    assert "a [[policy.rules]] entry that matches" in advice(
        facts(spf=SpfFact("fail", "x.example"))
    )


def test_what_a_message_proves_is_told_best_first() -> None:
    """An aligned pass is the author's own and proves nobody else; a chain that fails proves
    nothing."""
    proven = facts(
        dkim=(
            DkimFact("pass", "brand.example", aligned="relaxed"),
            DkimFact("pass", "lists.example"),
            DkimFact("fail", "bad.example"),
        ),
        arc=ArcFact("pass", ("first.example", "last.example")),
        names=("mx.lists.example",),
    )
    assert list(identities(proven)) == [
        Identity("dkim", "lists.example"),
        Identity("arc", "last.example"),
        Identity("spf", "bounce.example"),
        Identity("ptr", "mx.lists.example"),
    ]
    assert (
        list(
            identities(facts(arc=ArcFact("fail", ("a.example",)), spf=SpfFact("fail", "a.example")))
        )
        == []
    )


def sample(author: str, address: str, *each: Facts) -> SenderGroup:
    return SenderGroup(author, address, len(each), each)


def test_a_claim_alone_is_nobody() -> None:
    """A List-Id can be written by anybody."""
    [source] = sources(
        [sample("a.example", "192.0.2.1", facts(spf=None, list_id="dev.lists.example"))]
    )
    assert (source.kind, source.identity, source.rule) == (Kind.UNPROVEN, None, "")
    assert "proves nothing" in source.evidence


def test_clients_that_prove_the_same_are_one_source() -> None:
    post = facts(dkim=(DkimFact("pass", "lists.example"),), list_id="dev.lists.example")
    [source] = sources(
        [sample("a.example", "192.0.2.1", post, post), sample("b.example", "192.0.2.2", post)]
    )
    assert (source.kind, source.messages, source.addresses) == (
        Kind.MAILING_LIST,
        3,
        ("192.0.2.1", "192.0.2.2"),
    )
    assert source.author_domains == ("a.example", "b.example")


def test_what_few_messages_prove_does_not_name_the_source() -> None:
    """One signed message among many forgeries from an address."""
    plain = facts(spf=SpfFact("fail", "x.example"))
    [source] = sources(
        [
            sample(
                "a.example",
                "192.0.2.1",
                plain,
                plain,
                plain,
                replace_facts(plain, dkim=(DkimFact("pass", "l.example"),)),
            )
        ]
    )
    assert source.identity is None


def test_a_service_that_sends_for_one_domain_is_not_a_forwarder() -> None:
    [one] = sources([sample("a.example", "192.0.2.1", facts())])
    [many] = sources(
        [sample("a.example", "192.0.2.1", facts()), sample("b.example", "192.0.2.1", facts())]
    )
    assert (one.kind, many.kind) == (Kind.OTHER, Kind.FORWARDER)


@pytest.mark.parametrize(
    ("proof", "suggested"),
    [
        ({"arc": ArcFact("pass", ("relay.example",))}, 'arc = ["relay.example"]'),
        (
            {"dkim": (DkimFact("pass", "l.example"),), "list_id": "x.l.example"},
            'dkim = ["l.example"]',
        ),
        ({"dkim": (DkimFact("pass", "attack.example"),)}, ""),
        ({}, ""),
    ],
)
def test_no_rule_is_suggested_for_what_any_forger_could_prove(
    proof: dict[str, Any], suggested: str
) -> None:
    """A forger's own domain passes SPF and DKIM as well as a forwarder's."""
    [source] = sources(
        [
            sample("bank.example", "192.0.2.1", facts(**proof)),
            sample("shop.example", "192.0.2.1", facts(**proof)),
        ]
    )
    assert suggested in source.rule
    assert bool(source.rule) == bool(suggested)


@given(st.text(max_size=40), st.text(max_size=40))
def test_everything_told_is_one_line_each(reason: str, mechanism: str) -> None:
    """Facts are printable when they are made; telling them adds no line end."""
    spf = SpfFact(
        "fail", "brand.example", reason=printable(reason, 200), mechanism=printable(mechanism, 200)
    )
    told = [*explain(facts(spf=spf)), sentence(facts(spf=spf))]
    assert all(line.isascii() and line.isprintable() for line in told)
