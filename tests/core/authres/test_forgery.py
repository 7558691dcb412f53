"""Whose an Authentication-Results field is (RFC 8601 5; docs/attacks.md, ARF rows)."""

import quopri
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.authres.field import ResInfo, format, properties
from dmarc_milter.core.authres.forgery import BREAK, may_be_taken_for_ours
from dmarc_milter.core.mail import domain
from fakes.growth import costs_less, is_linear

OURS = "mx.example.com"
FORGED = [
    ("ARF-01", b" mx.example.com; dmarc=pass header.from=legit.example"),
    ("ARF-02", b" MX.Example.COM; dmarc=pass"),
    ("ARF-02", b" mx.example.com 1; dmarc=pass"),
    ("ARF-02", b" mx.example.com/1; dmarc=pass"),
    ("ARF-02", b" mx.example.com/1 1; dmarc=pass"),
    ("ARF-02", b"mx.example.com;dmarc=pass"),
    ("ARF-02", b" mx.example.com ;"),
    ("ARF-02", b" mx.example.com dmarc=pass"),
    ("ARF-02", b" mx.example.com"),
    ("ARF-02", b" mx.example.com; none"),
    ("ARF-02", b" mx.example.com=x; dmarc=pass"),
    ("ARF-02", b" mx.example.com,dmarc=pass"),
    ("ARF-03", b" (c) mx.example.com; dmarc=pass"),
    ("ARF-03", b" (a(b\\))) mx.example.com; dmarc=pass"),
    ("ARF-03", b" mx.example.com (c) 1; dmarc=pass"),
    ("ARF-04", b' "mx.example.com"; dmarc=pass'),
    ("ARF-04", b' "mx.ex\\ample.com"; dmarc=pass'),
    ("ARF-04", b' "MX.example.com" (x); dmarc=pass'),
    ("ARF-04", b' "mx.example.com; dmarc=pass'),
    ("ARF-04", b' "mx.example.com/5"; dmarc=pass'),
    ("ARF-04", b' "mx.example.com; dmarc=pass header.from=legit.example"'),
    ("ARF-04", b' "mx.example.com; dmarc=pass"; none'),
    ("ARF-04", b' "other.example mx.example.com"; dmarc=pass'),
    ("ARF-05", b"\r\n\tmx.example.com; dmarc=pass"),
    ("ARF-05", b" mx.\r\n example.com; dmarc=pass"),
    ("ARF-06", b" mx.example.com.; dmarc=pass"),
    ("ARF-06", b" mx.example.com\x00; dmarc=pass"),
    ("ARF-06", b" mx.exam\x00ple.com; dmarc=pass"),
    ("ARF-06", " mx。example.com; dmarc=pass".encode()),
    ("ARF-06", " ｍx.example.com; dmarc=pass".encode()),
    ("ARF-06", " mx.example．com; dmarc=pass".encode()),
    ("ARF-06", " mx.exa\u200bmple.com; dmarc=pass".encode()),
    ("ARF-06", " mx.example.com\uff1bdmarc=pass header.from=legit.example".encode()),
    ("ARF-06", " \u037emx.example.com; dmarc=pass".encode()),
    ("ARF-06", " \U0001d426x.example.com; dmarc=pass".encode()),
    ("ARF-06", b" mx.exa(c)mple.com; dmarc=pass"),
    ("ARF-06", b" mx\\.example.com; dmarc=pass"),
    ("ARF-06", b" mx.example.com\xe9; dmarc=pass"),
    ("ARF-07", b" other.example; x=y " + b"a" * 100_000 + b" mx.example.com"),
    ("ARF-07", b"(" * 5000 + b" mx.example.com"),
    ("ARF-07", b"(" * 5000),
    ("ARF-07", b" (" + b"x" * 100_000),
    ("ARF-07", b' "other.example; dmarc=pass'),
    ("ARF-07", b"(" * 5000 + b")" * 5000 + b" mx.example.com; dmarc=pass"),
    ("ARF-07", b" ; mx.example.com; dmarc=pass"),
    ("ARF-07", b" <mx.example.com>; dmarc=pass"),
    ("ARF-07", b" foo bar mx.example.com; dmarc=pass"),
    ("ARF-07", b" 'mx.example.com'; dmarc=pass"),
    ("ARF-06", " mx.e\u034fxample.com; dmarc=pass".encode()),
    ("ARF-06", " mx.example.com\ufe0f; dmarc=pass".encode()),
    ("ARF-06", " mx.example.com\U000e0063; dmarc=pass".encode()),
    ("cut where no name goes on", b" mx.example.com'x; dmarc=pass"),
    ("cut where no name goes on", b" mx.example.com#x; dmarc=pass"),
    ("cut where no name goes on", b" mx.example.com%00.other.example; dmarc=pass"),
    ("cut where no name goes on", b" {mx.example.com}; dmarc=pass"),
    ("read as ARC's", b" i=1; mx.example.com; dmarc=pass"),
    ("read as ARC's", b" (c) I = 1 ; mx.example.com; dmarc=pass"),
    ("without an end", b' other.example; x="mx.example.com'),
    ("without an end", b" other.example; dkim=pass ((x) mx.example.com; dmarc=pass"),
    ("decoded first", b" =?utf-8?b?bXguZXhhbXBsZS5jb207IGRtYXJjPXBhc3M=?="),
    ("decoded first", b" =?utf-8?q?mx.example.com?=; dmarc=pass"),
    ("bare CR", b" other.example; x=y\rAuthentication-Results: mx.example.com; dmarc=pass"),
    ("bare LF", b" other.example; x=y\nAuthentication-Results: mx.example.com; dmarc=pass"),
    (
        "NEL in Latin-1",
        b" other.example; x=y\x85Authentication-Results: mx.example.com; dmarc=pass",
    ),
    ("RES-60", "mx.example.com\u00e9.other.example; dmarc=pass".encode()),
    ("RES-60", b"mx.example.com_x.other.example; dmarc=pass"),
    ("RES-60", "mx.ex\u00e9ample.com; dmarc=pass".encode()),
    ("RES-60", "\u00e9mx.example.com; dmarc=pass".encode()),
    ("RES-60", "mx.example.com\u0301; dmarc=pass".encode()),
    ("RES-60", "mx.exa\u0301mple.com; dmarc=pass".encode()),
    ("RES-60", "\u201cmx.example.com\u201d; dmarc=pass".encode()),
    ("RES-60", "\u00abmx.example.com\u00bb 1; dmarc=pass".encode()),
    ("RES-61", b"(mx.example.com) other.example; dmarc=pass"),
    ("RES-61", b"((a) mx.example.com; dmarc=pass) other.example 1; dmarc=pass"),
    ("RES-61", b"(x\\) mx.example.com; y) other.example; dmarc=pass"),
    ("RES-61", b"(a=b) x mx.example.com; dmarc=pass"),
    ("RES-61", b'"a=b" mx.example.com; dmarc=pass'),
    ("RES-62", b"other.example; mx.example.com; dmarc=pass"),
    ("RES-62", b"other.example (x) ; mx.example.com 1; dmarc=pass"),
    ("RES-62", b'other.example; none; "mx.example.com"; dmarc=pass'),
    ("RES-62", b"dkim=pass header.d=a.example; mx.example.com/5; dmarc=pass"),
    ("RES-62", b"x y=1; mx.example.com; dmarc=pass"),
    ("RES-63", b"xn--mx-.example.com; dmarc=pass"),
    ("RES-63", b"XN--MX-.xn--example-.xn--com-; dmarc=pass"),
    ("RES-63", b"mx%2Eexample%2ecom; dmarc=pass"),
    ("RES-63", b"mx&#46;example&period;com; dmarc=pass"),
    ("RES-63", b"mx\xc0\xaeexample.com; dmarc=pass"),
    ("RES-63", b"mx\xe0\x80\xaeex\xf0\x80\x81\xa1mple.com; dmarc=pass"),
    ("RES-63", b"m\xc1\xb8.example.com\xc0\xbb dmarc=pass"),
    ("RES-64", b"mx..example.com; dmarc=pass"),
    ("RES-64", b"/mx.example.com; dmarc=pass"),
    ("RES-64", b"_mx.example.com; dmarc=pass"),
    ("RES-64", b"-mx.example.com-; dmarc=pass"),
    ("RES-65", b"=?utf-8?q?mx.example.com; dmarc=pass"),
    ("RES-65", b"=??q?mx.example.com?=; dmarc=pass"),
    ("RES-65", b"=?utf-8?q?=3D=3Futf-8=3Fq=3Fmx.example.com=3F=3D?=; dmarc=pass"),
    ("RES-65", b"=?utf-8*en?q?mx.?=\r\n =?x-unknown?b?ZXhhbXBsZS5jb20?=; dmarc=pass"),
    ("RES-65", b"=?utf-7?q?mx+AC4-example.com?=; dmarc=pass"),
    ("RES-65", b"=?utf-16?b?bQB4AC4AZQB4AGEAbQBwAGwAZQAuAGMAbwBtAA==?=; dmarc=pass"),
    ("NEL", " other.example; x=y\u0085Authentication-Results: mx.example.com; dmarc=pass".encode()),
]
FOREIGN = [
    ("ARF-08", b" sub.mx.example.com; dmarc=pass"),
    ("ARF-08", b" evil-mx.example.com; dmarc=pass"),
    ("ARF-08", b" example.com; dmarc=pass"),
    ("ARF-08", b" mx.example.com.evil.example; dmarc=pass"),
    ("ARF-08", b" mx.example.community; dmarc=pass"),
    ("ARF-08", b" other.example/mx.example.com; dmarc=pass"),
    ("ARF-08", b" other.example; spf=pass smtp.mailfrom=mx.example.com"),
    (
        "ARF-08",
        (
            b" other.example 1 (mx.example.com);\r\n\tdkim=pass (mx.example.com)"
            b" header.d=mx.example.com"
        ),
    ),
    ("ARF-08", b" other.example; dkim=pass (caf\xe9) header.d=mx.example.com"),
    ("ARF-08", b' "other.example"; spf=pass smtp.mailfrom=mx.example.com'),
    ("ARF-08", b' "other.example/5" 1; spf=pass smtp.mailfrom=mx.example.com'),
    ("ARF-08", " other.example; dkim=pass (caf\u00e9\u2026) header.d=mx.example.com".encode()),
    (
        "ARF-12",
        (
            b" dkim=none (message not signed)\r\n header.d=none;dmarc=none action=none\r\n"
            b" header.from=mx.example.com;"
        ),
    ),
    ("ARF-12", b" spf=pass (sender IP is 192.0.2.1)\r\n smtp.mailfrom=mx.example.com; dkim=none"),
    ("without an end", b" other.example; dkim=pass (x header.d=legit.example"),
    ("empty", b""),
    ("empty", b" ; dmarc=pass"),
    ("a long comment", b" (" + b"x" * 2000 + b") other.example; spf=pass"),
    (
        "RES-66",
        b" mta1.other.example from=mx.example.com; domainkeys=neutral (no sig); dkim=pass (ok)",
    ),
    ("RES-66", b" other.example dkim=pass header.d=mx.example.com"),
    ("RES-66", b" other.example, dkim=pass header.d=mx.example.com"),
    ("RES-66", b" [192.0.2.1]; spf=pass smtp.helo=mx.example.com"),
    ("RES-66", b" other.example:25; spf=pass smtp.helo=mx.example.com"),
    ("RES-66", b" mail filter at other; spf=pass smtp.helo=mx.example.com"),
    ("RES-66", b" filter@other.example; spf=pass smtp.mailfrom=a@mx.example.com"),
    ("RES-66", b" =?utf-8?q?other.example?=; spf=pass smtp.helo=mx.example.com"),
    (
        "RES-66",
        b" other.example; dkim=pass (2048-bit key; mx.example.com; x) header.d=mx.example.com",
    ),
    ("RES-66", b' other.example; dkim=fail reason="key; mx.example.com; bad"; none'),
    ("RES-66", " b\u00fccher.example; spf=pass smtp.helo=mx.example.com".encode()),
    ("RES-66", " m\u0445.example.com; spf=pass".encode()),
    ("RES-66", " mx.ex\u00e4mple.com; spf=pass".encode()),
    ("RES-66", b" other_mx.example.com.other.example; spf=pass"),
    ("RES-66", b" xn--bcher-kva.example; spf=pass"),
    ("nothing of ours", b" other.example " + b"(" * 5000),
]


