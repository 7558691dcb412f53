"""Local policy: RFC 7489 6.6.4 and 6.7, RFC 9989 5.3 and 7.4 row by row; local rules, ARC, caps and
monitor mode (docs/design.md)."""

from dataclasses import replace
from datetime import date
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

import pytest

from dmarc_milter.core.dmarc.record import Policy, parse
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome, PolicyPublished
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.policy.decide import (
    Context,
    Deferral,
    Disposition,
    LocalPolicy,
    OverrideReason,
    OverrideType,
    Rule,
    Verdict,
    decide,
)
from dmarc_milter.core.resolver import Missing

TODAY = date(2026, 11, 22)
LEGIT = Domain("legit.example")
NONE, PASS, QUARANTINE, REJECT = Disposition
LOCAL, TEST_MODE, SAMPLED_OUT = (
    OverrideType.LOCAL_POLICY,
    OverrideType.POLICY_TEST_MODE,
    OverrideType.SAMPLED_OUT,
)
OPEN = Context(source_ip=ip_address("192.0.2.66"))


def outcome(
    record: str, status: str = "fail", author: str = "legit.example", **more: Any
) -> DomainOutcome:
    """DMARC of one domain with its own record; no record for ""."""
    parsed = parse(record.encode()) if record else None
    if parsed is None:
        return DomainOutcome(DmarcStatus(status), Domain(author), reason="no policy record", **more)
    published = PolicyPublished(Domain(author), parsed, "treewalk")
    policy = (None if parsed.invalid_policy else parsed.p) or Policy.NONE
    return DomainOutcome(
        DmarcStatus(status),
        Domain(author),
        published=published,
        policy=policy,
        policy_tag="p",
        **more,
    )


def result(record: str, status: str = "fail", **more: Any) -> DmarcResult:
    each = outcome(record, status, **more)
    return DmarcResult(each.status, each.author_domain, each)


def judge(
    dmarc: DmarcResult,
    policy: LocalPolicy = LocalPolicy(),
    context: Context = OPEN,
    *,
    pct_draw: float = 0.0,
) -> Verdict:
    verdict = decide(dmarc, context, policy, pct_draw=pct_draw, today=TODAY)
    assert verdict.decided_by
    assert verdict.disposition is Disposition.NONE or not verdict.tempfail
    return verdict


def reasons(verdict: Verdict) -> list[tuple[str, str]]:
    return [(reason.type.value, reason.comment) for reason in verdict.reasons]


P_NONE, P_QUARANTINE, P_REJECT = (
    "v=DMARC1; p=none",
    "v=DMARC1; p=quarantine",
    "v=DMARC1; p=reject",
)


@pytest.mark.parametrize(
    ("record", "status", "disposition", "policy"),
    [
        ("", "none", NONE, "none"),
        (P_NONE, "pass", NONE, "none"),
        (P_QUARANTINE, "pass", PASS, "quarantine"),
        (P_REJECT, "pass", PASS, "reject"),
        (f"{P_REJECT}; t=y", "pass", PASS, "reject"),
        (f"{P_REJECT}; pct=0", "pass", PASS, "reject"),
        (P_NONE, "fail", NONE, "none"),
        (P_QUARANTINE, "fail", QUARANTINE, "quarantine"),
        (P_REJECT, "fail", REJECT, "reject"),
        ("v=DMARC1; p=xx; rua=mailto:a@b.example", "fail", NONE, "none"),
    ],
)
def test_published_policy(record: str, status: str, disposition: Disposition, policy: str) -> None:
    """RFC 9989 5.3: what each result does without anything else; no reason is needed."""
    verdict = judge(result(record, status))
    assert (verdict.disposition, verdict.policy.value, verdict.reasons) == (disposition, policy, ())
    assert not verdict.tempfail
    assert verdict.would_be is None


@pytest.mark.parametrize(
    ("record", "disposition", "reason"),
    [
        (f"{P_REJECT}; t=y", QUARANTINE, ("policy_test_mode", "t=y")),
        (f"{P_QUARANTINE}; t=y", NONE, ("policy_test_mode", "t=y")),
        (f"{P_NONE}; t=y", NONE, None),
        (f"{P_REJECT}; t=n", REJECT, None),
        (f"{P_REJECT}; t=y; pct=0", QUARANTINE, ("policy_test_mode", "t=y")),
        (f"{P_REJECT}; t=n; pct=0", REJECT, None),
        (f"{P_REJECT}; t=bad; pct=0", QUARANTINE, ("sampled_out", "pct=0")),
        (f"{P_REJECT}; t=bad", REJECT, None),
    ],
)
def test_test_mode(record: str, disposition: Disposition, reason: tuple[str, str] | None) -> None:
    """RFC 9989 4.7: t=y is one level lower; it replaces pct (DMR-06)."""
    verdict = judge(result(record), pct_draw=99.0)
    assert verdict.disposition is disposition
    assert verdict.policy.value == disposition.value
    assert reasons(verdict) == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("record", "pct_draw", "disposition"),
    [
        (f"{P_REJECT}; pct=100", 99.99, REJECT),
        (f"{P_REJECT}; pct=50", 0.0, REJECT),
        (f"{P_REJECT}; pct=50", 49.99, REJECT),
        (f"{P_REJECT}; pct=50", 50.0, QUARANTINE),
        (f"{P_REJECT}; pct=50", 99.99, QUARANTINE),
        (f"{P_REJECT}; pct=0", 0.0, QUARANTINE),
        (f"{P_REJECT}; pct=1", 0.99, REJECT),
        (f"{P_REJECT}; pct=bad", 99.0, REJECT),
        (f"{P_REJECT}; pct=500", 99.0, REJECT),
        (f"{P_REJECT}; pct=0; t=bad", 99.0, QUARANTINE),
        (f"{P_QUARANTINE}; pct=50", 49.0, QUARANTINE),
        (f"{P_QUARANTINE}; pct=50", 51.0, NONE),
        (f"{P_NONE}; pct=50", 51.0, NONE),
    ],
)
def test_sampling(record: str, pct_draw: float, disposition: Disposition) -> None:
    """RFC 7489 6.6.4: those left out are treated one level lower, and the row says so."""
    verdict = judge(result(record), pct_draw=pct_draw)
    published = record.split("p=")[1].split(";", maxsplit=1)[0]
    assert verdict.disposition is disposition
    assert [reason.type for reason in verdict.reasons] == (
        [SAMPLED_OUT] if published != disposition.value else []
    )
    ignored = judge(result(record), LocalPolicy(honor_pct=False), pct_draw=pct_draw)
    assert (ignored.disposition.value, ignored.reasons) == (published, ())


