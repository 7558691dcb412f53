"""What the DNS hides: the attacker chooses which of the victim's names is asked, and one of them
fails.

First whatever an attacker can ask for, with the name that the reply must tell. Then what must not
wait: policies of none, rules, relays, domains that publish nothing that answers, countries whose
registry is broken. Last single-label and special-use names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from fakes.attack import (
    ATTACK_SIGNER,
    LEGIT_SIGNER,
    NO_POLICY,
    Case,
    Mail,
    RunningDaemon,
    Stage,
    Verdict,
    deferred,
    delivered,
    ids,
    mail,
    malformed,
    refused,
    spoof,
    unanswered,
)
from fakes.daemon import wait_for
from fakes.dns_server import Spec
from fakes.signer import Signer

SERVFAIL: Spec = {"behaviour": "servfail"}
LAME: dict[str, Spec] = {
    "lame.legit.example": SERVFAIL,
    "*.lame.legit.example": SERVFAIL,
    "_dmarc.lame.legit.example": SERVFAIL,
}
"""A delegation of the victim's that leads nowhere."""
CEO = b"<ceo@lame.legit.example>"
LEGIT = b"<x@legit.example>"
OTHER, OLD = Signer("lame.legit.example"), Signer("legit.example", selector="old-esp")
SISTER = Signer("other.legit.example")
PSL: dict[str, Any] = {"tables": {"dmarc": {"discovery": "psl"}}}
DEEP = ".".join("abcdefghijkl") + ".lame.legit.example"


def published(text: str, name: str = "legit.example") -> dict[str, Spec]:
    return {f"_dmarc.{name}": {"TXT": [text]}}


def signed_below(name: str) -> Mail:
    return mail(b"<ceo@sub.legit.example>").signed(Signer(name))


def case(
    row: str,
    letter: Mail,
    name: str,
    zone: Mapping[str, Spec] = LAME,
    *,
    note: str = "",
    **rest: Any,
) -> tuple[Case, str]:
    """An attack that must be deferred, and the DNS name that the reply tells."""
    return Case(row, letter, deferred(), zone, note=note, variants=False, **rest), name


