"""What the MTA is asked to do: RFC 8601 2.7, RFC 8616, docs/attacks.md ARF and ARI, docs/design.md
"What a message gets"."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import authres as reference
import pytest

from dmarc_milter.core.actions.plan import (
    MAX_TEXT,
    Action,
    DeleteHeader,
    InsertHeader,
    Marking,
    Quarantine,
    Reply,
    plan_actions,
    remove_forged,
)
from dmarc_milter.core.arc import ArcResult, ArcStatus
from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.record import Policy, parse
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome, PolicyPublished
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.iprev import IprevResult, IprevStatus
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.mail.message import Envelope, HeaderField, Headers
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.policy.decide import (
    Deferral,
    Disposition,
    OverrideReason,
    OverrideType,
    Verdict,
)
from dmarc_milter.core.spf.check import SpfResult, SpfStatus

MARKING = Marking("mx.example.com")
NONE, PASS, QUARANTINE, REJECT = Disposition
AR = b"Authentication-Results"
EMPTY = Headers(())
SIGNATURE = "AbCdEfGh" + "x" * 300


def outcome(
    record: str = "v=DMARC1; p=reject; sp=none",
    status: str = "fail",
    author: str = "example.com",
    tag: Any = "p",
) -> DomainOutcome:
    parsed = parse(record.encode())
    published = PolicyPublished(Domain(author), parsed, "treewalk") if parsed else None
    policy = (
        (parsed.np if tag == "np" else parsed.sp if tag == "sp" else parsed.p) if parsed else None
    )
    return DomainOutcome(
        DmarcStatus(status),
        Domain(author),
        published=published,
        policy=policy or Policy.NONE,
        policy_tag=tag,
    )


def evaluation(
    verdict: Verdict = Verdict(Disposition.NONE),
    dmarc: DomainOutcome | DmarcResult | None = None,
    *,
    spf: SpfResult = SpfResult(SpfStatus.NONE, None),
    dkim: tuple[DkimResult, ...] = (),
    **more: Any,
) -> Evaluation:
    found = dmarc or outcome()
    envelope = Envelope(
        more.pop("source_ip", ip_address("192.0.2.66")),
        "mx.attack.example",
        ReversePath(),
        smtputf8=more.pop("smtputf8", False),
    )
    whole = (
        DmarcResult(found.status, found.author_domain, found)
        if isinstance(found, DomainOutcome)
        else found
    )
    return Evaluation(
        id="1",
        at=datetime(2026, 11, 22, tzinfo=UTC),
        envelope=envelope,
        author=Author(whole.author_domain),
        facts=MessageFacts(),
        spf=spf,
        dkim=dkim,
        arc=more.pop("arc", None),
        iprev=more.pop("iprev", None),
        dmarc=whole,
        verdict=verdict,
    )


def field(actions: tuple[Action, ...]) -> str:
    """The Authentication-Results value, unfolded; it must be the last action."""
    last = actions[-1]
    assert isinstance(last, InsertHeader)
    assert last.name == "Authentication-Results"
    assert last.value.startswith(" ")
    assert max(len(line) for line in last.value.split("\n")) < 998
    assert not re.search(r"[^\n\t -~]", last.value)
    reference.AuthenticationResultsHeader.parse(
        f"Authentication-Results:{last.value}".replace("\n", "\r\n")
    )
    return re.sub(r"\n[ \t]+", " ", last.value).strip()


def written(each: Evaluation, marking: Marking = MARKING) -> list[str]:
    """The results of the field, one by one."""
    name, *found = field(plan_actions(each, EMPTY, marking)).split("; ")
    assert name == "mx.example.com"
    return found


# --- the field


def test_the_field_of_the_design() -> None:
    """docs/design.md, What a message gets: the example, with what was really done."""
    verdict = Verdict(QUARANTINE, Policy.QUARANTINE)
    assert (
        written(evaluation(verdict))[-1]
        == "dmarc=fail (p=reject sp=none dis=quarantine) header.from=example.com"
        " policy.dmarc=quarantine"
    )


@pytest.mark.parametrize(
    ("dmarc", "verdict", "text"),
    [
        (
            outcome("v=DMARC1; p=none"),
            Verdict(NONE),
            "dmarc=fail (p=none sp=none dis=none) header.from=example.com policy.dmarc=none",
        ),
        (
            outcome("v=DMARC1; p=reject"),
            Verdict(NONE, Policy.REJECT, (OverrideReason(OverrideType.MAILING_LIST, "x"),)),
            (
                "dmarc=fail (p=reject sp=reject dis=none) header.from=example.com"
                " policy.dmarc=reject policy.override=mailing_list"
            ),
        ),
        (
            outcome(status="pass"),
            Verdict(PASS, Policy.REJECT),
            "dmarc=pass (p=reject sp=none dis=none) header.from=example.com",
        ),
        (
            outcome("v=DMARC1; p=none; sp=quarantine; np=reject", tag="np"),
            Verdict(NONE, Policy.REJECT),
            (
                "dmarc=fail (p=none sp=quarantine np=reject dis=none) header.from=example.com"
                " policy.dmarc=reject"
            ),
        ),
        (outcome("", "none"), Verdict(NONE), "dmarc=none (dis=none) header.from=example.com"),
        (
            outcome("", "temperror"),
            Verdict(NONE),
            "dmarc=temperror (dis=none) header.from=example.com",
        ),
        (
            outcome("v=DMARC1; p=xx; sp=reject; rua=mailto:a@b.example"),
            Verdict(NONE),
            "dmarc=fail (p=none sp=none dis=none) header.from=example.com policy.dmarc=none",
        ),
        (
            DmarcResult(DmarcStatus.PERMERROR, None, None, (outcome(),), reason="several domains"),
            Verdict(QUARANTINE),
            "dmarc=permerror (dis=quarantine)",
        ),
        (
            outcome("v=DMARC1; p=none"),
            Verdict(NONE, tags=("club", "x")),
            (
                "dmarc=fail (p=none sp=none dis=none) header.from=example.com policy.dmarc=none"
                " policy.tag=club policy.tag=x"
            ),
        ),
    ],
)
def test_dmarc_in_the_field(dmarc: DomainOutcome, verdict: Verdict, text: str) -> None:
    """RFC 9989 9.1, RFC 8601 2.7: policy.dmarc on a failure only; dis= always says what was
    actually done."""
    assert written(evaluation(verdict, dmarc))[-1] == text


@pytest.mark.parametrize(
    ("spf", "text"),
    [
        (SpfResult(SpfStatus.PASS, Domain("a.example")), "spf=pass smtp.mailfrom=a.example"),
        (
            SpfResult(SpfStatus.PASS, Domain("mail.a.example"), "helo"),
            "spf=pass smtp.helo=mail.a.example",
        ),
        (SpfResult(SpfStatus.NONE, None), "spf=none"),
        (
            SpfResult(SpfStatus.TEMPERROR, Domain("a.example"), reason="x) dmarc=pass ("),
            "spf=temperror smtp.mailfrom=a.example",
        ),
        (
            SpfResult(SpfStatus.PASS, Domain("a.example"), permissive=True),
            "spf=pass smtp.mailfrom=a.example policy.spf-permissive=yes",
        ),
        (
            SpfResult(SpfStatus.POLICY, Domain("a.example"), permissive=True),
            "spf=policy smtp.mailfrom=a.example policy.spf-permissive=yes",
        ),
    ],
)
def test_spf_in_the_field(spf: SpfResult, text: str) -> None:
    """RFC 8601 2.7.2: the identity that gave the result and only that; BSP-01."""
    assert written(evaluation(spf=spf))[0] == text


def signature(
    status: DkimStatus = DkimStatus.PASS, name: str | None = "a.example", **more: Any
) -> DkimResult:
    return DkimResult(status, Domain(name) if name else None, **more)


@pytest.mark.parametrize(
    ("dkim", "texts"),
    [
        ((), ["dkim=none"]),
        (
            (
                signature(
                    selector="sel",
                    algorithm="rsa-sha256",
                    identifier="sub.a.example",
                    signature=SIGNATURE,
                ),
            ),
            [
                "dkim=pass header.d=a.example header.i=@sub.a.example header.s=sel"
                " header.a=rsa-sha256 header.b=AbCdEfGh"
            ],
        ),
        (
            (
                signature(signature="AbCdEfGhXX"),
                signature(signature="AbCdEfGhYY"),
                signature(signature="AbCdEfGhXX"),
            ),
            ["dkim=pass header.d=a.example header.b=AbCdEfGhX"] * 1
            + [
                "dkim=pass header.d=a.example header.b=AbCdEfGhY",
                "dkim=pass header.d=a.example header.b=AbCdEfGhX",
            ],
        ),
        ((signature(signature="Ab/d+f=="),), ['dkim=pass header.d=a.example header.b="Ab/d+f=="']),
        ((signature(signature="short"),), ["dkim=pass header.d=a.example header.b=short"]),
        (
            (signature(DkimStatus.POLICY, reason="l= leaves 120 octets"),),
            ["dkim=policy (l= leaves 120 octets) header.d=a.example"],
        ),
        (
            (signature(DkimStatus.FAIL, reason="body hash differs"),),
            ["dkim=fail (body hash differs) header.d=a.example"],
        ),
        ((signature(DkimStatus.PERMERROR, None, reason="bad\r\nX-Inj: 1"),), ["dkim=permerror"]),
        (
            (signature(selector="sel;dkim=pass", algorithm="rsa\r\nX: y", signature="a\0b"),),
            ['dkim=pass header.d=a.example header.s="sel;dkim=pass"'],
        ),
    ],
)
def test_dkim_in_the_field(dkim: tuple[DkimResult, ...], texts: list[str]) -> None:
    """RFC 8601 2.7.1, RFC 6008: each signature with enough of b= to tell it apart; what cannot be
    printed is left out (ARI-01, -05)."""
    found = [
        each
        for each in re.split(r"; (?=dkim=|dmarc=)", "; ".join(written(evaluation(dkim=dkim))))
        if each.startswith("dkim")
    ]
    assert found == texts


def test_arc_and_iprev_in_the_field() -> None:
    """RFC 8617 10.2, RFC 8601 3: an IPv6 address needs quotes (2.2); no chain, no result."""
    arc = ArcResult(ArcStatus.PASS, oldest_pass=0)
    iprev = IprevResult(IprevStatus.PASS, ("mx.example.org",))
    each = evaluation(arc=arc, iprev=iprev, source_ip=ip_address("2001:db8::1"))
    found = written(each)
    assert found[2] == 'arc=pass smtp.remote-ip="2001:db8::1" header.oldest-pass=0'
    assert found[3] == 'iprev=pass policy.iprev="2001:db8::1"'
    assert [text.split("=")[0] for text in found] == ["spf", "dkim", "arc", "iprev", "dmarc"]
    none = written(evaluation(arc=ArcResult(ArcStatus.NONE), source_ip=None))
    assert [text.split("=")[0] for text in none] == ["spf", "dkim", "dmarc"]
    failed = written(evaluation(arc=ArcResult(ArcStatus.FAIL, reason="no AS"), source_ip=None))
    assert failed[2] == "arc=fail (no AS)"


def test_many_long_results_stay_under_8_kib() -> None:
    """ARI-06: whole results are left out, dmarc never."""
    long = ".".join(["x" * 60] * 4)
    dkim = tuple(
        signature(name=long, selector=f"s{n}" + "y" * 60, identifier=long, signature=str(n) * 200)
        for n in range(10)
    )
    actions = plan_actions(evaluation(dkim=dkim, dmarc=outcome(author=long)), EMPTY, MARKING)
    assert field(actions).count("dkim=pass") >= 5
    assert "dmarc=fail" in field(actions)
    last = actions[-1]
    assert isinstance(last, InsertHeader)
    assert len(last.value) <= 8192


def test_an_international_authserv_id() -> None:
    """RFC 8616 5, RFC 8601 5: A-labels unless the message is internationalized."""
    marking = Marking("mx.bücher.example")
    assert field(plan_actions(evaluation(), EMPTY, marking)).startswith("mx.xn--bcher-kva.example;")
    last = plan_actions(evaluation(smtputf8=True), EMPTY, marking)[-1]
    assert isinstance(last, InsertHeader)
    assert last.value.startswith(" mx.bücher.example;")


# --- forged fields


def headers(*pairs: tuple[bytes, bytes]) -> Headers:
    return Headers(HeaderField(name, value) for name, value in pairs)


@pytest.mark.parametrize(
    "value",
    [
        b" mx.example.com; dmarc=pass header.from=legit.example",
        b" MX.Example.COM; none",
        b" mx.example.com 1; dmarc=pass",
        b" mx.example.com/1; dmarc=pass",
        b"mx.example.com;dmarc=pass",
        b" mx.example.com ; none",
        b" mx.example.com",
        b" (c) mx.example.com; none",
        b" (a(b\\))) mx.example.com; none",
        b' "mx.example.com"; none',
        b' "mx.ex\\ample.com"; none',
        b"\r\n\tmx.example.com; none",
        b" mx.example.com.; none",
        b" mx.example.com\x00; none",
        "\u3000mx。example.com; none".encode(),
        "ｍx.example.com; none".encode(),
        b" " + b"(" * 5000 + b" mx.example.com",
    ],
)
def test_fields_that_claim_to_be_ours_go(value: bytes) -> None:
    """RFC 8601 5, ARF-01 to -07."""
    assert remove_forged(headers((AR, value)), MARKING) == (
        DeleteHeader("Authentication-Results", 1),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (AR, b" sub.mx.example.com; dmarc=pass"),
        (AR, b" evil-mx.example.com; dmarc=pass"),
        (AR, b" example.com; dmarc=pass"),
        (AR, b" dkim=none (message not signed) header.d=none"),
        (b"ARC-Authentication-Results", b" i=1; mx.example.com; dmarc=pass"),
        (b"X-Authentication-Results", b" mx.example.com; dmarc=pass"),
        (b"Received-SPF", b" pass (mx.example.com)"),
    ],
)
def test_fields_of_others_stay(name: bytes, value: bytes) -> None:
    """ARF-08, -11, -12."""
    assert remove_forged(headers((name, value)), MARKING) == ()


def test_deletion_is_from_the_highest_index_down() -> None:
    """ARF-09: indexes count the fields of one name, in any case, as they came; CVE-2022-48521."""
    ids = [
        b"one",
        b"mx.example.com",
        b"mx.example.com",
        b"four",
        b"mx.example.com",
        b"six",
        b"seven",
        b"eight",
    ]
    fields = [
        (
            AR if n % 2 else AR.upper(),
            b" " + name + b".example; none" if b"." not in name else b" " + name + b"; none",
        )
        for n, name in enumerate(ids)
    ]
    mixed = headers(
        (b"From", b" a@b.example"),
        *fields[:4],
        (b"X-DMARC-Quarantine", b" no"),
        *fields[4:],
        (b"x-dmarc-QUARANTINE", b" yes"),
    )
    found = [(each.name, each.index) for each in remove_forged(mixed, MARKING)]
    assert found == [
        ("Authentication-Results", 5),
        ("Authentication-Results", 3),
        ("Authentication-Results", 2),
        ("X-DMARC-Quarantine", 2),
        ("X-DMARC-Quarantine", 1),
    ]


def test_a_thousand_forged_fields_go_where_the_limit_allows_it() -> None:
    """ARF-10: highest index first. One more than the limit is a refusal instead."""
    thousand = headers(*[(AR, b" mx.example.com; dmarc=pass")] * 1000)
    assert remove_forged(thousand, replace(MARKING, removable_fields=1000)) == tuple(
        DeleteHeader("Authentication-Results", number) for number in range(1000, 0, -1)
    )
    (refusal,) = remove_forged(thousand, replace(MARKING, removable_fields=999))
    assert isinstance(refusal, Reply)
    assert (refusal.code, refusal.enhanced) == (550, "5.6.0")


def test_further_ids_of_ours() -> None:
    """remove_authserv_ids: the other MX hosts' fields cannot come from outside."""
    marking = replace(MARKING, remove_authserv_ids=("mx2.example.com",))
    assert (
        len(
            remove_forged(
                headers((AR, b" mx2.example.com; none"), (AR, b" mx3.example.com; none")), marking
            )
        )
        == 1
    )


