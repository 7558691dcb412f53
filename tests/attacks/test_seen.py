"""The author that a reader could see: an odd label hides no organization, and no address hides
where only readers look.

`bank.example` is the victim (p=reject); the attacker's own evil.example and attack.example publish
p=none and pass SPF or DKIM.
"""

from __future__ import annotations

import base64

import pytest

from fakes.attack import Case, Stage, delivered, ids, mail, malformed, refused
from fakes.dns_server import Spec

BANK: dict[str, Spec] = {
    "bank.example": {"TXT": ["v=spf1 -all"]},
    "_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]},
    "_dmarc.evil.example": {"TXT": ["v=DMARC1; p=none"]},
}
NAMED = malformed("bank.example")
SEEN = malformed()
NOBODY = malformed("", quarantined=True)
HARMLESS = malformed("")
ATTACK = delivered("header.from=attack.example")


def rows(row: str, verdict: object, *values: bytes | str, **rest: object) -> list[Case]:
    octets = [value.encode() if isinstance(value, str) else value for value in values]
    return [
        Case(
            row,
            mail(value),
            verdict,
            note=f"{number} {value[:30]!r}",
            **{"zone": BANK, "variants": number == 1} | rest,
        )  # type: ignore[arg-type]
        for number, value in enumerate(octets, 1)
    ]


def hosts(row: str, verdict: object, *names: bytes | str, **rest: object) -> list[Case]:
    """The same for the domain of an address in angle brackets."""
    octets = [name.encode() if isinstance(name, str) else name for name in names]
    return rows(row, verdict, *(b"Bank <service@" + name + b">" for name in octets), **rest)


def encoded(text: str, charset: str, codec: str = "") -> bytes:
    """An encoded word (RFC 2047) in base64."""
    return b"=?%s?B?%s?=" % (charset.encode(), base64.b64encode(text.encode(codec or charset)))