CHOSEN = [
    case(
        "DNS-20", spoof(mail_from=b"<x@lame.legit.example>"), "lame.legit.example", note="MAIL FROM"
    ),
    case(
        "DNS-20",
        spoof(mail_from=b"<x@a.b.lame.legit.example>"),
        "a.b.lame.legit.example",
        note="MAIL FROM, deep",
    ),
    case(
        "DNS-20",
        spoof(mail_from=b"<x@lame.legit.example>"),
        "lame.legit.example",
        note="MAIL FROM, psl",
        **PSL,
    ),
    case(
        "DNS-21",
        spoof(mail_from=b"<>", helo=b"lame.legit.example"),
        "lame.legit.example",
        note="HELO of a null sender",
    ),
    case(
        "DNS-22",
        spoof().signed(OLD),
        OLD.key_name,
        {OLD.key_name: SERVFAIL},
        note="an old selector",
    ),
    case(
        "DNS-22",
        spoof().signed(OLD),
        OLD.key_name,
        {OLD.key_name: SERVFAIL},
        note="an old selector, psl",
        **PSL,
    ),
    case("DNS-22", spoof().signed(OTHER), OTHER.key_name, note="d= below"),
    case(
        "DNS-22",
        spoof().signed(ATTACK_SIGNER).signed(OLD),
        OLD.key_name,
        {OLD.key_name: SERVFAIL},
        note="beside a pass of the attacker",
    ),
    case(
        "DNS-22",
        spoof().signed(OLD),
        OLD.key_name,
        {OLD.key_name: {"CNAME": "k.gone.example"}, "k.gone.example": SERVFAIL},
        note="alias",
    ),
    case("DNS-23", mail(CEO), "_dmarc.lame.legit.example", note="From"),
    case(
        "DNS-23",
        mail(CEO).signed(ATTACK_SIGNER),
        "_dmarc.lame.legit.example",
        note="From, signed by the attacker",
    ),
    case("DNS-23", mail(b"<ceo@a.b.lame.legit.example>"), "_dmarc.", note="From, deep"),
    case("DNS-23", mail(f"<ceo@{DEEP}>".encode()), "_dmarc.", note="From, beyond eight labels"),
    case(
        "DNS-23",
        mail(CEO),
        "_dmarc.lame.legit.example",
        LAME | published("v=DMARC1; p=none; sp=reject"),
        note="sp",
    ),
    case(
        "DNS-23",
        mail(CEO),
        "_dmarc.lame.legit.example",
        LAME | published("v=DMARC1; p=quarantine"),
        note="quarantine",
    ),
    case(
        "DNS-23",
        mail(CEO),
        "_dmarc.lame.legit.example",
        LAME | published("v=DMARC1; p=reject; t=y"),
        note="t=y",
    ),
    case("DNS-23", mail(CEO), "_dmarc.lame.legit.example", note="From, psl", **PSL),
    case(
        "DNS-24",
        mail(b"<ceo@a.b.legit.example>"),
        "_dmarc.b.legit.example",
        {"_dmarc.b.legit.example": SERVFAIL, "a.b.legit.example": {"A": ["192.0.2.1"]}},
        note="a middle name",
    ),
    case(
        "DNS-24",
        mail(b"<ceo@sub.legit.example>"),
        "_dmarc.sub.legit.example",
        {
            "_dmarc.sub.legit.example": {"CNAME": "policy.gone.example"},
            "policy.gone.example": SERVFAIL,
        },
        note="an alias that leads nowhere",
    ),
    case(
        "DNS-24",
        mail(b"<ceo@sub.legit.example>"),
        "_dmarc.sub.legit.example",
        {"_dmarc.sub.legit.example": {"CNAME": "_dmarc.sub.legit.example", "follow": False}},
        note="an alias of itself",
    ),
    case(
        "DNS-24",
        mail(b"<ceo@sub.legit.example>"),
        "_dmarc.sub.legit.example",
        {"_dmarc.sub.legit.example": {"TXT": [*["x"] * 1749, "v=DMARC1; p=none"]}},
        note="1750 records",
    ),
    case(
        "DNS-25",
        mail(b"<ceo@victim.bank>"),
        "_dmarc.victim.bank",
        {"_dmarc.bank": {"TXT": ["v=DMARC1; p=reject; psd=y"]}, "_dmarc.victim.bank": SERVFAIL},
        note="the public suffix asks for it",
    ),
    case(
        "DNS-26",
        mail(b"<ceo@nx.lame.legit.example>"),
        "nx.lame.legit.example",
        {"nx.lame.legit.example": SERVFAIL} | published("v=DMARC1; p=none; np=reject"),
        note="np",
    ),
    case(
        "DNS-27",
        signed_below(SISTER.domain),
        "_dmarc.other.legit.example",
        {"_dmarc.other.legit.example": SERVFAIL, SISTER.key_name: {"TXT": [SISTER.record()]}},
        note="the walk of a signer",
    ),
    case(
        "DNS-28",
        spoof(mail_from=LEGIT),
        "inc.legit.example",
        {
            "legit.example": {"TXT": ["v=spf1 include:inc.legit.example -all"]},
            "inc.legit.example": SERVFAIL,
        },
        note="an include",
    ),
    case(
        "DNS-28",
        spoof(mail_from=b"<100$a@legit.example>"),
        "a name in it",
        {
            "legit.example": {"TXT": ["v=spf1 exists:%{l}._spf.legit.example -all"]},
            "*._spf.legit.example": SERVFAIL,
            "_spf.legit.example": SERVFAIL,
        },
        note="a name of the sender's making",
    ),
    case(
        "DNS-29",
        mail(b"<boss@lame.norecord.example>"),
        "_dmarc.lame.norecord.example",
        {"_dmarc.lame.norecord.example": SERVFAIL},
        note="a rule of the administrator's",
        tables={
            "policy": {"rules": [{"action": "reject", "author_domains": ["norecord.example"]}]}
        },
    ),
]


def accepted(stage: Stage, attack: Case) -> str:
    """dmarc= where on_temperror is accept."""
    stage.script(attack.zone)
    return stage.running("accept", attack.tables).send(attack.mail).dmarc.result