def test_what_comes_back_from_our_own_filter_stays() -> None:
    """ARF-13, keep_results_from: our marks are not taken away, and a new field still goes on
    top."""
    ours = headers(
        (AR, b" mx.example.com; dmarc=fail"),
        (b"X-DMARC-Quarantine", b" yes (p=quarantine, a.example)"),
    )
    assert remove_forged(ours, MARKING, keep_results=True) == ()
    assert [
        type(each) for each in plan_actions(evaluation(), ours, MARKING, keep_results=True)
    ] == [InsertHeader]


# --- what is done


FORGED = headers((AR, b" mx.example.com; dmarc=pass"), (b"X-DMARC-Quarantine", b" x"))
QUARANTINED = evaluation(Verdict(QUARANTINE, Policy.QUARANTINE), outcome("v=DMARC1; p=quarantine"))


def test_quarantine_by_header() -> None:
    """docs/design.md: forged fields go first, then the mark, then the field on top of all."""
    actions = plan_actions(QUARANTINED, FORGED, MARKING)
    assert actions[:3] == (
        DeleteHeader("Authentication-Results", 1),
        DeleteHeader("X-DMARC-Quarantine", 1),
        InsertHeader("X-DMARC-Quarantine", " yes (p=quarantine, example.com)"),
    )
    assert "dis=quarantine" in field(actions)


