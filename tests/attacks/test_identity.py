"""Forged senders by row of the attack catalogue: composition of SPF, DKIM and From; weak links;
forwarding; replay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.attack import (
    ATTACK_SIGNER,
    LEGIT_SIGNER,
    NO_POLICY,
    Case,
    Stage,
    cases,
    delivered,
    good,
    ids,
    mail,
    malformed,
    refused,
    spoof,
)
from fakes.sealer import seal

ADMIN, FIRST = b"<admin@legit.example>", b"<first@attack.example>"


def signed_as(d: str, row: str = "ESP-04b") -> Case:
    """The attacker's key, published where `d` leads when it is taken whole."""
    return Case(
        row,
        spoof().signed(ATTACK_SIGNER, tags={"d": d}),
        refused(),
        {f"sel._domainkey.{d}": {"TXT": [ATTACK_SIGNER.record()]}},
        note=repr(d),
    )


ESP = [
    Case(
        "ESP-01",
        spoof(helo=b"helo.attack.example", mail_from=b"<any@mailfrom.notexist.legit.example>"),
        refused(),
    ),
    Case("ESP-02", spoof(helo=b"attack.example", mail_from=b"<(any@legit.example>"), refused()),
    *(
        Case(
            "ESP-03",
            spoof().signed(
                ATTACK_SIGNER,
                tags={"d": "legit.example", "s": f"sel._domainkey.attack.example.{nul}.any"},
            ),
            refused(),
            note=repr(nul),
        )
        for nul in ("\x00", "\\x00", "\\000", "%00")
    ),
    signed_as("legit.example'a.attack.example", "ESP-04"),
    *(
        signed_as(f"legit.example{odd}.attack.example")
        for odd in ("(", '"', ";x", "=", "/", " ", "\t", ",", "\\", "@", "<", ":")
    ),
    Case(
        "ESP-05",
        spoof(mail_from=b"<any@legit.example(a.attack.example>"),
        refused(),
        {"legit.example(a.attack.example": {"TXT": ["v=spf1 +all"]}},
    ),
    Case(
        "ESP-06",
        spoof(mail_from=b"<any@legit.example'@any.attack.example>"),
        refused(),
        {"any.attack.example": {"TXT": ["v=spf1 +all"]}},
    ),
    Case(
        "ESP-07", spoof(mail_from=b"<@legit.example,@any.example:'any@attack.example>"), refused()
    ),
    *cases(
        "ESP-08",
        malformed(),
        mail(FIRST, ADMIN),
        mail(ADMIN, FIRST),
        mail(FIRST, ADMIN, ADMIN),
        mail(ADMIN, ADMIN),
    ),
    Case("ESP-09", mail(), malformed("", quarantined=True)),
    *(
        Case(
            "ESP-10",
            mail(FIRST, extra=[(name, b" <admin@legit.example>")]),
            malformed(),
            note=repr(name),
        )
        for name in (b"From ", b"From\t", b"FROM \t")
    ),
    Case("ESP-12", mail(extra=[(b"Sender", b" " + ADMIN)]), malformed("", quarantined=True)),
    Case("ESP-13", mail(extra=[(b"Resent-From", b" " + ADMIN)]), malformed("", quarantined=True)),
    Case(
        "ESP-14",
        mail(
            b"<first@attack.example>, <admin@legit.example>",
            extra=[(b"Sender", b" <s@sender.legit.example>")],
        ),
        malformed(),
    ),
    Case("ESP-14", mail(b"<a@legit.example>, <b@legit.example>"), refused(), note="one domain"),
    Case(
        "ESP-14",
        mail(b"<a@legit.example>, <b@legit.example>").signed(LEGIT_SIGNER),
        delivered("header.from=legit.example"),
        note="signed",
    ),
    *(
        Case("ESP-20", good().top((name, b" " + value)), delivered("dkim=pass"), note=name.decode())
        for name, value in (
            (b"Subject", b"Pay now"),
            (b"To", b"<x@example.net>"),
            (b"Content-Type", b"text/html"),
        )
    ),
    Case(
        "ESP-20",
        good().top((b"Subject", b" Pay")),
        refused(),
        tables={"authentication": {"require_signed": ["subject", "to"]}},
        note="required",
    ),
    Case("ESP-20", good().top((b"From", b" <x@attack.example>")), malformed(), note="another From"),
    Case("ESP-21", spoof(helo=b"legit.example"), refused()),
]