@pytest.mark.parametrize(("attack", "name"), CHOSEN, ids=ids)
def test_whoever_chooses_a_name_that_fails_waits(stage: Stage, attack: Case, name: str) -> None:
    """docs/design.md, on_temperror: a record that answered asks for quarantine or reject, so 451,
    and the reply names what failed."""
    heard = stage.check_in(attack, "enforce")
    assert f"the DNS of {name}" in heard.answer.text
    assert accepted(stage, attack) == "temperror"


def logged(running: RunningDaemon, words: bytes) -> bool:
    """Whether a new line of the log comes to hold them."""
    seen: list[bytes] = []

    def found() -> bool:
        seen.extend(running.new_lines())
        return any(words in line for line in seen)

    return wait_for(found, 5.0)


@pytest.mark.parametrize(("attack", "name"), [CHOSEN[0], CHOSEN[3], CHOSEN[9], CHOSEN[22]], ids=ids)
def test_elsewhere_it_is_as_configured(stage: Stage, attack: Case, name: str) -> None:
    """Monitor mode delivers it marked and tells in the log what would have been done."""
    stage.check_in(attack, "tempfail")
    running = stage.running("monitor", attack.tables)
    stage.script(attack.zone)
    running.new_lines()
    heard = running.send(attack.mail)
    assert (heard.answer.code, heard.dmarc.result) == (250, "temperror")
    assert logged(running, b"would_be=tempfail")


BOTH = [
    mail(b"<first@attack.example>, <ceo@lame.legit.example>"),
    mail(b"<first@attack.example>", CEO),
    mail(b"a <ceo@lame.legit.example> <b@attack.example>"),
    replace(
        mail(b"<first@attack.example>, <admin@legit.example>"), mail_from=b"<x@lame.legit.example>"
    ),
    mail(b"<first@attack.example>, <admin@legit.example>").signed(OLD),
]


@pytest.mark.parametrize(
    "letter", BOTH, ids=["list", "two fields", "two readings", "MAIL FROM", "old selector"]
)
@pytest.mark.parametrize("rest", [{}, PSL], ids=["treewalk", "psl"])
def test_a_candidate_of_a_malformed_from_waits_too(
    stage: Stage, letter: Mail, rest: dict[str, Any]
) -> None:
    """DNS-30: the strictest policy of the domains that a reader could see is known, and not
    judged."""
    attack = Case(
        "DNS-30",
        letter,
        Verdict(451, "permerror"),
        LAME | {OLD.key_name: SERVFAIL},
        variants=False,
        **rest,
    )
    stage.check_in(attack, "enforce")
    assert accepted(stage, attack) == "permerror"


DELIVERED = Verdict(250, "temperror", "")
SPF_LAME = spoof(mail_from=b"<x@lame.legit.example>")


def rule(**conditions: Any) -> dict[str, Any]:
    return {"tables": {"policy": {"rules": [conditions]}}}


NOT_KEPT_WAITING = [
    Case(
        "DNS-31",
        spoof(),
        unanswered(),
        {"_dmarc.legit.example": SERVFAIL},
        note="no record answered",
    ),
    Case(
        "DNS-31",
        mail(CEO),
        unanswered(),
        LAME | {"_dmarc.legit.example": SERVFAIL},
        note="none at any step",
    ),
    Case("DNS-32", SPF_LAME, DELIVERED, LAME | published("v=DMARC1; p=none"), note="p=none"),
    Case(
        "DNS-32", SPF_LAME, DELIVERED, LAME | published("v=DMARC1; p=quarantine; t=y"), note="t=y"
    ),
    Case(
        "DNS-32",
        SPF_LAME,
        DELIVERED,
        LAME | published("v=DMARC1; p=quarantine; pct=0"),
        note="pct=0",
    ),
    Case(
        "DNS-32",
        mail(CEO),
        DELIVERED,
        LAME | published("v=DMARC1; p=reject; sp=none"),
        note="sp=none",
    ),
    Case(
        "DNS-33",
        SPF_LAME,
        DELIVERED,
        LAME,
        note="accept",
        **rule(action="accept", networks=["192.0.2.66/32"]),
    ),
    Case(
        "DNS-33",
        SPF_LAME,
        DELIVERED,
        LAME,
        note="none",
        **rule(action="none", author_domains=["legit.example"]),
    ),
    Case(
        "DNS-33",
        mail(CEO),
        DELIVERED,
        LAME,
        note="accept below",
        **rule(action="accept", author_domains=["legit.example"]),
    ),
    Case(
        "DNS-34",
        mail(CEO).signed(OTHER),
        delivered("dkim=pass"),
        LAME | {OTHER.key_name: {"TXT": [OTHER.record()]}},
        note="same name signed",
    ),
    Case(
        "DNS-34",
        spoof(mail_from=b"<x@lame.legit.example>").signed(LEGIT_SIGNER),
        delivered("spf=temperror", "dkim=pass"),
        LAME,
        note="another pass",
    ),
    Case(
        "DNS-34",
        spoof(),
        refused(),
        {"attack.example": SERVFAIL, ATTACK_SIGNER.key_name: SERVFAIL},
        note="the attacker's own",
    ),
]