def test_sampling_approximates_the_percentage() -> None:
    """RFC 7489 6.6.4: over many messages the share is right, and never more."""
    chosen = sum(
        judge(result(f"{P_REJECT}; pct=30"), pct_draw=n / 10).disposition is REJECT
        for n in range(1000)
    )
    assert chosen == 300


@pytest.mark.parametrize(
    ("record", "policy", "disposition", "evaluated", "comments"),
    [
        (
            P_REJECT,
            LocalPolicy(reject_action="quarantine"),
            QUARANTINE,
            "quarantine",
            ["reject_action=quarantine"],
        ),
        (P_QUARANTINE, LocalPolicy(reject_action="quarantine"), QUARANTINE, "quarantine", []),
        (P_NONE, LocalPolicy(reject_action="quarantine"), NONE, "none", []),
        (
            f"{P_REJECT}; t=y",
            LocalPolicy(reject_action="quarantine"),
            QUARANTINE,
            "quarantine",
            ["t=y"],
        ),
        (
            P_QUARANTINE,
            LocalPolicy(quarantine_action="reject"),
            REJECT,
            "quarantine",
            ["quarantine_action=reject"],
        ),
        (P_REJECT, LocalPolicy(quarantine_action="reject"), REJECT, "reject", []),
        (P_NONE, LocalPolicy(quarantine_action="reject"), NONE, "none", []),
        (P_QUARANTINE, LocalPolicy(quarantine_action="hold"), QUARANTINE, "quarantine", []),
    ],
)
def test_local_actions(
    record: str, policy: LocalPolicy, disposition: Disposition, evaluated: str, comments: list[str]
) -> None:
    """RFC 9989 7.4 caution and how quarantine is done; a deviation is a local_policy reason."""
    verdict = judge(result(record), policy)
    assert (verdict.disposition, verdict.policy.value) == (disposition, evaluated)
    assert [reason.comment for reason in verdict.reasons] == comments


# --- DNS failures


ACCEPT, TEMPFAIL = LocalPolicy(on_temperror="accept"), LocalPolicy(on_temperror="tempfail")


@pytest.mark.parametrize(
    ("record", "enforced", "tempfail"),
    [
        ("", False, True),
        (P_REJECT, True, True),
        (P_QUARANTINE, True, True),
        (P_NONE, False, False),
        (f"{P_QUARANTINE}; t=y", False, False),
        (f"{P_REJECT}; t=y", True, True),
        (f"{P_QUARANTINE}; pct=0", False, False),
        (f"{P_REJECT}; pct=0", True, True),
        ("v=DMARC1; p=xx; rua=mailto:a@b.example", False, False),
    ],
)
def test_temperror(record: str, enforced: bool, tempfail: bool) -> None:
    """docs/design.md, on_temperror: 451 while an enforcing policy is known, never, or also while
    none could be looked up; never a 550.

    The policy is what is left of it after t and pct.
    """
    dmarc = result(record, "temperror")
    for policy, deferred in ((LocalPolicy(), enforced), (ACCEPT, False), (TEMPFAIL, tempfail)):
        verdict = judge(dmarc, policy)
        assert (verdict.disposition, verdict.tempfail) == (NONE, deferred), policy


def supposed(
    record: str, missing: Missing = Missing("dns", "_dmarc.sub.legit.example"), **more: Any
) -> DmarcResult:
    """The search for the policy was left open; read as "no record", this one asks."""
    each = outcome(record, "temperror", **more)
    each = replace(each, published=None, supposed=each.published, missing=missing)
    return DmarcResult(each.status, each.author_domain, each)


@pytest.mark.parametrize(
    ("record", "enforced"),
    [
        (P_REJECT, True),
        (P_QUARANTINE, True),
        (P_NONE, False),
        (f"{P_QUARANTINE}; t=y", False),
        (f"{P_REJECT}; t=y", True),
        (f"{P_QUARANTINE}; pct=0", False),
    ],
)
def test_a_policy_that_is_known_but_for_the_failing_steps_is_enforced(
    record: str, enforced: bool
) -> None:
    """docs/design.md, on_temperror: whoever chooses which of the victim's names is asked is not
    delivered; the name is told."""
    verdict = judge(supposed(record))
    assert verdict.deferral == (Deferral("dns", "_dmarc.sub.legit.example") if enforced else None)
    assert (
        f"legit.example asks for p={'reject' if 'reject' in record else 'quarantine'}"
        in verdict.decided_by
    ) is enforced
    assert judge(supposed(record), ACCEPT).deferral is None
    assert judge(supposed(record), TEMPFAIL).tempfail