NULL = {"mail_from": b"<>", "ip": "198.51.100.10"}
WL = [
    Case("WL-01", spoof(mail_from=b"<>", helo=b"attack.example"), refused()),
    Case(
        "WL-02",
        spoof(helo=b"mail.legit.example", **NULL),
        delivered("spf=pass", "smtp.helo=mail.legit.example"),
    ),
    *(
        Case("WL-03", spoof(mail_from=b"<>", helo=helo), refused(), note=repr(helo[:20]))
        for helo in (
            b"[192.0.2.66]",
            b"localhost",
            b"",
            b"-",
            b"x" * 300,
            b"a." * 150,
            b"\xff\xfe.example",
            "straße.example".encode(),
            b"a b",
        )
    ),
    Case(
        "WL-05",
        mail(b"=?utf-8?Q?admin=40legit.example?= <a@attack.example>"),
        delivered("header.from=attack.example"),
    ),
    Case("WL-06", mail(b"<a@nx.legit.example>"), refused()),
    Case(
        "WL-06",
        mail(b"<a@nx.legit.example>"),
        delivered(result="fail"),
        {"_dmarc.legit.example": {"TXT": ["v=DMARC1; p=reject; np=none"]}},
        note="np",
    ),
    Case(
        "WL-06",
        mail(b"<a@nx.legit.example>"),
        refused(),
        {"_dmarc.legit.example": {"TXT": ["v=DMARC1; p=none; np=reject"]}},
        note="np reject",
    ),
    Case(
        "WL-06",
        mail(b"<a@mail.legit.example>"),
        refused(),
        {"_dmarc.legit.example": {"TXT": ["v=DMARC1; p=none; sp=reject; np=none"]}},
        note="sp",
    ),
    Case(
        "WL-07",
        spoof().signed(LEGIT_SIGNER, tags={"b": "AAAA" * 86}).signed(ATTACK_SIGNER),
        refused(),
        note="legit below",
    ),
    Case(
        "WL-07",
        spoof().signed(ATTACK_SIGNER).signed(LEGIT_SIGNER, tags={"b": "AAAA" * 86}),
        refused(),
        note="legit on top",
    ),
    Case("WL-08", spoof().of(seal(spoof().raw, ATTACK_SIGNER)), refused()),
    Case("WL-09", mail(b"<a@xn--lgit-csa.example>"), NO_POLICY),
    Case(
        "WL-09",
        mail("\u202enimda <a@attack.example>".encode()),
        delivered("header.from=attack.example"),
        note="direction",
    ),
]

FWD = [
    Case(
        "FWD-01", spoof(mail_from=b"<SRS0=abcd=xy=legit.example=admin@attack.example>"), refused()
    ),
    *(
        Case("FWD-02", mail(ADMIN, extra=[(name, value)]), refused(), note=name.decode())
        for name, value in (
            (b"X-Authenticated", b" yes"),
            (b"Authentication-Results", b" relay.example; auth=pass smtp.auth=admin"),
            (b"X-Originating-IP", b" [198.51.100.10]"),
            (
                b"Received",
                (
                    b" from mail.legit.example ([198.51.100.10]) by mx.example.com (Postfix) with"
                    b" ESMTPSA id 1; Thu, 1 Oct 2026"
                ),
            ),
            (b"Received-SPF", b" pass (mailfrom) identity=mailfrom; envelope-from=a@legit.example"),
            (b"List-Id", b" <list.legit.example>"),
        )
    ),
]

PERMISSIVE = (
    "v=spf1 ip4:192.0.0.0/2 -all",
    "v=spf1 +all",
    "v=spf1 ip4:0.0.0.0/0 -all",
    "v=spf1 ip4:128.0.0.0/1 ?all",
)
BSP = [
    *(
        Case(
            "BSP-01",
            spoof(mail_from=b"<a@legit.example>"),
            delivered("spf=pass", "policy.spf-permissive=yes"),
            {"legit.example": {"TXT": [text]}},
            note=text,
        )
        for text in PERMISSIVE
    ),
    *(
        Case(
            "BSP-01",
            spoof(mail_from=b"<a@legit.example>"),
            refused(),
            {"legit.example": {"TXT": [text]}},
            {"authentication": {"spf_permissive_counts": False}},
            note=f"not counted, {text}",
        )
        for text in PERMISSIVE
    ),
    Case(
        "BSP-01",
        spoof(mail_from=b"<a@legit.example>"),
        delivered("spf=pass"),
        {
            "legit.example": {"TXT": ["v=spf1 exists:%{i}.a.legit.example -all"]},
            "*.a.legit.example": {"A": ["127.0.0.2"]},
        },
        note="exists",
    ),
]