@pytest.mark.parametrize("genuine", NOT_KEPT_WAITING, ids=ids)
def test_waiting_must_not_become_losing(stage: Stage, genuine: Case) -> None:
    """docs/design.md, Decisions: never deferred where nothing known asks for it, where a rule ends
    it, or where nothing is open."""
    stage.check_in(replace(genuine, variants=False), "enforce")


CC: dict[str, Spec] = {"_dmarc.cc": SERVFAIL}
UK: dict[str, Spec] = {"_dmarc.uk": SERVFAIL, "_dmarc.co.uk": SERVFAIL}
SHOP, SHOP_UK = Signer("shop.cc"), Signer("shop.co.uk")
REJECTS = published("v=DMARC1; p=reject", "shop.cc") | published("v=DMARC1; p=reject", "shop.co.uk")
KEYS: dict[str, Spec] = {each.key_name: {"TXT": [each.record()]} for each in (SHOP, SHOP_UK)}

COUNTRY = [
    Case("DNS-35", mail(b"<a@shop.cc>"), NO_POLICY, CC, note="nothing published"),
    Case(
        "DNS-35",
        mail(b"<a@news.shop.cc>").signed(SHOP),
        delivered("dkim=pass"),
        CC | REJECTS | KEYS,
        note="genuine",
    ),
    Case("DNS-35", mail(b"<a@news.shop.cc>"), refused("shop.cc"), CC | REJECTS, note="forged"),
    Case("DNS-35", mail(b"<a@shop.co.uk>"), NO_POLICY, UK, note="nothing published, two labels"),
    Case(
        "DNS-35",
        mail(b"<a@news.shop.co.uk>").signed(SHOP_UK),
        delivered("dkim=pass"),
        UK | REJECTS | KEYS,
        note="genuine, two labels",
    ),
    Case(
        "DNS-35",
        mail(b"<a@news.shop.co.uk>"),
        refused("shop.co.uk"),
        UK | REJECTS,
        note="forged, two labels",
    ),
    Case("DNS-35", mail(b"<a@cc>"), unanswered(), CC, note="the suffix itself"),
    Case("DNS-35", mail(b"<a@news.shop.cc>"), refused("shop.cc"), CC | REJECTS, note="psl", **PSL),
]


@pytest.mark.parametrize("country", COUNTRY, ids=ids)
def test_a_broken_registry_does_not_hold_up_a_country(stage: Stage, country: Case) -> None:
    """docs/design.md, Decisions: a failing step at a public suffix is no record where either
    reading gives the same organization."""
    stage.check_in(replace(country, variants=False), "enforce")


RELAYS: dict[str, Any] = {"tables": {"authentication": {"trusted_relays": ["192.0.2.66"]}}}
THROUGH = (
    b"Received",
    (
        b" from evil.example (evil.example [203.0.113.66]) by relay.example.com; Thu, 1 Oct 2026"
        b" 10:00:00 +0000"
    ),
)
HELD = Verdict(250, "temperror", quarantined=True)