@pytest.mark.parametrize(("row", "value"), FORGED)
def test_whatever_could_be_read_as_ours_is_claimed(row: str, value: bytes) -> None:
    """RFC 8601 5: deleted on arrival."""
    assert may_be_taken_for_ours(value, [OURS]), row


@pytest.mark.parametrize(("row", "value"), FOREIGN)
def test_fields_of_others_are_not_claimed(row: str, value: bytes) -> None:
    """They stay byte-identical."""
    assert not may_be_taken_for_ours(value, [OURS]), row


def test_fields_with_our_id_in_either_label_form_are_claimed() -> None:
    """RFC 8601 5, ARF-06: an internationalised authserv-id in A- or U-label form, composed or not,
    mapped or not."""
    for ours in ("mx.straße.example", "mx.xn--strae-oqa.example"):
        for text in (
            "mx.straße.example",
            "MX.xn--STRAE-oqa.example/7",
            '"mx.straße.example"',
            "mx.STRASSE.example",
        ):
            assert may_be_taken_for_ours(f" {text}; dmarc=pass".encode(), [ours])
    assert may_be_taken_for_ours(
        " mx.bu\u0308cher.example; dmarc=pass".encode(), ["mx.bücher.example"]
    )
    assert not may_be_taken_for_ours(b" mx.bucher.example; dmarc=pass", ["mx.bücher.example"])