def test_a_new_mark_takes_the_place_of_one_handed_back() -> None:
    """keep_results_from is about Authentication-Results; any copy of the mark goes before ours is
    written."""
    ours = headers(
        (AR, b" mx.example.com; dmarc=fail"),
        (b"X-DMARC-Quarantine", b" yes (p=none, a.example)"),
        (b"x-dmarc-quarantine", b" no"),
    )
    actions = plan_actions(QUARANTINED, ours, MARKING, keep_results=True)
    assert actions[:2] == (
        DeleteHeader("X-DMARC-Quarantine", 2),
        DeleteHeader("X-DMARC-Quarantine", 1),
    )
    assert [type(each) for each in actions[2:]] == [InsertHeader, InsertHeader]


def test_quarantine_by_hold() -> None:
    """SMFIR_QUARANTINE, and the field all the same."""
    actions = plan_actions(QUARANTINED, FORGED, replace(MARKING, quarantine_action="hold"))
    assert actions[2] == Quarantine("DMARC: p=quarantine, example.com")
    assert [type(each) for each in actions] == [
        DeleteHeader,
        DeleteHeader,
        Quarantine,
        InsertHeader,
    ]


def test_a_quarantine_that_must_not_be_refused_is_marked() -> None:
    """A capped disposition under quarantine_action = reject (disposition.py)."""
    actions = plan_actions(QUARANTINED, EMPTY, replace(MARKING, quarantine_action="reject"))
    assert [each.name for each in actions if isinstance(each, InsertHeader)] == [
        "X-DMARC-Quarantine",
        "Authentication-Results",
    ]