RELAYED = [
    Case("DNS-36", SPF_LAME.top(THROUGH), HELD, LAME, note="known", **RELAYS),
    Case("DNS-36", mail(CEO).top(THROUGH), HELD, LAME, note="known, From", **RELAYS),
    Case("DNS-36", mail(CEO), HELD, LAME, note="client not readable", **RELAYS),
    Case(
        "DNS-36",
        spoof().top(THROUGH),
        DELIVERED,
        {"_dmarc.legit.example": SERVFAIL},
        note="not known",
        **RELAYS,
    ),
    Case(
        "DNS-36",
        SPF_LAME.top(THROUGH),
        DELIVERED,
        LAME | published("v=DMARC1; p=none"),
        note="p=none",
        **RELAYS,
    ),
]


@pytest.mark.parametrize("relayed", RELAYED, ids=ids)
def test_our_own_relays_do_not_fill_up(stage: Stage, relayed: Case) -> None:
    """docs/design.md, Decisions: delivered marked, quarantined where the policy is known; the log
    has what would have been done."""
    running = stage.running("enforce", relayed.tables)
    running.new_lines()
    stage.script(relayed.zone)
    heard = running.send(relayed.mail)
    marks = heard.answer.values("X-DMARC-Quarantine")
    assert (heard.answer.code, heard.dmarc.result, bool(marks)) == (
        250,
        "temperror",
        relayed.verdict.quarantined,
    ), heard.show()
    assert logged(
        running, b"would_be=tempfail" if relayed.verdict.quarantined else b"dmarc=temperror"
    )


TOP: dict[str, Spec] = published("v=DMARC1; p=reject", "bank")
SPECIAL = (
    "localhost",
    "printer.local",
    "localhost.localdomain",
    "a.invalid",
    "a.b.test",
    "x.onion",
    "nas.home.arpa",
    "mail.internal",
)

LABELS = [
    Case("DMR-17", mail(b"<a@bank>"), refused("bank"), TOP, note="one label"),
    Case(
        "DMR-17",
        mail(b"<a@bank>"),
        refused("bank"),
        published("v=DMARC1; p=reject; psd=y", "bank"),
        note="psd=y",
    ),
    Case("DMR-17", mail(b"<a@bank>"), refused("bank"), TOP, note="psl", **PSL),
    Case("DMR-17", mail(b"<a@bank.>"), refused("bank"), TOP, note="a final dot"),
    Case(
        "DMR-17",
        mail(b"<a@BANK>").signed(Signer("victim.bank")),
        refused("bank"),
        TOP,
        note="signed below",
    ),
    Case(
        "DMR-17",
        mail(b"<a@xn--p1ai>"),
        refused("xn--p1ai"),
        published("v=DMARC1; p=reject", "xn--p1ai"),
        note="an IDN",
    ),
    Case("DMR-17", mail(b"<a@unpublished>"), NO_POLICY, note="nothing published"),
    Case(
        "DMR-17",
        mail(b"<a@attack.example>, <b@bank>"),
        Verdict(550, "permerror", "bank"),
        TOP,
        note="in a malformed From",
    ),
    *(
        Case(
            "DMR-18",
            mail(f"<a@{name}>".encode()),
            NO_POLICY,
            published("v=DMARC1; p=reject", name),
            note=name,
        )
        for name in SPECIAL
    ),
    Case(
        "DMR-18",
        mail(b"<a@mail.internal>"),
        NO_POLICY,
        published("v=DMARC1; p=reject", "internal"),
        note="psl",
        **PSL,
    ),
]


@pytest.mark.parametrize("case", LABELS, ids=ids)
def test_single_labels_have_a_policy_and_special_names_none(stage: Stage, case: Case) -> None:
    """RFC 9989 4.10.1; RFC 6761, 6762, 7686, 8375."""
    stage.check_in(replace(case, variants=False), "enforce")


