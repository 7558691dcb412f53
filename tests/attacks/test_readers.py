"""What the differential fuzz found that other people's readers show (tests/fuzz/test_fuzz_from.py),
through the socket."""

from __future__ import annotations

import pytest

from fakes.attack import Case, Stage, delivered, ids, mail, malformed
from fakes.dns_server import Spec

ZONE: dict[str, Spec] = {
    "_dmarc.brand": {"TXT": ["v=DMARC1; p=reject"]},
    "_dmarc.xn--qei.example": {"TXT": ["v=DMARC1; p=reject"]},
}
SEEN, ATTACK = malformed(), delivered("header.from=attack.example")
HIDDEN = malformed("", code=550)
"""Refused because nobody can say whom a reader shows."""


def rows(row: str, verdict: object, *values: bytes | str) -> list[Case]:
    octets = [value.encode() if isinstance(value, str) else value for value in values]
    return [
        Case(
            row,
            mail(value),
            verdict,
            note=f"{number} {value[:30]!r}",
            zone=ZONE,
            variants=number == 1,
        )  # type: ignore[arg-type]
        for number, value in enumerate(octets, 1)
    ]


FOUND = [
    *rows(
        "FRM-80",
        SEEN,
        "(admin@legit.example\u7528\u6237@attack.example",
        "(admin@legit.example\u7528\u6237 <a@attack.example>",
    ),
    *rows(
        "FRM-80",
        malformed("xn--qei.example"),
        "a@attack.example, (admin@\u2764.example\u7528\u6237@attack.example",
    ),
    *rows(
        "FRM-81",
        SEEN,
        "admin@leg\u2028it.example Legit Inc. <a@attack.example>>",
        "admin@leg\u3000it.example Inc. <a@attack.example>",
    ),
    *rows(
        "FRM-81",
        SEEN,
        "admin@leg\u00a0it.example Inc. <a@attack.example>",
        b"admin@legit.exam ple <a@attack.example>",
    ),
    *rows(
        "FRM-82",
        SEEN,
        b'"admin@legit.example" <a@attack.example.>',
        b"=?utf-8?q?admin=40legit=2Eexample?= <a@attack.example.>",
    ),
    *rows(
        "FRM-82",
        SEEN,
        b'"admin@legit.example" <.a@attack.example>',
        b'"admin@legit.example" <a..b@attack.example>',
    ),
    *rows(
        "FRM-82",
        ATTACK,
        b'"Bank, Inc." <a@attack.example.>',
        b"a..b@attack.example",
        b'"a@attack.example" <a@attack.example.>',
    ),
    *rows("FRM-83", SEEN, b"=? =utf-8?B?YWRtaW5AbGVnaXQuZXhhbXBsZQ==?=, a@attack.example"),
    *rows("FRM-83", SEEN, b"=?x-unknown?B?YWRtaW5AbGVnaXQuZXhhbXBsZQ==?= <>, a@attack.example"),
    *rows("FRM-83", SEEN, b"=?utf-8?B?YWJjZEBsZWdpdC5leGFtcGxleA?=, a@attack.example"),
    *rows("FRM-83", SEEN, b"=?utf-:7?B?YWRtaW4rQUVBLWxlZ2l0LmV4YW1wbGU=?=, a@attack.example"),
    *rows("FRM-83", SEEN, b"=?utf-8?Q?admin==40legit.example?=, a@attack.example"),
    *rows(
        "FRM-84",
        SEEN,
        b'"admin@leg"it.example"@attack.example',
        b'a@attack.example, ""admin@leg""it.example ":x <a@attack.example>',
    ),
    *rows("FRM-84", SEEN, b'admin@leg""it.example\t(a@attack.example'),
    *rows(
        "FRM-85",
        malformed("brand"),
        b"service@brand bounce=v=example.com@attack.example",
        b"<mailto:ceo@brand attack.example>",
    ),
    *rows("FRM-85", malformed("brand"), b"(admin@brand a@attack.example"),
    *rows("FRM-86", SEEN, b'"J. Doe"." <("admin@legit.examp(x)le)a@attack.example>'),
    *rows("FRM-86", SEEN, b'"a@attack.example\\"@attack.example.(.legit.example),'),
    *rows("FRM-86", SEEN, b"?(x+t ag@@legit.example\t<x+tag@attack.example>,"),
    *rows(
        "FRM-86",
        SEEN,
        b"a@attack.example,& (a) admin@legit.example. (b)\tJ. Doe <b@attack.example>",
    ),
    *rows(
        "FRM-90",
        HIDDEN,
        b"=?utf-1[6?Q?=FF=FEa=00@=00l=00e=00g=00i=00t=00.=00e=00x=00a=00m=00p=00l=00e=00?= <>,"
        b" a@attack.example",
        b"=?utf-.7?b?YWRtaW4rQUVBLWxlZ2l0LmV4YW1wbGU=?=;a@attack.example",
        b'<a@attack.example>; =?ut""f-8?B?YWRtaW5AbGVnaXQuZXhhbXBsZQ==?=;',
        b"<a@attack.example>; =?ut(x)f-8?Q?admin=40legit=2Eexample?=;",
        b"=??Q?admin=40legit=2Eexample?= b; a@attack.example",
        b"<a@attack.example>; =?\xe2\x80\x8butf-8?Q?admin=40legit=2Eexample?=;",
    ),
    *rows(
        "FRM-91",
        HIDDEN,
        b"=?x-unknown?B?YWRtaW5AbG=VnaXQuZXhhbXBsZQ?= @ <b@attack.example>",
        b"=?utf-8?B?YWRtaW5AbGVnaXQu\xef\xb9\xabZXhhbXBsZQ==?=<a@attack.example>>",
        b"=?utf-8?B?YWRt!aW5AbGVnaXQuZXhhbXBsZQ==?= b; a@attack.example",
        b"=?utf-8?B?!YWRtaW5A?= =?utf-8?B?bGVnaXQuZXhhbXBsZQ==?= b; a@attack.example",
    ),
    *rows(
        "FRM-92",
        HIDDEN,
        b"<a@attack.example>;=?gb2312?Q?se@rvice=40legit=2()Eexample?= a@b",
        b"<a@attack.example>;<mailto:=?UTF-8?q?ceo= 40legit=2Eexample?=>",
        b'<a@attack.example>; =?utf-8?Q?admin=4"0legit=2Eexample?=',
        b"<a@attack.example>; =?utf-8?Q?ad\x01min=40legit=2Eexample?=",
    ),
    *rows(
        "FRM-93",
        SEEN,
        b"<mailto:=?iso-2022-jp?B?YWRtaW5AbGVnaXQuZXhhbXBsZQ==?=>, a@attack.example",
        b"<a@attack.example>; admin@leg=?utf-8?Q?it=2Eexample?=",
    ),
    *rows(
        "FRM-93",
        HIDDEN,
        b"<a@attack.example>; admin@le=?utf-8?\x01Q??=git.example",
        b"<a@attack.example>; <=?iso-2022-jp?q?admin=40leg=()69t.exam?=ple>",
    ),
    *rows(
        "FRM-94",
        SEEN,
        rb""" "a\\\", admin@mail.l"egit.example"."ack.example>; <a@attack.example>""",
        b' "admin@le"git.ex"ample"."attack.example>; a@attack.example ; % ""',
        b'"x:y"@attack.example <a@attack.example> <c@b;.x>attack.example> "mail.legit.example":;',
    ),
    *rows(
        "FRM-95",
        SEEN,
        "(admin@legit.example\u7528\u6237(\r\n <a@attack.example>",
        '"admin@legit.example\u212a\\")@\t< a@attack.example >',
        "(admin@legit.example\u7528).\u6237, <a@attack.example>",
    ),
    *rows(
        "FRM-97",
        HIDDEN,
        b"=?unicode_escape?Q?admin=5Cx40legit.example?= <a@attack.example.>",
        b"=?raw_unicode_escape?Q?admin=5Cu0040legit.example?=, <a@attack.example x>",
        b"a@attack.example; =?base64?Q?YWRtaW5AbGVnaXQuZXhhbXBsZQ==?=",
        b"a@attack.example; =?HTML?B?YWRtaW4mIzY0O2xlZ2l0LmV4YW1wbGU=?=",
        b"=?quoted-printable?Q?admin=3D40legit.example?=, <a@attack.example x>",
        b"a@attack.example; =?ibm1047?B?gYSUiZV8k4WHiaNLhaeBlJeThQ==?=",
        b"a@attack.example; =?utf-7-imap?Q?admin&AEA-legit.example?=",
        b"=?utf-16?b?//5hAC-IAYQBkAG0aQBuAEAAbABlAGcAaQB0AC4AZQB4AGEAbQBwAGwAZQAgAA?="
        b" (a@attack.example",
    ),
    *rows(
        "FRM-98",
        SEEN,
        b'admin"@"legit.example <a@attack.example.>',
        b'"admin@"legit.example <a@attack.example.>',
        b'"admin@leg"it.example <a.@attack.example>',
    ),
    *rows(
        "FRM-98",
        ATTACK,
        b'"Bank" Inc. <a@attack.example.>',
        b'"a@attack.example" Bank <a@attack.example.>',
    ),
    *rows(
        "FRM-99",
        SEEN,
        b"=?utf-8?Q?admin=40legit.example?= =?utf-16?Q?=FF=FEA=00=0D=00=0A=00=3C>=00?="
        b"<a@attack.example>",
        b"admin@le\x1b(Bgit.example, a@attack.example",
    ),
    *rows(
        "FRM-96",
        ATTACK,
        b"=?utf-8?Q?Doe, John at Bank?= <a@attack.example>",
        b"=?utf-8?B?Sm9obiBEb2U?= <a@attack.example>",
        b"=?x-unknown?Q?M=FCller?= <a@attack.example>",
        b"=?UTF-8?Q?J=C3=B6rg <a@attack.example>",
    ),
    *rows(
        "FRM-96",
        malformed(""),
        b"=?utf-8?Q?Doe, John= at Bank?= <a@b c@attack.example>",
        b"=?x-unknown?B?Sm9o bi=BEb2U?= <a@attack.example> x",
    ),
]


@pytest.mark.parametrize("case", FOUND, ids=ids)
def test_whom_a_reader_shows(stage: Stage, case: Case) -> None:
    """Not well-formed whenever some reading gives another domain (RFC 9989 11.5); a legal oddity
    without one stays as it is."""
    if case.variants:
        stage.check(case)
    else:
        stage.check_in(case, "enforce")