@pytest.mark.parametrize("disposition", [NONE, PASS])
def test_delivery(disposition: Disposition) -> None:
    """Forged fields go, one field is written, nothing else."""
    actions = plan_actions(evaluation(Verdict(disposition)), FORGED, MARKING)
    assert [type(each) for each in actions] == [DeleteHeader, DeleteHeader, InsertHeader]


def test_quarantine_without_an_author() -> None:
    """A malformed From may hold no domain at all."""
    dmarc = DmarcResult(DmarcStatus.PERMERROR, None, None, reason="no From")
    actions = plan_actions(evaluation(Verdict(QUARANTINE), dmarc), EMPTY, MARKING)
    assert actions[0] == InsertHeader("X-DMARC-Quarantine", " yes (p=none, no author domain)")


def refusal(each: Evaluation, marking: Marking = MARKING) -> Reply:
    """The only action."""
    (reply,) = plan_actions(each, FORGED, marking)
    assert isinstance(reply, Reply)
    assert len(f"{reply.code} {reply.enhanced} {reply.text}\r\n") <= 512
    assert "DMARC" in reply.text
    return reply


def test_rejection() -> None:
    """550 5.7.1 in one line: the domain, what failed, where to read more."""
    spf = SpfResult(SpfStatus.PASS, Domain("attack.example"))
    dkim = (signature(name="attack.example"), signature(DkimStatus.FAIL, "example.com"))
    reply = refusal(evaluation(Verdict(REJECT, Policy.REJECT), spf=spf, dkim=dkim))
    assert (reply.code, reply.enhanced) == (550, "5.7.1")
    assert (
        reply.text == "Refused by the DMARC policy of example.com (p=reject): example.com is not"
        " authenticated; SPF pass for attack.example is not aligned; DKIM pass for"
        " attack.example is not aligned; DKIM fail for example.com. See"
        " https://www.rfc-editor.org/rfc/rfc9989"
    )