def test_a_name_that_may_not_exist_waits_for_the_stricter_np() -> None:
    """RFC 9989 4.7: np asks for more than sp, and whether the author domain exists was not found
    out."""
    unknown = result(
        P_NONE, "temperror", unsure=Policy.REJECT, missing=Missing("dns", "x.legit.example")
    )
    assert judge(unknown).deferral == Deferral("dns", "x.legit.example")
    assert judge(result(f"{P_NONE}; t=y", "temperror", unsure=Policy.QUARANTINE)).deferral is None
    assert judge(unknown, ACCEPT).disposition is NONE


@pytest.mark.parametrize("policy", [LocalPolicy(), ACCEPT, TEMPFAIL])
@pytest.mark.parametrize(
    ("dmarc", "deferral"),
    [
        (
            result(P_REJECT, "temperror", missing=Missing("shortage", "a.example")),
            Deferral("overloaded", "a.example"),
        ),
        (
            result("", "temperror", missing=Missing("shortage", "a.example")),
            Deferral("overloaded", "a.example"),
        ),
        (supposed(P_NONE, Missing("shortage", "a.example")), Deferral("overloaded", "a.example")),
        (result(P_NONE, "temperror", missing=Missing("shortage", "a.example")), None),
        (
            result("", "temperror", missing=Missing("time", "a.example")),
            Deferral("dns", "a.example"),
        ),
        (supposed(P_NONE, Missing("time", "a.example")), Deferral("dns", "a.example")),
        (result(P_NONE, "temperror", missing=Missing("time", "a.example")), None),
        (result(P_REJECT, "temperror", missing=Missing("failure")), Deferral("failure")),
    ],
)
def test_what_others_or_the_message_used_up_is_never_delivered(
    policy: LocalPolicy, dmarc: DmarcResult, deferral: Deferral | None
) -> None:
    """docs/design.md, Decisions: 451 whatever on_temperror says; but a policy of none has nothing
    to wait for."""
    assert judge(dmarc, policy).deferral == deferral


def test_what_was_not_evaluated_follows_on_error() -> None:
    """docs/design.md, Configuration, on_error."""
    dmarc = result(P_REJECT, "temperror", missing=Missing("failure"))
    assert judge(dmarc, LocalPolicy(on_error="accept")).deferral is None


def test_a_trusted_chain_ends_the_waiting() -> None:
    """RFC 8617 7.2.2: pass or fail, the message would be delivered."""
    for dmarc in (result(P_REJECT, "temperror"), supposed(P_REJECT)):
        verdict = judge(dmarc, context=replace(OPEN, arc_override="arc=pass"))
        assert (verdict.disposition, verdict.deferral) == (NONE, None)


RELAYED = replace(OPEN, relayed=True)


@pytest.mark.parametrize(
    ("dmarc", "policy", "disposition", "reason"),
    [
        (result(P_REJECT, "temperror"), LocalPolicy(), QUARANTINE, "dns"),
        (supposed(P_QUARANTINE), LocalPolicy(), QUARANTINE, "dns"),
        (result(P_REJECT, "temperror"), LocalPolicy(quarantine_action="reject"), QUARANTINE, "dns"),
        (result("", "temperror"), LocalPolicy(), NONE, None),
        (result("", "temperror"), TEMPFAIL, NONE, "dns"),
        (result(P_NONE, "temperror"), LocalPolicy(), NONE, None),
        (result(P_REJECT, "temperror"), ACCEPT, NONE, None),
        (result("", "temperror", missing=Missing("shortage")), LocalPolicy(), NONE, "overloaded"),
        (
            result(P_REJECT, "temperror", missing=Missing("shortage")),
            LocalPolicy(),
            QUARANTINE,
            "overloaded",
        ),
    ],
)
def test_mail_from_trusted_relays_does_not_wait(
    dmarc: DmarcResult, policy: LocalPolicy, disposition: Disposition, reason: str | None
) -> None:
    """docs/design.md, Decisions: their queues must not fill and bounce: delivered, or quarantined
    where the policy is known."""
    verdict = judge(dmarc, policy, RELAYED)
    assert (verdict.disposition, verdict.deferral) == (disposition, None)
    assert (verdict.would_wait.reason if verdict.would_wait else None) == reason
    assert verdict.would_have == ("tempfail" if reason else "")


@pytest.mark.parametrize(
    "dmarc",
    [
        result(P_REJECT, "temperror"),
        supposed(P_REJECT),
        result("", "temperror", missing=Missing("time")),
    ],
)
def test_monitor_mode_tells_what_would_have_waited(dmarc: DmarcResult) -> None:
    """docs/design.md, enforce = false: delivered, and the deferral that was not made is kept with
    its name."""
    verdict = judge(dmarc, LocalPolicy(enforce=False))
    assert (verdict.disposition, verdict.deferral, verdict.would_be) == (NONE, None, NONE)
    assert verdict.would_wait == judge(dmarc).deferral
    assert verdict.would_have == "tempfail"
    if dmarc.outcome and dmarc.outcome.published:
        assert reasons(verdict) == [("other", "dns error")]


@pytest.mark.parametrize("action", ["quarantine", "reject"])
@pytest.mark.parametrize(
    "dmarc",
    [
        result(P_NONE, "temperror"),
        result("", "temperror"),
        supposed(P_NONE),
        result(P_REJECT, "temperror"),
    ],
)
def test_a_strict_rule_is_a_policy_that_is_known(dmarc: DmarcResult, action: str) -> None:
    """The administrator's own refusal of a domain cannot be escaped by a name of it whose DNS
    fails; nor does it hit unjudged mail."""
    rules = (rule(action, **ANY), rule("accept", **ANY))
    assert judge(dmarc, LocalPolicy(rules=rules), RULE_CONTEXT).tempfail
    assert not judge(dmarc, replace(ACCEPT, rules=rules), RULE_CONTEXT).tempfail
    relayed = judge(dmarc, LocalPolicy(rules=rules), replace(RULE_CONTEXT, relayed=True))
    assert (relayed.disposition, relayed.tempfail) == (QUARANTINE, False)