UNASSIGNED = (0x2065, 0xFFF0, 0xE0080, 0xE0FFF)
GAPS = [
    chr(code)
    for code in range(0x80, sys.maxunicode + 1)
    if chr(code).isspace()
    or unicodedata.category(chr(code)) in ("Cc", "Cf", "Zs", "Zl", "Zp")
    or code in (0x34F, 0x115F, 0x17B4, 0x180B, 0x2800, 0x3164, 0xFE0F, 0xFFA0, 0xE0100, *UNASSIGNED)
]


def test_no_white_space_or_invisible_character_hides_our_id() -> None:
    """ARF-30: all of Unicode's White_Space, Default_Ignorable_Code_Point and format characters,
    beside the id, in it, and to cut it off."""
    for gap in GAPS:
        for text in (
            "mx.example.com{}",
            "{}mx.example.com",
            "mx.exa{}mple.com",
            "mx.example.com{}other",
            "other.example{}mx.example.com",
        ):
            value = f" {text.format(gap)}; dmarc=pass"
            assert may_be_taken_for_ours(value.encode(), [OURS]), value
            assert may_be_taken_for_ours(
                b" =?utf-8?q?" + quopri.encodestring(value.strip().encode(), header=True) + b"?=",
                [OURS],
            ), value
        assert not may_be_taken_for_ours(
            f" other.example; dkim=pass (a{gap}b) header.d=mx.example.com".encode(), [OURS]
        ) or BREAK.match(gap), gap