@pytest.mark.parametrize(
    ("dmarc", "parts"),
    [
        (
            outcome("v=DMARC1; p=none; sp=reject", tag="sp"),
            ["policy of example.com (sp=reject)", "no DKIM signature", "SPF none"],
        ),
        (
            DmarcResult(DmarcStatus.PERMERROR, None, None, reason="no From"),
            ["From header field", "no From"],
        ),
        (
            DmarcResult(
                DmarcStatus.PERMERROR,
                None,
                None,
                (outcome("", "none", "a.example"), outcome()),
                reason="several domains",
            ),
            ["example.com", "p=reject", "several domains"],
        ),
        (
            DmarcResult(
                DmarcStatus.PERMERROR,
                None,
                None,
                (outcome("", "none", "a.example"),),
                reason="50% \n",
            ),
            ["malformed"],
        ),
        (outcome("v=DMARC1; p=none"), ["local policy", "example.com", "dmarc=fail"]),
        (
            DmarcResult(
                DmarcStatus.PERMERROR,
                None,
                None,
                (outcome("v=DMARC1; p=none"),) * 4,
                True,
                "several domains",
            ),
            ["local policy", "names more than 4 domains", "several domains"],
        ),
        (
            DmarcResult(
                DmarcStatus.PERMERROR, None, None, (outcome("v=DMARC1; p=none"),), reason="no From"
            ),
            ["local policy", "malformed"],
        ),
        (
            DmarcResult(
                DmarcStatus.PERMERROR, None, None, (outcome(status="pass"),), reason="no From"
            ),
            ["local policy", "malformed"],
        ),
        (
            DmarcResult(
                DmarcStatus.PERMERROR, None, None, (outcome(),) * 4, True, "several domains"
            ),
            ["policy of example.com (p=reject)"],
        ),
        (outcome("", "none"), ["local policy", "dmarc=none"]),
    ],
)
def test_what_a_refusal_says(dmarc: Any, parts: list[str]) -> None:
    """Whatever led to it, the text names what the sender can act upon."""
    reply = refusal(evaluation(Verdict(REJECT), dmarc))
    for part in parts:
        assert part in reply.text


