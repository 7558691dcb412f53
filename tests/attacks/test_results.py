"""Authentication-Results of the attack catalogue: forged fields that come in, and what must not get
into ours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.attack import (
    ATTACK_SIGNER,
    LEGIT_SIGNER,
    Case,
    Mail,
    Stage,
    delivered,
    good,
    ids,
    mail,
    refused,
    spoof,
)

CLAIM = b"mx.example.com; dmarc=pass header.from=legit.example"
PASSES = delivered("header.from=legit.example")


def forged(row: str, *values: bytes, name: bytes = b"Authentication-Results") -> list[Case]:
    """Fields that must go, above and below a foreign one that must stay byte for byte."""
    foreign = (
        b"Authentication-Results",
        b" mx.other.example;\r\n\tdkim=pass (ok) header.d=legit.example",
    )
    return [
        Case(
            row,
            good().top((name, value), foreign, (name, value)),
            PASSES,
            kept=(foreign[1],),
            note=repr(value[:50]),
        )
        for value in values
    ]


def foreign(row: str, *values: bytes, name: bytes = b"Authentication-Results") -> list[Case]:
    return [
        Case(row, good().top((name, value)), PASSES, kept=(value,), note=repr(value[:50]))
        for value in values
    ]


EIGHT = [b" mx%d.other.example; spf=pass" % n for n in range(1, 9)]
for ours in (2, 3, 5):
    EIGHT[ours - 1] = b" mx.example.com; dmarc=pass"

MANY = {"limits": {"removable_fields": 5000}}
"""Removed all the same: how many may be is another row's affair (ARF-14)."""

ARF = [
    *forged("ARF-01", b" " + CLAIM),
    *forged(
        "ARF-02",
        b" MX.Example.COM; dmarc=pass",
        b" mx.example.com 1; dmarc=pass",
        b" mx.example.com/1; dmarc=pass",
        b" mx.example.com;dmarc=pass",
        b"mx.example.com;dmarc=pass",
        b" mx.example.com ; dmarc=pass",
        b" mx.example.com dmarc=pass",
        b" mx.example.com",
        b" mx.example.com; none",
    ),
    *forged(
        "ARF-03",
        b" (c) " + CLAIM,
        b" (a(b\\))) " + CLAIM,
        b" mx.example.com (c) 1; dmarc=pass",
        b"(c)" + CLAIM,
    ),
    *forged(
        "ARF-04",
        b' "mx.example.com"; dmarc=pass',
        b' "mx.ex\\ample.com"; dmarc=pass',
        b' "MX.example.com" (x); dmarc=pass',
    ),
    *forged(
        "ARF-05",
        b"\r\n\t" + CLAIM,
        b" mx.\r\n example.com; dmarc=pass",
        b"\r\n (c)\r\n\t" + CLAIM,
        b"\t" + CLAIM,
    ),
    *forged("ARF-05", b" " + CLAIM, name=b"AUTHENTICATION-results"),
    *forged("ARF-05", b" " + CLAIM, name=b"Authentication-Results "),
    *forged("ARF-05", b" " + CLAIM, name=b"Authentication-Results\t"),
    *forged(
        "ARF-06",
        b" mx.example.com.; dmarc=pass",
        b" mx.example.com\x0b; dmarc=pass",
        b" mx.example.com\x7f; dmarc=pass",
        " mx。example.com; dmarc=pass".encode(),
        " ｍx.example.com; dmarc=pass".encode(),
        b" mx.exa(c)mple.com; dmarc=pass",
        b" mx.example.com\xc2\xa0; dmarc=pass",
        b" mx.example.com\xff; dmarc=pass",
        " mx.ex\u00adample.com; dmarc=pass".encode(),
        " mx.example\u200b.com; dmarc=pass".encode(),
        b" =?utf-8?q?mx.example.com?=; dmarc=pass",
    ),
    *forged(
        "ARF-07",
        b" " + b"x" * 100_000 + b" " + CLAIM,
        b" " + b"(" * 5000 + CLAIM,
        b' "' + CLAIM,
        b" ; " + CLAIM,
        b" x (" + CLAIM,
    ),
    *foreign(
        "ARF-08",
        b" sub.mx.example.com; dmarc=pass",
        b" evil-mx.example.com; dmarc=pass",
        b" example.com; dmarc=pass",
        b" mx.example.com.attack.example; dmarc=pass",
    ),
    Case(
        "ARF-08",
        good().top((b"Authentication-Results", b" example.com; dmarc=pass")),
        PASSES,
        tables={"authentication": {"remove_authserv_ids": ["example.com"]}},
        kept=(),
        note="further id of ours",
    ),
    Case(
        "ARF-09",
        good().top(*((b"Authentication-Results", value) for value in EIGHT)),
        PASSES,
        kept=tuple(value for value in EIGHT if b"other" in value),
    ),
    Case(
        "ARF-10",
        good().top(*[(b"Authentication-Results", b" " + CLAIM)] * 900),
        PASSES,
        tables=MANY,
        kept=(),
        seconds=3,
    ),
    Case(
        "ARF-10",
        spoof().top(*[(b"Authentication-Results", b" " + CLAIM)] * 1000),
        refused(),
        tables=MANY,
        kept=(),
        seconds=3,
        note="beyond the header limit",
    ),
    *(
        Case(
            "ARF-10",
            letter.top(*[(name, b" " + CLAIM)] * 2200),
            verdict,
            tables=MANY,
            kept=(),
            seconds=3,
            variants=False,
            note=f"From below {name.decode()}",
        )
        for name in (b"Authentication-Results", b"X-DMARC-Quarantine")
        for letter, verdict in (
            (spoof(), refused()),
            (mail(b"<a@attack.example>"), delivered("header.from=attack.example")),
        )
    ),
    Case(
        "ARF-10",
        replace(spoof(), body=b"Authentication-Results: " + CLAIM + b"\r\n\r\nx\r\n"),
        refused(),
        note="body",
    ),
    *(
        Case("ARF-11", good().top((name, b" " + CLAIM)), PASSES, note=name.decode())
        for name in (
            b"Received-SPF",
            b"ARC-Authentication-Results",
            b"X-Authentication-Results",
            b"DMARC-Filter",
        )
    ),
    *foreign(
        "ARF-12",
        b" dkim=none (message not signed) header.d=none;spf=pass",
        b" spf=pass; dkim=none",
        b" dmarc=pass",
    ),
]