@pytest.mark.parametrize(
    "text",
    [
        "k\u0131ss.example",
        "K\u0130SS.example",
        "\u212aiss.example",
        "ki\u017f\u017f.example",
        "ki\u00df.example",
    ],
)
def test_letters_that_case_turns_into_ours_are_ours(text: str) -> None:
    """ARF-31: a dotless and a dotted i, the Kelvin sign, the long and the sharp s, for a reader who
    compares in upper or lower case."""
    assert may_be_taken_for_ours(f" {text}; dmarc=pass".encode(), ["kiss.example"])


@pytest.mark.parametrize(
    ("ours", "charsets"),
    [
        (
            "mx.b\u00fccher.example",
            ("latin-1", "cp1252", "iso8859-15", "iso8859-2", "cp850", "mac-roman"),
        ),
        ("mx.\u043f\u043e\u0447\u0442\u0430.example", ("koi8-r", "cp1251", "iso8859-5", "cp866")),
        ("mx.\u4f8b\u5b50.example", ("gbk", "gb18030", "big5", "shift_jis", "euc-jp")),
    ],
)
def test_octets_of_an_older_charset_spell_our_id_too(ours: str, charsets: tuple[str, ...]) -> None:
    """ARF-32: a reader that takes 8-bit text for Latin-1, or for what its users write, sees our
    name. In any case, and as A-label."""
    for charset in charsets:
        for text in (ours, ours.upper(), f'"{ours}"', f"(c) {ours}/1 1", f"other.example {ours}"):
            assert may_be_taken_for_ours(
                f" {text}; dmarc=pass".encode(charset), [domain.parse(ours).name]
            ), (
                charset,
                text,
            )  # type: ignore[union-attr]
    assert not may_be_taken_for_ours(
        " other.example; dkim=pass (b\u00fccher)".encode("latin-1"), [ours]
    )