@pytest.mark.parametrize(
    ("candidates", "more", "mark"),
    [
        ((outcome(),), False, "p=reject, example.com"),
        ((outcome("v=DMARC1; p=none"),), False, "malformed From"),
        ((outcome("v=DMARC1; p=none"),) * 4, True, "From names more than 4 domains"),
        ((outcome(), *(outcome("v=DMARC1; p=none"),) * 3), True, "p=reject, example.com"),
        ((outcome(status="pass"),), False, "malformed From"),
        ((outcome("", "none"),), False, "malformed From"),
    ],
)
def test_the_mark_of_a_malformed_author_says_what_is_true(
    candidates: tuple[DomainOutcome, ...], more: bool, mark: str
) -> None:
    """No policy is named that asked for nothing, or that the message passed."""
    dmarc = DmarcResult(DmarcStatus.PERMERROR, None, None, candidates, more, "several domains")
    assert plan_actions(evaluation(Verdict(QUARANTINE), dmarc), EMPTY, MARKING)[0] == InsertHeader(
        "X-DMARC-Quarantine", f" yes ({mark})"
    )
    assert "(p=none)" not in refusal(evaluation(Verdict(REJECT), dmarc)).text


TESTED, SAMPLED = (
    outcome(f"v=DMARC1; p=reject; {tag}", author="soft.example") for tag in ("t=y", "pct=0")
)


@pytest.mark.parametrize(
    ("verdict", "candidates", "named"),
    [
        (Verdict(REJECT), (TESTED, outcome()), "policy of example.com (p=reject)"),
        (Verdict(REJECT), (SAMPLED, outcome()), "policy of example.com (p=reject)"),
        (
            Verdict(REJECT),
            (SAMPLED, outcome("v=DMARC1; p=none")),
            "policy of soft.example (p=reject)",
        ),
        (
            Verdict(NONE, deferral=Deferral("dns")),
            (outcome("v=DMARC1; p=none"), outcome("", "temperror", "silent.example")),
            "DMARC of silent.example",
        ),
        (
            Verdict(NONE, deferral=Deferral("dns")),
            (TESTED, outcome(status="temperror")),
            "DMARC of example.com",
        ),
        (
            Verdict(NONE, deferral=Deferral("dns")),
            (outcome("v=DMARC1; p=none", "temperror"), outcome("", "temperror", "silent.example")),
            "DMARC of silent.example",
        ),
    ],
)
def test_of_several_authors_the_one_that_decided_is_named(
    verdict: Verdict, candidates: tuple[DomainOutcome, ...], named: str
) -> None:
    """A domain in test mode, or one that was judged, is not what the message was refused or
    deferred for."""
    reply = refusal(
        evaluation(
            verdict,
            DmarcResult(DmarcStatus.PERMERROR, None, None, candidates, reason="several domains"),
        )
    )
    assert named in reply.text