@pytest.mark.parametrize("name", SPECIAL)
def test_special_use_names_are_never_asked(stage: Stage, name: str) -> None:
    """DMR-18: wherever the sender puts them: From, MAIL FROM, HELO, d=, an SPF record, the client's
    PTR."""
    signer = Signer(name)
    letter = mail(
        f"<a@{name}>".encode(), mail_from=f"<b@{name}>".encode(), helo=name.encode()
    ).signed(signer)
    zone: dict[str, Spec] = {
        "attack.example": {
            "TXT": [f"v=spf1 a:{name} mx:{name} exists:%{{i}}.{name} include:{name} -all"]
        },
        "66.2.0.192.in-addr.arpa": {"PTR": [name]},
    }
    running = stage.running("enforce", {"authentication": {"iprev": True}})
    stage.script(zone)
    running.send(letter)
    running.send(replace(letter, mail_from=b"<any@attack.example>"))
    end = next(
        each
        for each in (
            "localhost",
            "local",
            "localdomain",
            "invalid",
            "test",
            "onion",
            "home.arpa",
            "internal",
        )
        if name.endswith(each)
    )
    assert stage.dns.queries
    assert not [
        asked for asked, _ in stage.dns.queries if asked == end or asked.endswith(f".{end}")
    ]


MANY = b", ".join(
    b"<a@a%d.b%d.c%d.d%d.e%d.f%d.attack.example>" % ((number,) * 6) for number in range(14)
)
HEAP = mail(MANY + b", <ceo@legit.example>")
FEW: dict[str, Any] = {"limits": {"dns_queries": 40}}


def test_a_message_that_exceeds_its_own_limit_of_look_ups_is_refused(stage: Stage) -> None:
    """DNS-38: 550 5.6.0 naming the limit; with room for all its names it is judged by them."""
    stage.script({})
    heard = stage.running("enforce", FEW).send(HEAP)
    assert (heard.answer.code, heard.answer.text[:10]) == (550, "550 5.6.0 "), heard.show()
    assert "[limits] dns_queries" in heard.answer.text
    stage.check_in(Case("DNS-38", HEAP, malformed(), variants=False), "enforce")


def test_elsewhere_a_message_that_exceeds_its_own_limit_is_told(stage: Stage) -> None:
    """DNS-39: monitor mode delivers it, a trusted relay's is quarantined; the log has what would
    have been done."""
    for mode, tables, marked in (("monitor", FEW, 0), ("enforce", FEW | RELAYS["tables"], 1)):
        running = stage.running(mode, tables)
        stage.script({})
        running.new_lines()
        heard = running.send(HEAP.top(THROUGH))
        assert (heard.answer.code, len(heard.answer.values("X-DMARC-Quarantine"))) == (
            250,
            marked,
        ), heard.show()
        assert logged(running, b"would_be=reject")


STRANGER = Signer("evil.co.uk")
KAWASAKI = Signer("evil.saiwai.kawasaki.jp")
STRANGERS: dict[str, Spec] = {
    **{each.key_name: {"TXT": [each.record()]} for each in (STRANGER, KAWASAKI, SHOP_UK)},
    "evil.co.uk": {"TXT": ["v=spf1 ip4:192.0.2.66 -all"]},
}
BY_STRANGER = mail(b"<a@shop.co.uk>", mail_from=b"<x@evil.co.uk>").signed(STRANGER)

GUARDED = [
    Case(
        "DMR-21",
        BY_STRANGER,
        refused("uk"),
        STRANGERS | published("v=DMARC1; p=reject", "uk"),
        note="no psd",
    ),
    Case(
        "DMR-21",
        BY_STRANGER,
        refused("uk"),
        STRANGERS | published("v=DMARC1; p=reject; psd=y", "uk"),
        note="psd=y",
    ),
    Case(
        "DMR-21",
        BY_STRANGER,
        refused("shop.co.uk"),
        STRANGERS | REJECTS | published("v=DMARC1; p=none", "uk"),
        note="its own policy",
    ),
    Case(
        "DMR-21",
        BY_STRANGER,
        refused("shop.co.uk"),
        STRANGERS | REJECTS | CC | {"_dmarc.uk": SERVFAIL},
        note="uk fails",
    ),
    Case(
        "DMR-21",
        mail(b"<a@shop.miyamae.kawasaki.jp>").signed(KAWASAKI),
        refused("kawasaki.jp"),
        STRANGERS | published("v=DMARC1; p=reject", "kawasaki.jp"),
        note="by a wildcard of the list",
    ),
    Case(
        "DMR-21",
        mail(b"<a@news.shop.co.uk>").signed(SHOP_UK),
        delivered("dkim=pass"),
        STRANGERS | published("v=DMARC1; p=reject; psd=y", "uk"),
        note="genuine",
    ),
]