ORGANIZATION = [
    *hosts(
        "FRM-36", NAMED, *(b"a%cb.bank.example" % odd for odd in b"+%&!=<;[]\"'#$*/?^`{|}~:,>()\\")
    ),
    *hosts(
        "FRM-36",
        NAMED,
        b"x%.bank.example",
        b"x&y.bank.example",
        b"a!b.bank.example",
        b"a=b.bank.example",
        b"a<.bank.example",
    ),
    *hosts(
        "FRM-36",
        NAMED,
        b"a;.bank.example",
        b"[a].bank.example",
        b'"a".bank.example',
        b"'a.bank.example",
        b"+a.b.bank.example",
    ),
    *hosts(
        "FRM-36",
        NAMED,
        b"a+.b&.c!d.bank.example",
        b"+bank.example",
        b"bank.example+",
        b"bank.example/x",
        b"ba+nk.example",
        b"bank+.example",
    ),
    *rows(
        "FRM-36",
        NAMED,
        b"service@a+b.bank.example",
        b"Bank <service@a+b.bank.example> (x)",
        b'"Bank" <service@a+b.bank.example> Bank',
    ),
    *hosts(
        "FRM-37",
        NAMED,
        "\U0001f3e6.bank.example",
        "p\u0430ypal.bank.example",
        "a\u0301\u0302.bank.example",
        "\u0301a.bank.example",
    ),
    *hosts(
        "FRM-37",
        NAMED,
        "a\u200d.bank.example",
        "a\u200bb.bank.example",
        "\u202ea.bank.example",
        "\u2066a\u2069.bank.example",
    ),
    *hosts(
        "FRM-37",
        NAMED,
        "a\ufffd.bank.example",
        "\uff0b.bank.example",
        "a\u00ad.bank.example",
        "x.\u2603.y.bank.example",
    ),
    *hosts(
        "FRM-37",
        NAMED,
        b"a\xff.bank.example",
        b"\xe9\xff\xfe.bank.example",
        b"a\xe2\x98.bank.example",
        b"a\xed\xa0\x80.bank.example",
    ),
    *hosts(
        "FRM-38",
        NAMED,
        b"ba nk.example",
        b"customer support.bank.example",
        "ba\u00a0nk.example",
        b"ba\tnk.example",
        b"ba\r\n nk.example",
    ),
    *hosts(
        "FRM-38",
        NAMED,
        "customer\u00a0support.bank.example",
        "a\u2003b.bank.example",
        "ba\u3000nk.example",
        b"a .bank.example",
    ),
    *hosts(
        "FRM-38",
        NAMED,
        "ba\u2028nk.example",
        b"bank. example",
        b" bank.example x",
        "ba\u1680nk.example",
        b"b a n k . e x a m p l e",
    ),
    *hosts(
        "FRM-39",
        NAMED,
        b"evil.example+x.bank.example",
        "evil.example\u2603.bank.example",
        b"evil.example;x.bank.example",
    ),
    *hosts(
        "FRM-39",
        NAMED,
        b"evil.example support.bank.example",
        "evil.example\u00a0bank.example",
        b"evil.example(.bank.example",
    ),
    *hosts(
        "FRM-39",
        NAMED,
        b"evil.example%bank.example",
        b"evil.example\\.bank.example",
        "evil.example\u200bx.bank.example",
    ),
    *hosts(
        "FRM-39",
        NAMED,
        "evil.example\u2603bank.example",
        b"evil.example\xff.bank.example",
        b"evil.example+bank.example+evil.example",
    ),
    *hosts(
        "FRM-40",
        NAMED,
        b"bank%2Eexample",
        b"a%2Bb.bank.example",
        b"bank&#46;example",
        b"bank&period;example",
        b"b&#x61;nk.example",
    ),
    *hosts(
        "FRM-40",
        NAMED,
        b"bank\\.example",
        b"ba\\nk.example",
        b"a=?utf-8?Q?=2B?=.bank.example",
        b"=?utf-8?B?YmFuay5leGFtcGxl?=",
    ),
    *hosts(
        "FRM-40",
        NAMED,
        b"ba(c)nk+.example",
        b"ba(c(d))nk.example@",
        b"a&nbsp;b.bank.example",
        b"[bank.example]",
        b'"bank".example',
    ),
    *rows(
        "FRM-40",
        NAMED,
        b"Bank service&#64;bank.example",
        b"Bank <service%40bank.example>",
        b"<service&commat;bank.example>",
    ),
    *hosts(
        "FRM-41",
        NAMED,
        b"-a.bank.example",
        b"a-.bank.example",
        b"-.bank.example",
        b"-bank-.example",
        b"a..bank.example",
        b"..bank.example",
    ),
    *hosts(
        "FRM-41",
        NAMED,
        b"x" * 64 + b".bank.example",
        b"x." * 125 + b"bank.example",
        b"ab." * 200 + b"bank.example",
    ),
    *hosts(
        "FRM-41",
        NAMED,
        b"bank.example..",
        b"bank.example.-",
        b"a.bank.example.1",
        b"x--.-y.bank.example",
    ),
    *hosts(
        "FRM-42",
        NOBODY,
        b"+",
        b"a+b",
        "\u2603",
        b"[192.0.2.1].",
        b"192.0.2.1+",
        b"[IPv6:2001:db8::1]x",
        b"a b",
    ),
    *hosts(
        "FRM-42",
        malformed("corp"),
        b"a+corp",
        b"a.+corp",
        zone={"_dmarc.corp": {"TXT": ["v=DMARC1; p=reject; psd=y"]}},
    ),
    *hosts(
        "FRM-56",
        malformed("xn--qei.example"),
        "\u2764.example",
        "a+b.\u2764.example",
        zone={"_dmarc.xn--qei.example": {"TXT": ["v=DMARC1; p=reject"]}},
    ),
    *hosts(
        "FRM-43",
        refused("bank.example"),
        b"xn--a.bank.example",
        b"xn--\x61-\x61.bank.example",
        b"_x.bank.example",
        b"a--b.bank.example",
    ),
    *hosts(
        "FRM-43",
        delivered("dmarc=pass"),
        b"my_host.attack.example",
        b"_.attack.example",
        b"a--b.attack.example",
        b"xn--a.attack.example",
    ),
    *rows(
        "FRM-44",
        NAMED,
        b", ".join(b"a@d%d.bank.example" % number for number in range(12)),
        b"a@a.bank.example, b@b.evil.example",
    ),
    *rows(
        "FRM-44",
        NAMED,
        b", ".join(b"a@" + b"x." * 9 + b"d%d.bank.example" % number for number in range(16)),
    ),
    *rows("FRM-44", HARMLESS, b", ".join(b"a@d%d.evil.example" % number for number in range(12))),
    *rows(
        "FRM-44",
        malformed("", code=550),
        b", ".join(b"a@d%d.d%d.example" % (n, n) for n in range(5)),
        b"<a@" + b"x.y+" * 300 + b"bank.example>",
    ),
]
ELSEWHERE = [
    *rows(
        "FRM-45",
        SEEN,
        b'"admin@legit.example" :;, a@attack.example',
        b"a@attack.example, admin@legit.example:;",
    ),
    *rows(
        "FRM-45",
        SEEN,
        b'x "admin@legit.example" y: a@attack.example;',
        b"=?utf-8?Q?admin=40legit.example?= :;, a@attack.example",
    ),
    *rows(
        "FRM-45",
        SEEN,
        b"Admin (admin@legit.example) :;, a@attack.example",
        b'a@attack.example, "<admin@legit.example>":;',
    ),
    *rows(
        "FRM-46",
        SEEN,
        b'"admin@legit.example"@attack.example',
        b'"<admin@legit.example>"@attack.example',
    ),
    *rows(
        "FRM-46",
        SEEN,
        b'"admin@legit.example,"@attack.example',
        b'<"admin@legit.example "@attack.example>',
    ),
    *rows(
        "FRM-46",
        SEEN,
        b'"admin\\@legit.example"@attack.example',
        b'"a\\" <admin@legit.example> "@attack.example',
    ),
    *rows(
        "FRM-46",
        SEEN,
        b'Admin <"a\\" <admin@legit.example> "@attack.example>',
        b'Admin <"a> , <admin@legit.example> "@attack.example>',
    ),
    *rows(
        "FRM-46",
        SEEN,
        b'"admin&#64;legit.example"@attack.example',
        b"admin&#64legit.example@attack.example",
    ),
    *rows(
        "FRM-46",
        SEEN,
        '"admin\uff20legit.example"@attack.example',
        b'"=?utf-8?Q?admin=40legit.example?="@attack.example',
    ),
    *rows(
        "FRM-47",
        SEEN,
        b"(admin@legit.example), a@attack.example",
        b"a@attack.example, (admin@legit.example)",
    ),
    *rows(
        "FRM-47",
        SEEN,
        b"(<admin@legit.example>), <a@attack.example>",
        b"a@attack.example, (x) (admin@legit.example),",
    ),
    *rows(
        "FRM-47",
        SEEN,
        b"g:(admin@legit.example), a@attack.example;",
        b"<a(admin@legit.example)@attack.example>",
    ),
    *rows(
        "FRM-47",
        SEEN,
        b"a(admin@legit.example)@attack.example",
        b"<a@attack.example (admin@legit.example)>",
    ),
    *rows(
        "FRM-48",
        SEEN,
        b"(x (y) <admin@legit.example>) a@attack.example",
        b"a@attack.example (x (y), admin@legit.example)",
    ),
    *rows(
        "FRM-48",
        SEEN,
        b"(x \\) <admin@legit.example> \\( ) <a@attack.example>",
        b"(\\), admin@legit.example, \\() a@attack.example",
    ),
    *rows(
        "FRM-48",
        SEEN,
        b'"x\\" <admin@legit.example>, \\"" <a@attack.example>',
        b'"\\", admin@legit.example, \\"" <a@attack.example>',
    ),
    *rows(
        "FRM-49",
        SEEN,
        b'"x\r\n <admin@legit.example>, y" <a@attack.example>',
        b"(x\r\n <admin@legit.example>, ) a@attack.example",
    ),
    *rows(
        "FRM-49",
        SEEN,
        b'"admin@legit.example" < a@attack.example >',
        b'"admin@legit.example" <\r\n a@attack.example>',
    ),
    *rows(
        "FRM-49",
        SEEN,
        b'"admin@legit.example" <(c)a@attack.example>',
        b'g:"a;admin@legit.example" <a@attack.example>;',
    ),
    *rows("FRM-50", SEEN, b"=?utf-8?Q?admin=40legit.example?= =?utf-8?Q?=2C <a@attack.example>"),
    *rows("FRM-50", SEEN, b"=?utf-8?Q?admin=40legit.example?= =?utf-8?B?LA <a@attack.example>"),
    *rows("FRM-50", SEEN, b"=?utf-8?Q?admin=40legit.example?= =?utf-8?Q?=3E <a@attack.example>"),
    *rows("FRM-50", SEEN, b"=?utf-8?Q?=3Cadmin=40legit.example=3E=2C?= <a@attack.example>"),
    *rows(
        "FRM-50",
        SEEN,
        b"=?utf-8?Q?=3Cadmin=40legit?= =?utf-8?Q?.example=3E=2C?= <a@attack.example>",
    ),
    *rows("FRM-50", SEEN, b"=?utf-8*en?Q?=3Cadmin=40legit.example=3E=2C?= <a@attack.example>"),
    *rows("FRM-50", SEEN, b'"=?utf-8?Q?x=22_=3Cadmin=40legit.example=3E=2C?=" <a@attack.example>'),
    *rows(
        "FRM-50",
        SEEN,
        b"=?utf-8?Q?admin=40legit.example@attack.example",
        b"=?utf-8?Q?a?b=40legit.example=2C?= <a@attack.example>",
    ),
    *rows(
        "FRM-50",
        SEEN,
        *(
            encoded("<admin@legit.example>, ", name) + b" <a@attack.example>"
            for name in ("utf-7", "utf-16be", "utf-8")
        ),
    ),
    *rows("FRM-50", SEEN, encoded("<admin@legit.example>, ", "ibm037") + b" <a@attack.example>"),
    *rows("FRM-51", SEEN, "x \uff1cadmin\uff20legit.example\uff1e\uff0c <a@attack.example>"),
    *rows(
        "FRM-51", SEEN, '"x\uff02 \uff1cadmin@legit.example\uff1e\uff0c\uff02y" <a@attack.example>'
    ),
    *rows(
        "FRM-52",
        ATTACK,
        b'"john smith"@attack.example',
        b'"x:y"@attack.example',
        b'"a@attack.example"@attack.example',
    ),
    *rows(
        "FRM-52",
        ATTACK,
        b"(via Foo), a@attack.example",
        b"undisclosed:;, a@attack.example",
        b'"Bank, Inc." <a@attack.example>',
    ),
    *rows(
        "FRM-52",
        ATTACK,
        b'"admin@attack.example" <a@attack.example>',
        b"a@attack.example (Foo (Bar), Inc.)",
        b'"a\\" <b" <a@attack.example>',
    ),
    *rows(
        "FRM-53",
        ATTACK,
        b"!#$%&'*+-/=?^_`{|}~@attack.example",
        b"=?a?=@attack.example",
        b"a=?utf-8@attack.example",
    ),
    *rows(
        "FRM-53",
        malformed("", code=250),
        b"=?utf-8?Q?a?=@attack.example",
        b"b=?utf-8?Q?a?=@attack.example",
    ),
    *rows(
        "FRM-54",
        ATTACK,
        b"Name [US] <a@attack.example>",
        b"Re: Name <a@attack.example>",
        b"Name,(<a@attack.example>)",
    ),
    *rows(
        "FRM-54",
        ATTACK,
        b"10:30: Show <a@attack.example>",
        b"Tom &amp; Jo <a@attack.example>",
        b"'a@attack.example' <a@attack.example>",
    ),
    *rows(
        "FRM-54",
        SEEN,
        b"Name [admin@legit.example] <a@attack.example>",
        b"Re: admin@legit.example, x <a@attack.example>",
    ),
    *rows(
        "FRM-54",
        SEEN,
        b"admin@legit.example,(<a@attack.example>)",
        b"Tom; admin@legit.example; <a@attack.example>",
    ),
    # A display name, and a comment beside the address, may hold what they like: SECURITY.md says
    # so.
    *rows(
        "FRM-55",
        ATTACK,
        b'"admin@legit.example" <a@attack.example>',
        b"a@attack.example (admin@legit.example)",
    ),
    *rows(
        "FRM-55",
        ATTACK,
        b"=?utf-8?Q?admin=40legit.example_via_X?= <a@attack.example>",
        b"\"'b@legit.example' via X\" <a@attack.example>",
    ),
]


def check(stage: Stage, case: Case) -> None:
    """The first of a kind in every mode and spelling, the others as they stand."""
    if case.variants:
        stage.check(case)
    else:
        stage.check_in(case, "enforce")


@pytest.mark.parametrize("case", ORGANIZATION, ids=ids)
def test_an_odd_label_hides_no_organization(stage: Stage, case: Case) -> None:
    """RFC 5322 3.2.3, RFC 9989 4.10: the walk from what a reader could take for the name reaches
    the organization's policy."""
    check(stage, case)


@pytest.mark.parametrize("case", ELSEWHERE, ids=ids)
def test_an_address_elsewhere_in_the_field(stage: Stage, case: Case) -> None:
    """RFC 9989 11.5: what a common mail program would show as the author is never passed over;
    other oddities are no fault."""
    check(stage, case)