LTAG_HOW = {"c": "relaxed/simple", "headers": ("from", "to", "subject", "date")}
appended = good().of(
    mail(ADMIN, mail_from=b"<x@attack.example>").signed(LEGIT_SIGNER, length=8, **LTAG_HOW).raw
    + b"<html>pay</html>\r\n"
)
LTAG = [
    Case("LTAG-01", appended.top((b"Content-Type", b" multipart/mixed; boundary=x")), refused()),
    Case("LTAG-02", spoof().signed(LEGIT_SIGNER, length=0), refused(), note="l=0"),
    Case(
        "LTAG-02", spoof().signed(LEGIT_SIGNER, length=8), delivered("dkim=pass"), note="all of it"
    ),
    *(
        Case("LTAG-02", spoof().signed(LEGIT_SIGNER, tags={"l": text}), refused(), note=text[:8])
        for text in ("999", "", "-1", "1e3", "9" * 77, "+8", " 8 8", "0x8", "٨")
    ),
]

octets = int.from_bytes(b"\xff" * 256, "big")
RPL = [
    *(
        Case(
            "RPL-01",
            replace(good(), ip=f"203.0.113.{n}", rcpt=(b"<r%d@example.com>" % n,)),
            delivered("dkim=pass"),
            note=f"replay {n}",
        )
        for n in range(3)
    ),
    Case(
        "RPL-01", spoof().signed(LEGIT_SIGNER, tags={"x": "1700000001"}), refused(), note="expired"
    ),
    Case(
        "RPL-01",
        spoof().signed(LEGIT_SIGNER, tags={"x": "4000000000"}),
        delivered("dkim=pass"),
        note="not yet",
    ),
]


@pytest.mark.parametrize("case", ESP + WL + FWD + BSP + LTAG + RPL, ids=ids)
def test_a_forged_sender(stage: Stage, case: Case) -> None:
    """No two of our parts read the same bytes differently; nothing that the message says about
    itself counts."""
    stage.check(case)


@pytest.mark.parametrize("row", ["ESP-03", "ESP-04", "ESP-04b"])
def test_a_name_that_is_none_is_never_asked_for(stage: Stage, row: str) -> None:
    """dkim=permerror, and not one question under the attacker's _domainkey (RFC 6376 3.5)."""
    for case in (each for each in ESP if each.row == row):
        stage.script(case.zone)
        heard = stage.running("monitor").send(case.mail)
        assert heard.ours is not None
        assert [each.result for each in heard.ours.of("dkim")] == ["permerror"], case
        assert not [name for name, _ in stage.dns.queries if "_domainkey" in name], case


def test_each_signature_is_named(stage: Stage) -> None:
    """WL-07: both results stand there, each with its own d=."""
    for case in (each for each in WL if each.row == "WL-07"):
        stage.script({})
        heard = stage.running("monitor").send(case.mail)
        assert heard.ours is not None
        assert {(each.properties["header.d"], each.result) for each in heard.ours.of("dkim")} == {
            ("attack.example", "pass"),
            ("legit.example", "fail"),
        }


def test_unsigned_fields_can_be_required(stage: Stage) -> None:
    """ESP-20: what the signature did not cover is dkim=policy where the administrator requires
    it."""
    case = next(each for each in ESP if each.note == "required")
    stage.script({})
    heard = stage.running("monitor", case.tables).send(case.mail)
    assert heard.ours is not None
    assert heard.ours.one("dkim").result == "policy"


@pytest.mark.parametrize(
    ("macros", "tables"),
    [
        ({"{auth_authen}": "bob"}, {}),
        ({"{auth_authen}": "j\udcfcrgen"}, {}),
        ({}, {"authentication": {"trusted_networks": ["192.0.2.0/24"]}}),
        (
            {"{daemon_name}": "ORIGINATING"},
            {"authentication": {"sendmail_daemons_authenticate": "yes"}},
        ),
    ],
)
def test_only_the_mta_says_who_is_exempt(
    stage: Stage, macros: dict[str, str], tables: dict[str, dict[str, list[str]]]
) -> None:
    """FWD-02: passed through unevaluated, forged fields removed all the same, no field of ours."""
    forged = mail(
        ADMIN,
        extra=[
            (b"Authentication-Results", b" mx.example.com; dmarc=pass"),
            (b"X-DMARC-Quarantine", b" no"),
        ],
        mail_macros=macros,
    )
    stage.script({})
    running = stage.running("enforce", tables)
    answer = running.send(replace(forged, macros=macros)).answer
    assert answer.code == 250
    assert answer.headers == list(forged.fields[2:])
    running.new_lines()