@pytest.mark.parametrize("case", GUARDED, ids=ids)
def test_what_a_registry_publishes_makes_no_strangers_one_organization(
    stage: Stage, case: Case
) -> None:
    """docs/design.md, psl_guard: a public suffix is nobody's organization, whatever is published
    above it."""
    stage.check_in(replace(case, variants=False), "enforce")


ORGANIZATION = "b.c.d.e.f.g.legit.example"
BELOW_REGISTRY = mail(f"<ceo@a.{ORGANIZATION}>".encode())


def registry(policy: str) -> dict[str, Spec]:
    """A psd=y where the walk from nine labels jumps to."""
    return published(f"v=DMARC1; p={policy}; psd=y", "c.d.e.f.g.legit.example")


LEFT_OUT = [
    Case(
        "DMR-22",
        BELOW_REGISTRY,
        refused(ORGANIZATION),
        registry("none") | published("v=DMARC1; p=reject", ORGANIZATION),
    ),
    Case(
        "DMR-22",
        BELOW_REGISTRY,
        NO_POLICY,
        registry("reject") | published("v=DMARC1; p=none; sp=wrong", ORGANIZATION),
        note="a record that does not apply",
    ),
    Case(
        "DMR-22",
        BELOW_REGISTRY,
        deferred(),
        registry("reject") | {f"_dmarc.{ORGANIZATION}": SERVFAIL},
        note="the organization's fails",
    ),
    Case(
        "DMR-22",
        BELOW_REGISTRY,
        deferred(),
        registry("none")
        | published("v=DMARC1; p=reject", ORGANIZATION)
        | {f"_dmarc.a.{ORGANIZATION}": SERVFAIL},
        note="the author's fails",
    ),
]


@pytest.mark.parametrize("case", LEFT_OUT, ids=ids)
def test_the_organization_that_a_walk_leaves_out_has_its_policy(stage: Stage, case: Case) -> None:
    """RFC 9989 4.10.1: the organization's record comes before its registry's."""
    stage.check(replace(case, variants=False))


FIVE = b", ".join(b"<a@d%d.example>" % number for number in range(5))
OPEN: dict[str, Spec] = {
    f"_dmarc.d{number}.example": {"TXT": ["v=DMARC1; p=none"]} for number in range(5)
}


def test_more_than_four_domains_are_refused_for_what_they_are(stage: Stage) -> None:
    """DMR-19: no policy is named that asked for nothing."""
    stage.script(OPEN)
    heard = stage.running("enforce").send(mail(FIVE))
    assert heard.answer.code == 550
    assert "names more than 4 domains" in heard.answer.text
    assert "p=none" not in heard.answer.text
    cautious = stage.running("enforce", {"policy": {"reject_action": "quarantine"}})
    cautious.new_lines()
    heard = cautious.send(mail(FIVE))
    assert heard.answer.values("X-DMARC-Quarantine") == [" yes (From names more than 4 domains)"]
    assert logged(cautious, b"names too many domains")


@pytest.mark.parametrize("policies", ["p=none", "p=reject"])
def test_a_malformed_from_refused_by_choice_says_so(stage: Stage, policies: str) -> None:
    """DMR-20: malformed_from = "reject" is the receiver's own policy, unless a domain in it asks
    for the same."""
    zone = published(f"v=DMARC1; {policies}", "d0.example") | published(
        "v=DMARC1; p=none", "d1.example"
    )
    stage.script(zone)
    heard = stage.running("reject").send(mail(b"<a@d0.example>, <b@d1.example>"))
    assert heard.answer.code == 550
    assert ("d0.example (p=reject)" in heard.answer.text) is (policies == "p=reject")
    assert "p=none" not in heard.answer.text