@pytest.mark.parametrize("action", ["accept", "none"])
@pytest.mark.parametrize(
    "dmarc",
    [
        result(P_REJECT, "temperror"),
        supposed(P_REJECT),
        result("", "temperror", missing=Missing("shortage", "a.example")),
    ],
)
def test_a_lenient_rule_ends_the_waiting(dmarc: DmarcResult, action: str) -> None:
    """docs/design.md, Decisions: an effective policy of none, after rules, is never deferred."""
    verdict = judge(dmarc, LocalPolicy(rules=(rule(action, **ANY),)), RULE_CONTEXT)
    assert (verdict.disposition, verdict.deferral) == (NONE, None)


def test_what_we_were_too_busy_to_prove_is_not_held_against_a_sender() -> None:
    """A rule or a trusted sealer may have let the message through by an identity that was not
    looked up: 451 instead of 550."""
    short = replace(OPEN, shortage=Missing("shortage", "sel._domainkey.list.example"))
    assert judge(result(P_REJECT), context=short).deferral == Deferral(
        "overloaded", "sel._domainkey.list.example"
    )
    assert judge(result(P_NONE), context=short).deferral is None
    assert judge(result(P_REJECT, "pass"), context=short).disposition is PASS
    assert judge(result(P_REJECT), LocalPolicy(enforce=False), short).would_have == "tempfail"


def test_temperror_under_a_policy_says_why_it_was_not_applied() -> None:
    """RFC 9989 5.3: none + other "dns error"."""
    assert reasons(judge(result(P_REJECT, "temperror"), ACCEPT)) == [("other", "dns error")]
    assert reasons(judge(result(P_NONE, "temperror"), ACCEPT)) == []


OVER = Missing("limit", "_dmarc.a.example")


@pytest.mark.parametrize(
    "dmarc",
    [result("", "temperror", missing=OVER), supposed(P_REJECT, OVER), supposed(P_NONE, OVER)],
)
def test_a_message_that_exceeds_its_own_limit_is_refused(dmarc: DmarcResult) -> None:
    """docs/design.md, Decisions: it will be no better when it comes again, and no policy can be
    known; whatever on_temperror says."""
    for policy in (
        LocalPolicy(),
        ACCEPT,
        TEMPFAIL,
        LocalPolicy(reject_action="quarantine"),
        LocalPolicy(on_error="accept"),
    ):
        verdict = judge(dmarc, policy)
        assert (verdict.disposition, verdict.deferral, verdict.over_limit) == (REJECT, None, True)
        assert "[limits] dns_queries" in verdict.decided_by
        assert reasons(verdict) == [("local_policy", "too many DNS queries")]
    monitored = judge(dmarc, LocalPolicy(enforce=False))
    assert (monitored.disposition, monitored.over_limit, monitored.would_have) == (
        NONE,
        False,
        "reject",
    )


@pytest.mark.parametrize(
    "dmarc",
    [result("", "temperror", missing=OVER), supposed(P_REJECT, OVER), supposed(P_NONE, OVER)],
)
def test_mail_from_trusted_relays_that_exceeds_a_limit_is_quarantined(dmarc: DmarcResult) -> None:
    """Not refused, since their bounces would go to strangers; nor delivered, since it is the
    message's own doing."""
    for policy in (LocalPolicy(), LocalPolicy(quarantine_action="reject")):
        verdict = judge(dmarc, policy, RELAYED)
        assert (verdict.disposition, verdict.over_limit, verdict.would_have) == (
            QUARANTINE,
            False,
            "reject",
        )


def test_a_rule_or_a_trusted_chain_lets_through_what_exceeds_a_limit() -> None:
    """The administrator's word ends it; a strict rule changes nothing, and no later rule softens
    it."""
    dmarc = supposed(P_REJECT, OVER)
    for action in ("accept", "none"):
        assert (
            judge(dmarc, LocalPolicy(rules=(rule(action, **ANY),)), RULE_CONTEXT).disposition
            is NONE
        )
    for action in ("quarantine", "reject"):
        verdict = judge(
            dmarc, LocalPolicy(rules=(rule(action, **ANY), rule("accept", **ANY))), RULE_CONTEXT
        )
        assert (verdict.disposition, verdict.over_limit) == (REJECT, True)
    assert judge(dmarc, context=replace(OPEN, arc_override="arc=pass")).disposition is NONE


def test_a_shortage_beside_it_does_not_save_what_exceeds_a_limit() -> None:
    """It asked for too much, whatever others took."""
    short = replace(OPEN, shortage=Missing("shortage", "sel._domainkey.list.example"))
    verdict = judge(supposed(P_REJECT, OVER), context=short)
    assert (verdict.disposition, verdict.deferral, verdict.over_limit) == (REJECT, None, True)


def test_a_policy_of_none_that_is_known_is_never_refused_for_a_limit() -> None:
    """docs/design.md, Decisions: effective policy none."""
    for record in (P_NONE, f"{P_QUARANTINE}; t=y", f"{P_QUARANTINE}; pct=0"):
        assert judge(result(record, "temperror", missing=OVER)).disposition is NONE


# --- malformed From


