"""What the differential fuzz found that other people's readers show (tests/fuzz/test_fuzz_from.py),
through the socket."""

from __future__ import annotations

import pytest

from fakes.attack import OK, Case, Stage, X, ids, mail
from fakes.dns_server import Spec

ZONE: dict[str, Spec] = {
    "_dmarc.brand": {"TXT": ["v=DMARC1; p=reject"]},
    "_dmarc.xn--qei.example": {"TXT": ["v=DMARC1; p=reject"]},
}
SEEN, ATTACK = X(), OK("header.from=attack.example")


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
        X("xn--qei.example"),
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
        X("brand"),
        b"service@brand bounce=v=example.com@attack.example",
        b"<mailto:ceo@brand attack.example>",
    ),
    *rows("FRM-85", X("brand"), b"(admin@brand a@attack.example"),
    *rows("FRM-86", SEEN, b'"J. Doe"." <("admin@legit.examp(x)le)a@attack.example>'),
    *rows("FRM-86", SEEN, b'"a@attack.example\\"@attack.example.(.legit.example),'),
    *rows("FRM-86", SEEN, b"?(x+t ag@@legit.example\t<x+tag@attack.example>,"),
    *rows(
        "FRM-86",
        SEEN,
        b"a@attack.example,& (a) admin@legit.example. (b)\tJ. Doe <b@attack.example>",
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
