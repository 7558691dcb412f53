"""The From corpus of the attack catalogue, each value through the whole daemon under every spelling
of the field."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fakes.attack import (
    LEGIT_SIGNER,
    NO_POLICY,
    Case,
    Stage,
    delivered,
    ids,
    mail,
    malformed,
    refused,
)
from fakes.dns_server import Spec

ATTACK = delivered("header.from=attack.example")
NOBODY = malformed("", quarantined=True)
SEEN = malformed()
"""legit.example is among what some reader could see."""
HARMLESS = malformed("")
"""Only domains without an enforcing policy can be seen: delivered, never with a pass."""

LONG_LABELS = "".join(
    f"@{''.join(map(chr, range(n, n + 992)))}" for n in range(0x4E00, 0x4E14)
).encode()

STRASSE: dict[str, Spec] = {
    "_dmarc.xn--strae-oqa.example": {"TXT": ["v=DMARC1; p=reject"]},
    "_dmarc.strasse.example": {"TXT": ["v=DMARC1; p=none"]},
}


def rows(row: str, verdict: object, *values: bytes, **rest: object) -> list[Case]:
    return [Case(row, mail(value), verdict, note=repr(value[:40]), **rest) for value in values]  # type: ignore[arg-type]


FRM = [
    Case("FRM-01", mail(), NOBODY),
    *rows("FRM-01", NOBODY, b"", b" ", b"\r\n ", b"<>", b";", b","),
    *rows("FRM-02", NOBODY, b"undisclosed:;", b"g:;", b"a:;" * 5000),
    *rows("FRM-03", refused(), b"legit:admin@legit.example;"),
    *rows(
        "FRM-04",
        SEEN,
        b"g:a@attack.example,admin@legit.example;",
        b"g1:a@attack.example;,g2:b@legit.example;",
    ),
    *rows("FRM-05", HARMLESS, b"g<:a@attack.example>;"),
    *rows("FRM-05", ATTACK, b'"x:y" <a@attack.example>'),
    *rows(
        "FRM-06",
        refused(),
        b"admin(c)@legit.example",
        b"admin@legit.example(.attack.example)",
        b"admin@(a(b)\\))legit.example",
    ),
    *rows("FRM-07", SEEN, b"admin@legit.example (oops"),
    # A single label without a policy counts like no domain.
    *rows("FRM-07", NOBODY, b"(" * 5000, b"(" * 5000 + b")" * 5000 + b" <a@b>"),
    *rows(
        "FRM-08",
        SEEN,
        *(b"alice@legit.example%cbob@attack.example" % each for each in b')<;(,:"[]'),
    ),
    *rows("FRM-08", HARMLESS, b"alice@legit.example.bob@attack.example"),
    *rows("FRM-09", SEEN, b"a@attack.example@legit.example", b"a@legit.example@attack.example"),
    *rows("FRM-10", refused(), b'"a@attack.example" <admin@legit.example>'),
    *rows("FRM-10", ATTACK, b'"admin@legit.example" <a@attack.example>'),
    *rows("FRM-11", SEEN, b"admin@legit.example <a@attack.example>"),
    # Real readers take the address in the quotation for the author.
    *rows("FRM-12", SEEN, b'"admin@attack.example"@legit.example'),
    *rows("FRM-12", refused(), b'"a\\"b"@legit.example', b'"a>b"@legit.example'),
    *rows("FRM-13", refused(), b'"\\"Medtronic, Inc.\\"" <user@legit.example>'),
    *rows(
        "FRM-14",
        SEEN,
        b"user@legit.example>",
        b"<user@legit.example",
        b"<<user@legit.example>>",
        b"<a@attack.example> <admin@legit.example>",
    ),
    *rows("FRM-15", refused(), b"Doe, John <john@legit.example>"),
    *rows("FRM-16", refused(), b"<admin@legit.example.>"),
    *rows("FRM-17", SEEN, b"<admin@.legit.example>", b"<admin@legit..example>"),
    *rows("FRM-17", NOBODY, b"<admin@->", b"<admin@" + b"a" * 64 + b".example>"),
    # The longest suffix that a name can have counts: somebody's organization may be at its end,
    # nobody's in these.
    *rows(
        "FRM-17", HARMLESS, b"<admin@" + b"abcde." * 43 + b"example>", b"<a@" + b"a." * 127 + b"a>"
    ),
    *rows(
        "FRM-18",
        NOBODY,
        b"<admin@[192.0.2.1]>",
        b"<admin@[IPv6:2001:db8::1]>",
        b"<admin@192.0.2.1>",
    ),
    *rows("FRM-18", NO_POLICY, b"<root@localhost>"),
    *rows(
        "FRM-19",
        SEEN,
        b"<admin@legit.example attack.example>",
        b"<admin @ legit . example>",
        b"<admin@legit\r\n .example>",
    ),
    *rows(
        "FRM-20", refused("xn--strae-oqa.example"), "<admin@straße.example>".encode(), zone=STRASSE
    ),
    *rows(
        "FRM-21",
        SEEN,
        "<admin@legit。example>".encode(),
        "<admin@legit．example>".encode(),
        "<admin@legit｡example>".encode(),
        "<admin@ｌegit.example>".encode(),
    ),
    *rows(
        "FRM-22",
        SEEN,
        "<admin@legit.ex\u200bample>".encode(),
        "<admin@legit.ex\u200dample>".encode(),
        "<admin@legit.ex\u00adample>".encode(),
        "<admin@\u202elegit.example>".encode(),
    ),
    # What stands after the odd character is what a reader may see.
    *rows("FRM-22", SEEN, "<admin@\u0307legit.example>".encode()),
    *rows("FRM-22", HARMLESS, "<admin@lеgit.example>".encode()),
    *rows(
        "FRM-23",
        SEEN,
        b"<admin@legit\xc0\xaeexample>",
        b"<admin@legit.example\xef\xbb\xbf>",
        b"<admin@legit.example\xed\xa0\x80>",
    ),
    *rows("FRM-23", malformed(""), b"<admin@legit.\xe9xample>", b"<admin@l\xc3git.example>"),
    *rows("FRM-24", NO_POLICY, b"<a@xn--a>", b"<a@xn--legit.example>"),
    *rows("FRM-24", NOBODY, b"<a@xn--legit-.example>"),
    *rows("FRM-24", refused("xn--strae-oqa.example"), b"<a@XN--STRAE-OQA.example>", zone=STRASSE),
    *rows("FRM-25", ATTACK, b"=?utf-8?Q?x=0D=0AFrom:=20admin=40legit.example?= <a@attack.example>"),
    *rows(
        "FRM-26", SEEN, b"admin@=?utf-8?Q?legit.example?=", b"<=?utf-8?Q?admin=40legit.example?=>"
    ),
    *rows(
        "FRM-27",
        ATTACK,
        b"<admin%legit.example@attack.example>",
        b"<legit.example!admin@attack.example>",
    ),
    *rows(
        "FRM-28",
        SEEN,
        b"<mailto:admin@legit.example>",
        b"a@attack.example; admin@legit.example",
        b"a@attack.example\tadmin@legit.example",
        b"a@attack.example\r\n admin@legit.example",
    ),
    *rows("FRM-29", refused(), b"ADMIN@LEGIT.EXAMPLE"),
    *(
        Case("FRM-29", mail(extra=[(name, b" admin@legit.example")]), refused(), note=name.decode())
        for name in (b"FROM", b"fRoM")
    ),
    *rows(
        "FRM-30",
        refused(),
        *(
            b'"%s" <admin@legit.example>' % each
            for each in (
                b"%s%n%x",
                b"{0.__class__}",
                b"{{7*7}}",
                b"$(id)",
                b"`id`",
                b"${run{/bin/true}}",
            )
        ),
        b"<%s%n{0.__class__}${x}`id`@legit.example>",
    ),
    # An odd label hides no organization: the name after it decides.
    *rows("FRM-30", SEEN, b"<admin@${run{/bin/true}}.legit.example>"),
    *rows("FRM-30", HARMLESS, b"<admin@%s%n.example>"),
    *rows("FRM-30", SEEN, b"<\\N{x}@legit.example>"),
    *rows(
        "FRM-31",
        SEEN,
        b"<a@legit.example\\>",
        b"<a@legit.example\\.attack.example>",
        b"<a@legit.example/../>",
        b"<a@legit.example%2f>",
    ),
    *rows(
        "FRM-32",
        malformed("", code=550),
        b", ".join(b"a@d%d.example" % number for number in range(3000)),
        seconds=0.5,
    ),
    *rows("FRM-32", NOBODY, b'"a" ' * 25_000, b"a." * 50_000, seconds=0.5),
    # More encoded words than are examined count as hiding somebody.
    *rows("FRM-32", malformed("", code=550), b"=?utf-8?q?a?= " * 7_000, seconds=0.5),
    *rows("FRM-32", HARMLESS, b"a@b.c," * 16_000, seconds=0.5),
    # Five seconds of a processor once, and half a second.
    *rows("FRM-32", NOBODY, LONG_LABELS, b"% <" + b"\xe7" * 8_000 + b"@>", seconds=2),
    *rows("FRM-33", NOBODY, b"a\r\n b" * 900, b"x" * 99_000),
    *rows(
        "FRM-33",
        refused(),
        b"\r\n\t<admin@legit.example>",
        b"\tadmin@legit.example",
        b"A\r\n\tB\r\n  <admin@legit.example>\r\n ",
    ),
    Case("FRM-34", mail("<用户@legit.example>".encode(), parameters=(b"SMTPUTF8",)), refused()),
    Case(
        "FRM-34",
        mail(
            "<用户@legit.example>".encode(),
            mail_from="<用户@attack.example>".encode(),
            parameters=(b"SMTPUTF8",),
        ).signed(LEGIT_SIGNER),
        delivered("header.from=legit.example", "spf=pass smtp.mailfrom=attack.example"),
    ),
    *(
        Case("FRM-35", mail(extra=[(name, b" <admin@legit.example>")]), NOBODY, note=repr(name))
        for name in (
            b"X-From",
            b"From-",
            b"Resent-From",
            b"Sender",
            b"Fro",
            b"Fromm",
            b"X: a\r\n From",
        )
    ),
    Case("FRM-35", mail(extra=[(b"From\t", b" <admin@legit.example>")]), refused(), note="tab"),
    Case(
        "FRM-35",
        mail(b"<a@attack.example>", extra=[(b"X-A", b" b\r\n From: <admin@legit.example>")]),
        ATTACK,
        note="continuation",
    ),
    *(
        Case("WL-04", mail(b"<admin@legit.example%b@attack.example>" % odd), SEEN, note=repr(odd))
        for odd in (b"\x01", b"\x7f", b"\x80", b"\x08", b"\x0b", b"\x0c", b"\x1b", b"\r")
    ),
    *rows("ESP-15", SEEN, b"=?utf-8?B?PGFkbWluQGxlZ2l0LmV4YW1wbGU+?=,<second@attack.example>"),
    *rows(
        "ESP-16",
        SEEN,
        b"<@attack.example,@any.example:admin@legit.example>",
        b"<@legit.example:a@attack.example>",
    ),
    *rows("ESP-17", SEEN, b"<admin@legit.example>\\,<second@attack.example>"),
    *rows("ESP-18", SEEN, b"admin@legit.example,<second@attack.example>"),
    *rows("ESP-19", SEEN, b"<any@attack.example>admin@legit.example"),
    *rows("ESP-19", HARMLESS, b"<any@attack.example> John"),
]


@pytest.mark.parametrize("case", FRM, ids=ids)
def test_a_from_field(stage: Stage, case: Case) -> None:
    """Evaluated for its one domain, or malformed: never a pass, none or no result for what some
    reader takes for legit.example."""
    stage.check(case)


@pytest.mark.parametrize(
    "case", [each for each in FRM if each.verdict.result == "permerror"], ids=ids
)
def test_a_signature_does_not_mend_a_from_field(stage: Stage, case: Case) -> None:
    """RFC 9989 11.5: neither a valid signature of a visible domain nor SPF's pass gives a malformed
    field a pass."""
    letter = replace(case.mail, mail_from=b"<a@legit.example>", ip="198.51.100.10").signed(
        LEGIT_SIGNER
    )
    stage.script(case.zone)
    heard = stage.running("monitor").send(letter)
    assert heard.dmarc.result == "permerror", heard.show()
    heard = stage.running("reject").send(letter)
    assert heard.answer.code == 550


@pytest.mark.parametrize("setting", ["quarantine", "accept"])
def test_the_other_settings_of_malformed_from(stage: Stage, setting: str) -> None:
    """docs/design.md: quarantine and accept do what they say, and neither gives a pass."""
    running = stage.running("enforce", {"policy": {"malformed_from": setting}})
    for case in FRM:
        if case.verdict.result == "permerror" and case.row in (
            "FRM-01",
            "FRM-04",
            "FRM-09",
            "FRM-14",
            "FRM-18",
            "ESP-16",
        ):
            stage.script(case.zone)
            heard = running.send(case.mail)
            assert heard.answer.code == 250
            assert heard.dmarc.result == "permerror"
            marks = heard.answer.values("X-DMARC-Quarantine")
            assert bool(marks) == (setting == "quarantine"), heard.show()