def test_long_names_and_many_signatures_stay_in_one_line() -> None:
    """ARI-09: 512 octets; the end of a long name and the reference stay."""
    long = ".".join(["x" * 60] * 3) + ".tail.example"
    dkim = tuple(signature(name=f"d{n}.{long}") for n in range(10))
    reply = refusal(
        evaluation(
            Verdict(REJECT),
            outcome(author=long),
            spf=SpfResult(SpfStatus.PASS, Domain(long)),
            dkim=dkim,
        )
    )
    assert "x.tail.example" in reply.text
    assert reply.text.endswith("rfc9989")
    assert len(reply.text) <= MAX_TEXT


def test_the_administrators_text_replaces_the_reference() -> None:
    """reject_text; one that a reply cannot hold is left out."""
    assert refusal(
        evaluation(Verdict(REJECT)), replace(MARKING, reject_text="Ask help@example.com")
    ).text.endswith(". Ask help@example.com")
    for bad in ("100%", "a\r\nb", "ü", "x" * 201):
        assert refusal(
            evaluation(Verdict(REJECT)), replace(MARKING, reject_text=bad)
        ).text.endswith("rfc9989")


@pytest.mark.parametrize(
    "dmarc",
    [
        outcome("", "temperror"),
        outcome(status="temperror"),
        DmarcResult(DmarcStatus.PERMERROR, None),
    ],
)
@pytest.mark.parametrize(
    ("deferral", "enhanced", "says"),
    [
        (
            Deferral("dns", "_dmarc.example.com"),
            "4.4.3",
            "the DNS of _dmarc.example.com did not answer",
        ),
        (Deferral("overloaded"), "4.3.2", "overloaded"),
        (Deferral("failure"), "4.3.0", "the mail filter failed on this message"),
    ],
)
def test_three_reasons_to_wait_have_three_codes(
    dmarc: Any, deferral: Deferral, enhanced: str, says: str
) -> None:
    """docs/design.md, Decisions: 451, the code of RFC 3463, the reason in words, and nothing
    else."""
    reply = refusal(evaluation(Verdict(NONE, deferral=deferral), dmarc))
    assert (reply.code, reply.enhanced) == (451, enhanced)
    assert says in reply.text


@pytest.mark.parametrize(
    "name",
    [
        "",
        "100%n.example",
        "a b.example",
        "ü.example",
        "a\r\nb.example",
        "x" * 253,
        ".".join(["y" * 60] * 4),
    ],
)
def test_a_failing_name_is_shown_only_where_a_reply_can_hold_it(name: str) -> None:
    """SPF macros let the sender make up names: nothing that is no DNS name is repeated, and a long
    one is shortened."""
    text = refusal(
        evaluation(Verdict(NONE, deferral=Deferral("dns", name)), outcome(status="temperror"))
    ).text
    assert len(text) < 300
    assert "did not answer" in text
    assert not name or name not in text


# --- effects refuse nonsense


@pytest.mark.parametrize(
    ("code", "enhanced", "text"),
    [
        (250, "2.0.0", "ok"),
        (550, "4.7.1", "mixed"),
        (451, "5.7.1", "mixed"),
        (550, "5.7.1", ""),
        (550, "5.7.1", "100%"),
        (550, "5.7.1", "%n"),
        (550, "5.7.1", "a\r\nb"),
        (550, "5.7.1", "a\0b"),
        (550, "5.7.1", "ü"),
        (550, "5.7.1", "x" * (MAX_TEXT + 1)),
    ],
)
def test_a_reply_is_one_plain_line(code: int, enhanced: str, text: str) -> None:
    """pymilter raises on a single %, Sendmail reads text as a printf format, control characters end
    lines."""
    with pytest.raises(ValueError):
        Reply(code, enhanced, text)


@pytest.mark.parametrize(
    "value", ["", "x", " a\nb", " a\r\n b", " a\n", " a\n \n b", " " + "x" * 998, " a\0"]
)
def test_a_header_value_is_folded_with_care(value: str) -> None:
    """A line without leading white space would be a field of its own."""
    with pytest.raises(ValueError):
        InsertHeader("X", value)


def test_indexes_start_at_one() -> None:
    """SMFIR_CHGHEADER."""
    with pytest.raises(ValueError):
        DeleteHeader("X", 0)
    with pytest.raises(ValueError):
        Quarantine("a\nb")