@pytest.mark.parametrize("others", [(), ("dns",), ("shortage", "dns")])
def test_a_candidate_beyond_the_limit_is_refused_before_others_wait(
    others: tuple[Any, ...],
) -> None:
    """The message's own doing comes first; but a candidate that fails p=reject is refused for
    that."""
    waiting = [
        outcome(P_REJECT, "temperror", f"{each}.example", missing=Missing(each)) for each in others
    ]
    over = outcome("", "temperror", "over.example", missing=OVER)
    verdict = judge(malformed(*waiting, over))
    assert (verdict.disposition, verdict.deferral, verdict.over_limit) == (REJECT, None, True)
    assert judge(malformed(*waiting, over), context=RELAYED).disposition is QUARANTINE
    assert not judge(malformed(over, outcome(P_REJECT))).over_limit


def malformed(*candidates: DomainOutcome, more: bool = False) -> DmarcResult:
    return DmarcResult(DmarcStatus.PERMERROR, None, None, candidates, more, "several domains")


A_REJECT, B_QUARANTINE, C_NONE = (
    outcome(P_REJECT, author="a.example"),
    outcome(P_QUARANTINE, author="b.example"),
    outcome(P_NONE),
)
D_PASS, E_NONE = outcome(P_REJECT, "pass", "d.example"), outcome("", "none", "e.example")
F_TEMPERROR, G_UNKNOWN = (
    outcome(P_REJECT, "temperror", "f.example"),
    outcome("", "temperror", "g.example"),
)


@pytest.mark.parametrize(
    ("dmarc", "disposition"),
    [
        (malformed(), QUARANTINE),
        (malformed(A_REJECT), REJECT),
        (malformed(B_QUARANTINE), QUARANTINE),
        (malformed(C_NONE), NONE),
        (malformed(D_PASS), NONE),
        (malformed(E_NONE), NONE),
        (malformed(D_PASS, A_REJECT), REJECT),
        (malformed(A_REJECT, B_QUARANTINE, C_NONE, D_PASS), REJECT),
        (malformed(E_NONE, B_QUARANTINE, C_NONE), QUARANTINE),
        (malformed(outcome(P_QUARANTINE, "temperror", "f.example"), B_QUARANTINE), QUARANTINE),
        (malformed(G_UNKNOWN), NONE),
        (malformed(G_UNKNOWN, B_QUARANTINE), QUARANTINE),
        (malformed(outcome("", "none", "localhost"), outcome("", "none", "bank")), QUARANTINE),
        (malformed(outcome("", "none", "localhost"), outcome(P_REJECT, author="bank")), REJECT),
        (malformed(outcome("", "none", "localhost"), E_NONE), NONE),
        (malformed(outcome("", "none", "localhost"), outcome(P_NONE, author="bank")), NONE),
        (malformed(C_NONE, D_PASS, E_NONE, C_NONE, more=True), REJECT),
        (malformed(outcome(f"{P_REJECT}; t=y")), QUARANTINE),
        (malformed(outcome(f"{P_REJECT}; pct=0")), QUARANTINE),
        (malformed(outcome(P_REJECT, testing_key_only=True), B_QUARANTINE), QUARANTINE),
    ],
)
def test_malformed_from_strictest(dmarc: DmarcResult, disposition: Disposition) -> None:
    """RFC 7489 6.6.1, docs/design.md: the strictest failing policy; more than four domains as
    p=reject; none at all quarantined."""
    assert judge(dmarc).disposition is disposition


@pytest.mark.parametrize(
    ("action", "dispositions"),
    [("reject", [REJECT] * 4), ("quarantine", [QUARANTINE] * 4), ("accept", [NONE] * 4)],
)
def test_malformed_from_by_choice(action: Any, dispositions: list[Disposition]) -> None:
    """malformed_from = reject | quarantine | accept, whatever is in it."""
    found = [
        judge(each, LocalPolicy(malformed_from=action)).disposition
        for each in (malformed(), malformed(A_REJECT), malformed(D_PASS))
    ]
    found.append(
        judge(malformed(C_NONE, more=True), LocalPolicy(malformed_from=action)).disposition
    )
    assert found == dispositions


def test_malformed_from_and_caution() -> None:
    """reject_action applies to it as to any p=reject; monitor mode does nothing."""
    assert (
        judge(malformed(A_REJECT), LocalPolicy(reject_action="quarantine")).disposition
        is QUARANTINE
    )
    assert (
        judge(malformed(more=True), LocalPolicy(reject_action="quarantine")).disposition
        is QUARANTINE
    )
    monitored = judge(malformed(A_REJECT), LocalPolicy(enforce=False))
    assert (monitored.disposition, monitored.would_be) == (NONE, REJECT)


def open_one(record: str, name: str, **more: Any) -> DomainOutcome:
    """A candidate whose policy is known but for a failing step."""
    found = supposed(record, Missing("dns", f"_dmarc.x.{name}"), author=name, **more).outcome
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("dmarc", "enforced", "tempfail"),
    [
        (malformed(F_TEMPERROR), True, True),
        (malformed(F_TEMPERROR, B_QUARANTINE), True, True),
        (malformed(outcome(P_QUARANTINE, "temperror"), B_QUARANTINE), False, False),
        (malformed(G_UNKNOWN, C_NONE), False, True),
        (malformed(G_UNKNOWN, B_QUARANTINE), False, True),
        (malformed(F_TEMPERROR, A_REJECT), False, False),
        (malformed(outcome(P_NONE, "temperror")), False, False),
        (malformed(open_one(P_REJECT, "f.example"), D_PASS), True, True),
        (malformed(open_one(P_NONE, "f.example"), D_PASS), False, True),
        (
            malformed(outcome("", "none", "localhost"), outcome(P_REJECT, "temperror", "bank")),
            True,
            True,
        ),
    ],
)
def test_malformed_from_with_dns_failures(
    dmarc: DmarcResult, enforced: bool, tempfail: bool
) -> None:
    """Deferred only where a policy that could not be judged might be stricter than what is
    certain."""
    assert judge(dmarc).tempfail is enforced
    assert judge(dmarc, TEMPFAIL).tempfail is tempfail
    assert not judge(dmarc, ACCEPT).tempfail
    relayed = judge(dmarc, TEMPFAIL, RELAYED)
    assert not relayed.tempfail
    if enforced or judge(dmarc).disposition is QUARANTINE:
        assert relayed.disposition is QUARANTINE