def among(row: str, honest: bytes, *values: bytes | str) -> Case:
    """All these fields in one message, an honest one between every two of them: only those stay."""
    texts = [b" " + (each.encode() if isinstance(each, str) else each) for each in values]
    fields = [
        (b"Authentication-Results", each)
        for text in texts
        for each in (text + b"; dmarc=pass", b" " + honest)
    ]
    return Case(row, good().top(*fields), PASSES, kept=(b" " + honest,) * len(texts))


HONEST = (
    b" mta1.other.example from=mx.example.com; domainkeys=neutral (no sig); dkim=pass (ok)",
    b" other.example dkim=pass header.d=mx.example.com",
    b" [192.0.2.1]; spf=pass smtp.helo=mx.example.com",
    b" other.example:25; spf=pass smtp.helo=mx.example.com",
    b" mail filter at other; spf=pass smtp.helo=mx.example.com",
    b" =?utf-8?q?other.example?=; spf=pass smtp.helo=mx.example.com",
    b" other.example; dkim=pass (key; mx.example.com; x) header.d=mx.example.com",
    " mx.ex\u00e4mple.com; spf=pass".encode(),
    b" xn--bcher-kva.example; spf=pass",
)

RES = [
    among(
        "RES-60",
        b"xn--bcher-kva.example; spf=pass smtp.helo=mx.example.com",
        "mx.example.com\u00e9.other.example",
        "mx.example.com_x.other.example",
        "mx.ex\u00e9ample.com",
        "mx.exa\u0301mple.com",
        "\u201cmx.example.com\u201d",
    ),
    among(
        "RES-61",
        b"other.example (mx.example.com) 1; spf=pass",
        "(mx.example.com) other.example",
        "((a) mx.example.com; dmarc=pass) other.example 1",
        "(x\\) mx.example.com; y) other.example",
        '"a=b" mx.example.com',
    ),
    among(
        "RES-62",
        b"other.example; spf=pass (x; mx.example.com; y) smtp.helo=mx.example.com",
        "other.example; mx.example.com",
        'other.example; none; "mx.example.com" 1',
        "dkim=pass header.d=a.example; mx.example.com",
    ),
    among(
        "RES-63",
        b"other%2Eexample; spf=pass smtp.helo=mx.example.com",
        "xn--mx-.example.com",
        "mx%2Eexample%2ecom",
        "mx&#46;example.com",
        b"mx\xc0\xaeexample.com",
    ),
    among(
        "RES-64",
        b"/other.example; spf=pass smtp.helo=mx.example.com",
        "mx..example.com",
        "/mx.example.com",
        "_mx.example.com",
        "-mx.example.com-",
    ),
    among(
        "RES-65",
        b"=?utf-8?q?other.example?=; spf=pass smtp.helo=mx.example.com",
        "=?utf-8?q?mx.example.com",
        "=??q?mx.example.com?=",
        "=?utf-8*en?q?mx.?=\r\n =?x-unknown?b?ZXhhbXBsZS5jb20?=",
        "=?utf-7?q?mx+AC4-example.com?=",
    ),
    Case(
        "RES-66",
        good().top(*((b"Authentication-Results", value) for value in HONEST)),
        PASSES,
        kept=HONEST,
    ),
]