def test_a_single_label_is_not_cut_out_of_a_longer_name() -> None:
    """RES-66: a host name without a domain is the beginning of many others' names."""
    for name in (
        "mail_1.other.example",
        "mail\u00e9.other.example",
        "mailhub.other.example",
        "mail-1",
        "mail.other.example",
    ):
        assert not may_be_taken_for_ours(f" {name}; spf=pass".encode(), ["mail"]), name
    assert may_be_taken_for_ours(b" mail; spf=pass", ["mail"])


def test_every_id_of_ours_counts() -> None:
    """remove_authserv_ids; an id need not be a domain name, an empty one is none."""
    assert may_be_taken_for_ours(b" mx2.example.com; none", [OURS, "mx2.example.com"])
    assert may_be_taken_for_ours(b" Mail_Host; none", ["mail_host"])
    assert not may_be_taken_for_ours(b" other.example; none", ["", "."])


GROWING = [
    b"(",
    b"()",
    b'"',
    b'"\\',
    b"\\",
    b"a ",
    b"\r\n ",
    b".",
    b"=?",
    b"=?a?q?a?= ",
    b"\xc3\xa9",
    b"\xcc\x81\xcc\xa7",
    b";",
    b"a=b;",
    b"m",
    b"\xff",
]


@pytest.mark.parametrize("piece", GROWING)
def test_claims_are_found_in_linear_time(piece: bytes) -> None:
    """ARF-07, ARF-10: 1000 forged fields of 100 KB must not stop the mail."""
    assert is_linear(
        lambda value: may_be_taken_for_ours(value, [OURS]), lambda size: (piece * size)[:size]
    )
    assert is_linear(
        lambda value: may_be_taken_for_ours(value, [OURS]),
        lambda size: (b"other.example; " + piece * size)[:size],
    )
    field = (piece * 102_400)[:102_400]
    assert costs_less(0.05, lambda: may_be_taken_for_ours(field, [OURS]))


FILLERS = st.sampled_from(
    ["", "", "", "(c)", " ", "\r\n\t", "(a(b\\)))", "\x00", "\x7f", "\u200b", "\u00ad", "\u034f"]
)
IDS = ["mx.example.com", "stra\u00dfe.example", "xn--bcher-kva.example"]
FORMS = [
    "mx.example.com",
    "stra\u00dfe.example",
    "xn--strae-oqa.example",
    "xn--bcher-kva.example",
    "b\u00fccher.example",
]


@given(
    st.sampled_from(FORMS).flatmap(
        lambda name: st.tuples(*(st.tuples(st.sampled_from([c, c.upper()]), FILLERS) for c in name))
    ),
    st.sampled_from([";", " 1;", "/7 ;", ".;", "(v)1 (x); dmarc=pass", "", " dmarc=pass"]),
)
def test_fillers_anywhere_in_our_id_hide_nothing(
    letters: tuple[tuple[str, str], ...], rest: str
) -> None:
    """ARF-02 to ARF-06 combined: folds, comments, controls and shapeless characters between any
    letters of either label form."""
    text = "".join(map("".join, letters)) + rest
    assert may_be_taken_for_ours(f" {text}".encode(), IDS)
    assert may_be_taken_for_ours(f"(c)\r\n {text} spf=pass".encode(), IDS)


@given(
    st.text('ab(). ;="\\', max_size=20),
    st.sampled_from(["other.example", "mx.example.com.other.example", "xmx.example.com", "x"]),
)
def test_what_others_write_about_us_is_theirs(text: str, authserv_id: str) -> None:
    """ARF-08: a well-formed field of another id stays, our id in its values, reasons and
    comments."""
    named = properties(
        ("smtp", "mailfrom", "mx.example.com"),
        ("smtp", "helo", text + " mx.example.com; mx.example.com"),
    )
    info = ResInfo(
        "spf", "pass", named, comment=text + " mx.example.com", reason="mx.example.com; " + text
    )
    assert not may_be_taken_for_ours(format(authserv_id, [info]).encode(), IDS)


@given(st.binary(max_size=200), st.binary(max_size=20))
def test_any_octets_after_our_id_are_claimed(rest: bytes, before: bytes) -> None:
    """No tail makes the beginning harmless, and nothing escapes."""
    assert may_be_taken_for_ours(b" mx.example.com; " + rest, [OURS])
    may_be_taken_for_ours(before + rest, [OURS])