def test_of_several_domains_the_one_that_is_waited_for_is_named() -> None:
    """The name that failed, of a candidate that makes the message wait; a shortage is told before
    trouble in the DNS."""
    waits = malformed(C_NONE, open_one(P_REJECT, "f.example"), E_NONE)
    assert judge(waits).deferral == Deferral("dns", "_dmarc.x.f.example")
    short = replace(F_TEMPERROR, missing=Missing("shortage", "_dmarc.g.example"))
    assert judge(malformed(open_one(P_REJECT, "f.example"), short)).deferral == Deferral(
        "overloaded", "_dmarc.g.example"
    )


# --- caps


def test_an_unreadable_source_is_at_most_quarantined() -> None:
    """docs/design.md, trusted_relays: a refusal would bounce from our own relay."""
    hidden = Context(source_ip=None, source_known=False)
    verdict = judge(result(P_REJECT), context=hidden)
    assert (verdict.disposition, verdict.policy.value) == (QUARANTINE, "reject")
    assert [reason.type for reason in verdict.reasons] == [LOCAL]
    for policy in (LocalPolicy(quarantine_action="reject"), LocalPolicy(malformed_from="reject")):
        for dmarc in (
            result(P_REJECT),
            result(P_QUARANTINE),
            malformed(A_REJECT),
            malformed(more=True),
        ):
            assert judge(dmarc, policy, hidden).disposition is QUARANTINE
    assert judge(result(P_NONE), context=hidden).disposition is NONE


def test_a_testing_key_of_one_author_does_not_cap_another() -> None:
    """malformed_from = "strictest": with quarantine_action = "reject" the other domain's
    quarantine is a refusal, in either order."""
    capped, policy = (
        outcome(P_REJECT, testing_key_only=True),
        LocalPolicy(quarantine_action="reject"),
    )
    for candidates in ((capped, B_QUARANTINE), (B_QUARANTINE, capped)):
        assert judge(malformed(*candidates), policy).disposition is REJECT
    assert judge(malformed(capped), policy).disposition is QUARANTINE


def test_a_testing_key_caps_the_disposition() -> None:
    """docs/design.md, testing_key_action: quarantine with local_policy, unless reject is chosen."""
    dmarc = result(P_REJECT, testing_key_only=True)
    verdict = judge(dmarc)
    assert (verdict.disposition, reasons(verdict)) == (
        QUARANTINE,
        [("local_policy", "testing key")],
    )
    assert judge(dmarc, LocalPolicy(quarantine_action="reject")).disposition is QUARANTINE
    assert judge(dmarc, LocalPolicy(testing_key_action="reject")).disposition is REJECT
    assert reasons(judge(result(P_QUARANTINE, testing_key_only=True))) == []


# --- ARC

TRUSTED = replace(
    OPEN, arc_override="arc=pass as[1].d=list.example as[1].s=s remote-ip[1]=192.0.2.1"
)


@pytest.mark.parametrize(
    ("record", "status", "disposition"),
    [
        (P_REJECT, "fail", NONE),
        (P_QUARANTINE, "fail", NONE),
        (P_NONE, "fail", NONE),
        (P_REJECT, "pass", PASS),
        ("", "none", NONE),
        (P_REJECT, "temperror", NONE),
    ],
)
def test_a_trusted_chain_overrides_reject_and_quarantine(
    record: str, status: str, disposition: Disposition
) -> None:
    """RFC 8617 7.2.2: local_policy with the chain as comment; policy.dmarc stays what the
    policy asked for."""
    verdict = judge(result(record, status), context=TRUSTED)
    assert verdict.disposition is disposition
    overridden = status == "fail" and record != P_NONE
    assert (("local_policy", TRUSTED.arc_override) in reasons(verdict)) is overridden
    if overridden:
        assert verdict.policy.value == record.rsplit("=", maxsplit=1)[-1]


def test_a_malformed_author_is_never_overridden_by_a_chain() -> None:
    """There is no author domain that the chain could have passed."""
    assert judge(malformed(A_REJECT), context=TRUSTED).disposition is REJECT


# --- local rules