@pytest.mark.parametrize("case", ARF + RES, ids=ids)
def test_a_forged_field(stage: Stage, case: Case) -> None:
    """RFC 8601 5: what a lenient reader could take for ours is gone, everything else stays as it
    was."""
    stage.check(case)


def test_a_field_below_the_limit_of_fields_goes_too(stage: Stage) -> None:
    """ARF-10 in monitor mode: beyond the header limits forged fields are still counted and removed,
    and nothing passes."""
    case = next(each for each in ARF if "beyond" in each.note)
    stage.script({})
    heard = stage.running("monitor", MANY).send(case.mail)
    assert heard.dmarc.result == "fail"
    assert len(heard.answer.values("Authentication-Results")) == 1
    with_signature = replace(
        case.mail, fields=(*case.mail.fields[:995], *good().fields, *case.mail.fields[995:1000])
    )
    heard = stage.running("monitor", MANY).send(with_signature)
    assert heard.ours is not None
    assert {each.result for each in heard.ours.of("dkim")} == {"permerror"}
    assert len(heard.answer.values("Authentication-Results")) == 1
    stage.running("monitor", MANY).new_lines()


def test_results_stay_where_the_client_may_hand_them_back(stage: Stage) -> None:
    """ARF-13: only a client in keep_results_from keeps our earlier field; a trusted network alone
    does not."""
    again = good().top(
        (b"Authentication-Results", b" mx.example.com; dmarc=pass header.from=legit.example")
    )
    stage.script({})
    kept = stage.running(
        "enforce", {"authentication": {"keep_results_from": ["203.0.113.9/32"]}}
    ).send(again)
    assert len(kept.answer.values("Authentication-Results")) == 2
    trusted = stage.running(
        "enforce", {"authentication": {"trusted_networks": ["203.0.113.9/32"]}}
    ).send(again)
    assert trusted.answer.values("Authentication-Results") == []


def test_our_id_in_another_script(stage: Stage) -> None:
    """ARF-06: an internationalized authserv-id is recognized as A-label, as U-label and in any
    case; ours is written as A-label."""
    running = stage.running("enforce", {"authentication": {"authserv_id": "straße.example"}})
    stage.script({})
    for spelling in (
        "xn--strae-oqa.example",
        "straße.example",
        "XN--STRAE-OQA.example",
        "STRAßE.example",
        '"straße.example"',
    ):
        letter = good().top((b"Authentication-Results", f" {spelling}; dmarc=pass".encode()))
        heard = running.send(letter)
        assert heard.ours is not None
        assert heard.ours.authserv_id == "xn--strae-oqa.example"
        assert len(heard.answer.values("Authentication-Results")) == 1, spelling
        running.new_lines()


INJECTED = [
    Case("ARI-01", spoof().signed(ATTACK_SIGNER, tags={"d": "a.example; dmarc=pass"}), refused()),
    Case(
        "ARI-01",
        spoof().signed(ATTACK_SIGNER, tags={"d": "a.example\r\n X-Inj: 1"}),
        refused(),
        note="fold",
    ),
    Case(
        "ARI-01",
        spoof().signed(ATTACK_SIGNER, tags={"d": "a.example\rX-Inj: 1"}),
        refused(),
        note="bare CR",
    ),
    *(
        Case("ARI-02", spoof(mail_from=path), refused(), note=repr(path))
        for path in (
            b'<"a b"@attack.example>',
            b"<a;b@attack.example>",
            b"<a(b)@attack.example>",
            b'<"a\\"b"@attack.example>',
            b"<a\xff@attack.example>",
        )
    ),
    *(
        Case("ARI-03", spoof(helo=helo, mail_from=b"<>"), refused(), note=repr(helo[:30]))
        for helo in (
            b"x; dmarc=pass",
            b"x) dmarc=pass (",
            b"x" * 500,
            "héé.example".encode(),
            b"x\tdmarc=pass",
            b'"x.example"',
            b"\x1b[31m",
        )
    ),
    *(
        Case(
            "ARI-04",
            spoof().signed(ATTACK_SIGNER),
            refused(),
            {ATTACK_SIGNER.key_name: {"TXT": [text]}},
            note=text[:30],
        )
        for text in (
            ") dmarc=pass header.from=legit.example (",
            "v=DKIM1; k=); dmarc=pass (; p=",
            "v=DKIM1; n=) dmarc=pass (; p=AAAA",
        )
    ),
    *(
        Case("ARI-04", spoof(), refused(), {"attack.example": {"TXT": [text]}}, note=text[:40])
        for text in (
            "v=spf1 ) dmarc=pass (",
            "v=spf1 include:) -all",
            "v=spf1 exp=x.attack.example -all",
            "v=spf1 redirect=);dmarc=pass",
            "v=spf1 -all; dmarc=pass header.from=legit.example",
        )
    ),
    Case(
        "ARI-04",
        spoof(),
        refused(),
        {
            "attack.example": {"TXT": ["v=spf1 exp=x.attack.example -all"]},
            "x.attack.example": {"TXT": [") dmarc=pass header.from=legit.example ("]},
        },
        note="explanation",
    ),
    Case(
        "ARI-04",
        mail(b"<a@attack.example>", mail_from=b"<>", helo=b"x"),
        delivered("dmarc=fail", result="fail"),
        {
            "_dmarc.attack.example": {
                "TXT": ["v=DMARC1; p=none; x=) dmarc=pass (; rua=mailto:a@b.example)"]
            }
        },
        note="policy record",
    ),
    *(
        Case("ARI-05", spoof().signed(ATTACK_SIGNER, tags={"s": s}), refused(), note=s)
        for s in ("sel;dkim=pass", "sel dkim=pass", 'sel"', "sel)")
    ),
    Case(
        "ARI-06",
        Mail(spoof().fields).top(
            *(
                ATTACK_SIGNER.field(
                    spoof().raw,
                    tags={
                        "d": ".".join(f"{n:02d}" + "a" * 56 for _ in range(4)) + ".example",
                        "s": "s" * 10,
                        "i": None,
                    },
                )
                for n in range(10)
            )
        ),
        refused(),
    ),
    Case("ARI-07", mail(b'"); dmarc=pass (" <"a;b"@legit.example>'), refused()),
    *(
        Case(
            "ARI-08",
            spoof(hostname=name, macros={"{client_name}": name.decode("latin-1")}),
            refused(),
            note=repr(name),
        )
        for name in (b"a;dmarc=pass", b"\x1b]0;x", b"a b", b"x" * 2000)
    ),
    *(
        Case("ARI-09", mail(b"<a@%s.legit.example>" % label), refused(), note=repr(label[:20]))
        for label in (b"b" * 63, b".".join([b"b" * 59] * 3))
    ),
    Case(
        "ARI-09",
        mail(b"<a@x%n%s.legit.example>"),
        delivered(result="permerror"),
        note="percent",
        variants=False,
    ),
]


@pytest.mark.parametrize("case", [each for each in INJECTED if each.note != "percent"], ids=ids)
def test_what_the_sender_says_is_never_written_raw(stage: Stage, case: Case) -> None:
    """The field is strictly RFC 8601 whatever stands in d=, s=, MAIL FROM, HELO, PTR, DNS text;
    replies are one plain line."""
    stage.check(case)


def test_a_percent_in_a_reply(stage: Stage) -> None:
    """ARI-09: no % reaches libmilter, and the reply stays under 512 octets."""
    for case in (each for each in INJECTED if each.row == "ARI-09"):
        stage.script({})
        answer = stage.running("reject").send(case.mail).answer
        assert answer.code == 550
        assert "%" not in answer.text
        assert len(answer.text) < 510
        stage.running("reject").new_lines()


def test_ten_results_of_long_names_fit(stage: Stage) -> None:
    """ARI-06: at most 8 KiB, lines under 998, spf and dmarc are never left out; the strict reader
    has the rest."""
    case = next(each for each in INJECTED if each.row == "ARI-06")
    stage.script({})
    heard = stage.running("monitor").send(case.mail)
    assert heard.ours is not None
    assert len(heard.ours.of("dkim")) == 10
    assert heard.ours.one("spf")
    stage.running("monitor").new_lines()


def test_other_readers_agree(stage: Stage) -> None:
    """The authres package reads from our field what the strict reader reads, where it can read it
    at all."""
    import authres

    for letter in (good(), spoof(), spoof().signed(LEGIT_SIGNER).signed(ATTACK_SIGNER)):
        stage.script({})
        heard = stage.running("monitor").send(letter)
        assert heard.ours is not None
        value = heard.answer.headers[0][1].decode().replace("\n", "\r\n")
        theirs = authres.AuthenticationResultsHeader.parse(f"Authentication-Results:{value}")
        assert theirs.authserv_id == "mx.example.com"
        assert [(each.method, each.result) for each in theirs.results] == [
            (each.method, each.result) for each in heard.ours.results
        ]