LIST = Domain("list.example")
RULE_CONTEXT = Context(
    source_ip=ip_address("192.0.2.66"),
    recipient_domains=(Domain("example.com"),),
    dkim_domains=(Domain("bulk.list.example"),),
    spf_domain=Domain("bounce.forward.example"),
    names=("mx.host.example",),
    arc_sealers=(Domain("first.example"), Domain("last.example")),
)


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        ({}, False),
        ({"author_domains": ["legit.example"]}, True),
        ({"author_domains": ["example"]}, True),
        ({"author_domains": ["other.example", "legit.example"]}, True),
        ({"author_domains": ["git.example"]}, False),
        ({"author_domains": ["a.legit.example"]}, False),
        ({"author_domains": ["example"], "include_subdomains": False}, False),
        ({"author_domains": ["legit.example"], "include_subdomains": False}, True),
        ({"networks": ["192.0.2.0/24"]}, True),
        ({"networks": ["198.51.100.0/24", "192.0.2.66/32"]}, True),
        ({"networks": ["198.51.100.0/24"]}, False),
        ({"networks": ["2001:db8::/32"]}, False),
        ({"networks": ["::/0"]}, False),
        ({"dkim": ["list.example"]}, True),
        ({"dkim": ["bulk.list.example"]}, True),
        ({"dkim": ["x.bulk.list.example"]}, False),
        ({"dkim": ["legit.example"]}, False),
        ({"spf": ["forward.example"]}, True),
        ({"spf": ["list.example"]}, False),
        ({"ptr": ["host.example"]}, True),
        ({"ptr": ["ost.example"]}, False),
        ({"arc": ["last.example"]}, True),
        ({"arc": ["first.example"]}, False),
        ({"arc": ["example"]}, False),
        ({"arc": ["x.last.example"]}, False),
        ({"arc": ["other.example", "last.example"]}, True),
        ({"recipient_domains": ["example.com"]}, True),
        ({"recipient_domains": ["com"]}, False),
        ({"recipient_domains": ["other.example"]}, False),
        (
            {
                "author_domains": ["legit.example"],
                "networks": ["192.0.2.0/24"],
                "dkim": ["list.example"],
            },
            True,
        ),
        ({"author_domains": ["legit.example"], "networks": ["198.51.100.0/24"]}, False),
        ({"networks": ["192.0.2.0/24"], "expires": date(2026, 11, 22)}, True),
        ({"networks": ["192.0.2.0/24"], "expires": date(2026, 11, 21)}, False),
        ({"expires": date(2027, 1, 1)}, False),
    ],
)
def test_when_a_rule_matches(conditions: dict[str, Any], matches: bool) -> None:
    """Every condition given holds, by any of its values; names by whole labels; through its last
    day."""
    verdict = judge(
        result(P_REJECT), LocalPolicy(rules=(rule("accept", **conditions),)), RULE_CONTEXT
    )
    assert verdict.disposition is (NONE if matches else REJECT)


def rule(action: Any, **conditions: Any) -> Rule:
    """A rule from words."""
    made: dict[str, Any] = {}
    for name, value in conditions.items():
        if name == "networks":
            made[name] = tuple(map(ip_network, value))
        else:
            made[name] = tuple(map(Domain, value)) if isinstance(value, list) else value
    return Rule(action, **made)


ANY = {"networks": ["0.0.0.0/0"]}


@pytest.mark.parametrize(
    ("record", "status", "action", "disposition"),
    [
        (P_REJECT, "fail", "accept", NONE),
        (P_REJECT, "fail", "none", NONE),
        (P_REJECT, "fail", "quarantine", QUARANTINE),
        (P_REJECT, "fail", "tag", REJECT),
        (P_NONE, "fail", "quarantine", QUARANTINE),
        (P_NONE, "fail", "reject", REJECT),
        ("", "none", "reject", REJECT),
        ("", "none", "quarantine", QUARANTINE),
        ("", "none", "accept", NONE),
        (P_REJECT, "pass", "reject", PASS),
        (P_NONE, "pass", "quarantine", NONE),
        (P_REJECT, "temperror", "reject", NONE),
        (P_REJECT, "temperror", "accept", NONE),
    ],
)
def test_what_a_rule_does(record: str, status: str, action: str, disposition: Disposition) -> None:
    """A rule decides for mail without a DMARC pass; a pass stays, and a DNS failure refuses
    nothing."""
    verdict = judge(
        result(record, status),
        LocalPolicy(rules=(rule(action, comment="why", **ANY),)),
        RULE_CONTEXT,
    )
    assert verdict.disposition is disposition


def test_a_rule_gives_its_reason_and_comment() -> None:
    """The right override reason: reports and Authentication-Results show it."""
    rules = (rule("accept", comment="the club's list", reason=OverrideType.MAILING_LIST, **ANY),)
    verdict = judge(result(P_REJECT), LocalPolicy(rules=rules), RULE_CONTEXT)
    assert verdict.reasons == (OverrideReason(OverrideType.MAILING_LIST, "the club's list"),)
    assert "local rule 1" in verdict.decided_by
    assert verdict.policy is Policy.REJECT


def test_the_first_rule_that_matches_decides() -> None:
    """Ordered; tags are collected on the way and do not decide."""
    rules = (
        rule("accept", dkim=["nobody.example"]),
        rule("tag", tag="seen", **ANY),
        rule("quarantine", comment="second", **ANY),
        rule("accept", **ANY),
        rule("tag", tag="late", **ANY),
    )
    verdict = judge(result(P_REJECT), LocalPolicy(rules=rules), RULE_CONTEXT)
    assert (verdict.disposition, verdict.tags, reasons(verdict)) == (
        QUARANTINE,
        ("seen",),
        [("local_policy", "second")],
    )


def test_a_rule_that_changes_nothing_gives_no_reason() -> None:
    """RFC 9990: a reason explains a deviation."""
    assert (
        judge(result(P_REJECT), LocalPolicy(rules=(rule("reject", **ANY),)), RULE_CONTEXT).reasons
        == ()
    )
    assert (
        judge(result(P_NONE), LocalPolicy(rules=(rule("accept", **ANY),)), RULE_CONTEXT).reasons
        == ()
    )


def test_accept_delivers_what_would_be_deferred_and_none_does_not() -> None:
    """`none` is like p=none where the policy is not even known."""
    tempfail = LocalPolicy(on_temperror="tempfail")
    dmarc = result(P_REJECT, "temperror")
    assert not judge(
        dmarc, replace(tempfail, rules=(rule("accept", **ANY),)), RULE_CONTEXT
    ).tempfail
    assert judge(dmarc, replace(tempfail, rules=(rule("none", **ANY),)), RULE_CONTEXT).tempfail


def test_all_recipients_must_be_in_the_rule() -> None:
    """A second recipient cannot carry the exception of the first to others."""
    both = replace(RULE_CONTEXT, recipient_domains=(Domain("example.com"), Domain("example.org")))
    rules = (rule("accept", recipient_domains=["example.com"]),)
    assert judge(result(P_REJECT), LocalPolicy(rules=rules), both).disposition is REJECT
    unknown = replace(RULE_CONTEXT, recipients_known=False)
    assert judge(result(P_REJECT), LocalPolicy(rules=rules), unknown).disposition is REJECT
    nobody = replace(RULE_CONTEXT, recipient_domains=())
    assert judge(result(P_REJECT), LocalPolicy(rules=rules), nobody).disposition is REJECT


@pytest.mark.parametrize(
    ("action", "disposition"), [("accept", QUARANTINE), ("none", QUARANTINE), ("reject", REJECT)]
)
def test_a_malformed_author_matches_only_strict_rules(
    action: str, disposition: Disposition
) -> None:
    """An exception for an author domain needs an author; a refusal needs only the name in sight."""
    rules = (rule(action, author_domains=["b.example"]),)
    assert (
        judge(malformed(B_QUARANTINE, C_NONE), LocalPolicy(rules=rules), RULE_CONTEXT).disposition
        is disposition
    )


def test_an_exception_by_network_holds_for_a_malformed_author() -> None:
    """What the administrator says of a source does not depend on the From field."""
    rules = (rule("accept", networks=["192.0.2.66/32"]),)
    assert judge(malformed(A_REJECT), LocalPolicy(rules=rules), RULE_CONTEXT).disposition is NONE


def test_a_rule_quarantines_as_configured() -> None:
    """quarantine_action = reject holds for a rule's quarantine too."""
    policy = LocalPolicy(quarantine_action="reject", rules=(rule("quarantine", **ANY),))
    assert judge(result(P_NONE), policy, RULE_CONTEXT).disposition is REJECT


# --- monitor mode


@pytest.mark.parametrize(
    ("record", "status", "would_be", "disposition", "comments"),
    [
        (P_REJECT, "fail", REJECT, NONE, ["monitor"]),
        (P_QUARANTINE, "fail", QUARANTINE, NONE, ["monitor"]),
        (f"{P_REJECT}; t=y", "fail", QUARANTINE, NONE, ["t=y", "monitor"]),
        (f"{P_QUARANTINE}; t=y", "fail", NONE, NONE, ["t=y"]),
        (P_NONE, "fail", NONE, NONE, []),
        (P_REJECT, "pass", PASS, PASS, []),
        ("", "none", NONE, NONE, []),
    ],
)
def test_monitor_mode(
    record: str, status: str, would_be: Disposition, disposition: Disposition, comments: list[str]
) -> None:
    """docs/design.md, enforce = false: nothing refused or quarantined, reason local_policy
    "monitor", and what would have been."""
    verdict = judge(result(record, status), LocalPolicy(enforce=False))
    assert (verdict.would_be, verdict.disposition) == (would_be, disposition)
    assert [reason.comment for reason in verdict.reasons] == comments


def test_monitor_mode_refuses_nothing_whatever_is_configured() -> None:
    """No rule, cap, malformed From or DNS failure gets through."""
    policies = [
        LocalPolicy(
            enforce=False,
            on_temperror="tempfail",
            quarantine_action="reject",
            malformed_from="reject",
            rules=rules,
        )
        for rules in ((), (rule("reject", **ANY),))
    ]
    results = [
        result(P_REJECT),
        result("", "temperror"),
        result("", "none"),
        malformed(A_REJECT),
        malformed(),
        malformed(more=True),
    ]
    for policy, dmarc in product(policies, results):
        verdict = judge(dmarc, policy, RULE_CONTEXT)
        assert (verdict.disposition, verdict.tempfail) == (NONE, False)


# --- what must always hold


def test_a_deviation_always_has_a_reason() -> None:
    """RFC 9990: reason is mandatory when the applied policy is not the published one; and only then
    is there one."""
    records = [
        P_NONE,
        P_QUARANTINE,
        P_REJECT,
        f"{P_REJECT}; t=y",
        f"{P_QUARANTINE}; pct=0",
        f"{P_REJECT}; pct=0",
    ]
    policies = [
        LocalPolicy(
            enforce=enforce, quarantine_action=quarantine, reject_action=reject, rules=rules
        )
        for enforce, quarantine, reject, rules in product(
            (True, False),
            ("header", "hold", "reject"),
            ("reject", "quarantine"),
            ((), (rule("accept", **ANY),), (rule("reject", **ANY),), (rule("quarantine", **ANY),)),
        )
    ]
    contexts = [
        RULE_CONTEXT,
        replace(RULE_CONTEXT, source_known=False),
        replace(RULE_CONTEXT, arc_override="arc=pass"),
    ]
    for record, policy, context, testing in product(records, policies, contexts, (False, True)):
        dmarc = result(record, testing_key_only=testing)
        assert dmarc.outcome is not None
        verdict = judge(dmarc, policy, context, pct_draw=50.0)
        deviates = verdict.disposition.value != dmarc.outcome.policy.value
        assert bool(verdict.reasons) is deviates or (
            not policy.enforce and verdict.would_be in (QUARANTINE, REJECT)
        )
