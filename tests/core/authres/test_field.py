"""Authentication-Results written and read (RFC 8601; docs/attacks.md, ARI rows)."""

from dataclasses import replace

import authres as independent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.authres.field import (
    MAX_FIELD,
    AuthResults,
    Property,
    ResInfo,
    format,
    parse,
    properties,
)
from dmarc_milter.core.authres.forgery import may_be_taken_for_ours
from dmarc_milter.core.mail.domain import Malformed
from fakes.growth import is_linear

OURS = "mx.example.com"

SPF = ResInfo("spf", "pass", properties(("smtp", "mailfrom", "legit.example")))
DMARC = ResInfo(
    "dmarc",
    "fail",
    properties(("header", "from", "example.com"), ("policy", "dmarc", "quarantine")),
    comment="p=reject sp=none dis=quarantine",
)


def dkim(number: int = 0) -> ResInfo:
    """A signature's result with long names."""
    name = ".".join(["d" * 60] * 4)
    return ResInfo(
        "dkim",
        "fail",
        properties(
            ("header", "d", f"d{number}.{name}"), ("header", "s", name), ("header", "b", "AbC/+d==")
        ),
        "body hash differs",
    )


def test_a_field_reads_as_designed() -> None:
    """docs/design.md, What a message gets: the comment says what was done; one result per line."""
    assert (
        format(OURS, [SPF, DMARC])
        == " mx.example.com;\n\tspf=pass smtp.mailfrom=legit.example;\n\tdmarc=fail (p=reject"
        " sp=none dis=quarantine) header.from=example.com\n\tpolicy.dmarc=quarantine"
    )


def test_a_reason_is_no_property() -> None:
    """RFC 8601 2.2: value, unlike pvalue, has no bare "@" domain-name. Found by fuzzing."""
    assert (
        format(OURS, [ResInfo("dkim", "fail", reason="@x")])
        == ' mx.example.com;\n\tdkim=fail reason="@x"'
    )


def test_no_results_are_none() -> None:
    """RFC 8601 2.2: `none` stands alone."""
    assert format(OURS, []) == " mx.example.com; none"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("legit.example", "legit.example"),
        ("@legit.example", "@legit.example"),
        ("2001:db8::1", '"2001:db8::1"'),
        ("AbC/+d==", '"AbC/+d=="'),
        ("x; dmarc=pass", '"x; dmarc=pass"'),
        ("x) dmarc=pass", '"x) dmarc=pass"'),
        ('a\\"b', '"a\\\\\\"b"'),
        ("any@legit.example(a.attack.example", '"any@legit.example(a.attack.example"'),
        ("@a;b", '"@a;b"'),
        ("@xn--strae-oqa.a--b.example", "@xn--strae-oqa.a--b.example"),
        ("@_a.example", '"@_a.example"'),
        ("@a-.example", '"@a-.example"'),
    ],
)
def test_values_are_tokens_or_quoted(value: str, written: str) -> None:
    """ARI-02, -03, ESP-05: RFC 2045 tspecials never stand bare."""
    info = ResInfo("spf", "none", properties(("smtp", "helo", value)))
    assert format(OURS, [info]) == f" mx.example.com;\n\tspf=none smtp.helo={written}"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a\r\nX-Inj: 1",
        "a\nb",
        "a\x00b",
        "a\x7fb",
        "a\u0085b",
        "a\u2028b",
        "a\udc80b",
        "a\u200bb",
        "x" * 257,
    ],
)
def test_what_cannot_be_written_is_left_out(value: str) -> None:
    """ARI-01: control characters never reach a property; long and empty ones neither."""
    assert properties(("smtp", "helo", value), ("smtp", "mailfrom", "legit.example")) == (
        Property("smtp", "mailfrom", "legit.example"),
    )
    with pytest.raises(ValueError, match="not a property"):
        Property("smtp", "helo", value)


@pytest.mark.parametrize(
    "words",
    [
        ("SPF", "pass"),
        ("spf", "pass;"),
        ("spf", ""),
        ("", "pass"),
        ("s pf", "pass"),
        ("spf", "pass", (), "a\nb"),
        ("spf", "pass", (), "", "a\rb"),
    ],
)
def test_a_result_that_is_no_keyword_cannot_be_made(words: tuple[str, ...]) -> None:
    """ARI-05: a fixed vocabulary, refused when made rather than when written."""
    with pytest.raises(ValueError, match="not a result"):
        ResInfo(*words)


def test_comments_are_escaped() -> None:
    """ARI-04: even though no sender's text is put there."""
    info = ResInfo("dmarc", "fail", comment=") dmarc=pass (\\")
    assert format(OURS, [info]) == " mx.example.com;\n\tdmarc=fail (\\) dmarc=pass \\(\\\\)"


def test_too_many_results_leave_out_whole_dkim_results() -> None:
    """ARI-06: at most 8 KiB and 998 octets a line; the list is cut, never a token; spf and dmarc
    stay."""
    text = format(OURS, [SPF, *(dkim(number) for number in range(40)), DMARC])
    assert len(text.encode()) <= MAX_FIELD
    assert max(len(line) for line in text.split("\n")) <= 998
    read = parse(text.encode())
    assert isinstance(read, AuthResults)
    kept = len(read.of("dkim"))
    assert 5 < kept < 40
    assert read.infos == (SPF, *(dkim(number) for number in range(kept)), DMARC)


def test_the_signature_that_passed_is_left_out_last() -> None:
    """Junk above it, examined or beyond the limit of signatures, does not push it out of the field;
    the order stays."""
    many = [
        replace(dkim(number), result="policy" if number >= 10 else "fail") for number in range(1000)
    ]
    good = replace(dkim(1000), result="pass")
    read = parse(format(OURS, [SPF, *many, good, DMARC]).encode())
    assert isinstance(read, AuthResults)
    assert read.infos == (SPF, *many[: len(read.infos) - 3], good, DMARC)
    assert len(read.infos) > 10
    long = [
        replace(good, comment="x" * 255),
        *[replace(each, comment="y" * 255) for each in many[:20]],
    ]
    read = parse(format(OURS, [SPF, *long, good, DMARC]).encode())
    assert isinstance(read, AuthResults)
    assert [each.result for each in read.infos].count("pass") == 3


def test_without_smtputf8_everything_is_ascii() -> None:
    """RFC 8616: A-labels only; with SMTPUTF8 UTF-8 may stand."""
    info = ResInfo(
        "spf",
        "pass",
        properties(("smtp", "mailfrom", "straße.example"), ("smtp", "helo", "h.example")),
    )
    assert (
        format("mx.straße.example", [info])
        == " mx.xn--strae-oqa.example;\n\tspf=pass smtp.helo=h.example"
    )
    assert (
        format("mx.straße.example", [info], smtputf8=True)
        == " mx.straße.example;\n\tspf=pass smtp.mailfrom=straße.example smtp.helo=h.example"
    )


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
KEYWORDS = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
INFOS = st.builds(
    ResInfo,
    KEYWORDS.filter(lambda word: word != "i"),
    KEYWORDS,
    st.lists(st.builds(Property, KEYWORDS, KEYWORDS, TEXT.filter(bool)), max_size=4).map(tuple),
    TEXT,
    TEXT.map(str.strip),
)


@pytest.mark.slow
@given(st.lists(INFOS, max_size=5).map(tuple))
def test_what_is_written_reads_back(infos: tuple[ResInfo, ...]) -> None:
    """Parse is format's inverse, and no line is broken or too long."""
    text = format(OURS, infos)
    assert parse(text.encode()) == AuthResults(OURS, infos)
    assert may_be_taken_for_ours(text.encode(), [OURS])
    assert all(len(line) <= 998 for line in text.split("\n"))
    assert not any(ord(character) < 32 for character in text.replace("\n\t", ""))


ODD = st.sampled_from(
    [
        "legit.example",
        "a;b",
        "x) dmarc=pass",
        'a"b',
        "a\\b",
        "any@legit.example(a",
        "2001:db8::1",
        'a" dmarc=pass',
    ]
)


@given(ODD, st.sampled_from(["", "no key", "over (limit)"]))
def test_an_independent_reader_agrees(helo: str, reason: str) -> None:
    """I2: nothing of the sender's escapes its quotes, by the authres package (which leaves
    quoted-pairs as they are)."""
    infos = [
        ResInfo("spf", "fail", properties(("smtp", "helo", helo))),
        ResInfo(
            "dkim",
            "pass",
            properties(("header", "d", "legit.example"), ("header", "i", "@legit.example")),
            reason,
        ),
        DMARC,
    ]
    field = independent.AuthenticationResultsHeader.parse(
        "Authentication-Results:" + format(OURS, infos).replace("\n", "\r\n")
    )
    assert field.authserv_id == OURS
    assert [(each.method, each.result) for each in field.results] == [
        ("spf", "fail"),
        ("dkim", "pass"),
        ("dmarc", "fail"),
    ]
    values = [
        {f"{each.type}.{each.name}": each.value for each in result.properties}
        for result in field.results
    ]
    assert values[0] == {"smtp.helo": helo.replace("\\", "\\\\").replace('"', '\\"')}
    assert values[1] == {"header.d": "legit.example", "header.i": "@legit.example"}
    assert values[2]["header.from"] == "example.com"


# --- the reader


def read(value: bytes) -> AuthResults:
    """A field that can be read."""
    found = parse(value)
    assert isinstance(found, AuthResults)
    return found


def test_arc_fields_of_large_receivers_are_read() -> None:
    """RFC 8617 4.1.1: leading i=; words that are no property are skipped, base64 stays whole."""
    found = read(
        b" i=2; mx.receiver.example;\r\n       dkim=pass header.i=@legit.example header.s=sel"
        b" header.b=Ab/C+d==;\r\n       arc=pass (i=1 spf=pass dkim=pass)"
        b' smtp.remote-ip="2001:db8::1";\r\n       spf=pass (receiver.example: 192.0.2.1 is (or may'
        b" be) allowed) smtp.mailfrom=b@legit.example;\r\n       dmarc=PASS (p=REJECT dis=NONE)"
        b" action=none header.from=Legit.example"
    )
    assert found.authserv_id == "mx.receiver.example"
    assert found.of("dmarc")[0].result == "pass"
    assert found.of("dmarc")[0].value("header", "from") == "Legit.example"
    assert found.of("arc")[0].value("smtp", "remote-ip") == "2001:db8::1"
    assert found.of("dkim")[0].value("header", "b") == "Ab/C+d=="


def test_spaces_and_comments_may_stand_anywhere() -> None:
    """RFC 8601 2.2, Appendix B.7: CFWS around every token, versions, a missing authserv-id."""
    found = read(
        b'(c) "mx.a" 1 ; dkim / 1 (x) = (y) pass ( a (b) ) policy (z) . ext . = "q\\"r" header .'
        b" from = c.d ;; none"
    )
    assert found.authserv_id == "mx.a"
    assert found.infos == (
        ResInfo("dkim", "pass", properties(("header", "from", "c.d")), comment="x"),
    )
    assert read(b"dkim=none (not signed) header.d=none; dmarc=none").authserv_id == ""
    assert [info.method for info in read(b"dkim=none header.d=none; dmarc=none").infos] == [
        "dkim",
        "dmarc",
    ]
    assert read(b"mx.a; none") == AuthResults("mx.a")


@pytest.mark.parametrize(
    "odd",
    [
        b"header.i.x=1",
        b"header.from.toString.z=1",
        b"value.x=\x01",
        b"__proto__=1",
        b"header.__class__=2",
        b"=",
        b")",
        b"(null)=pass",
    ],
)
def test_odd_keys_are_plain_data(odd: bytes) -> None:
    """ARC-08, ARC-09: skipped, whatever they are called."""
    found = read(b"i=1; mx.a; dmarc=pass " + odd + b" header.from=c.d")
    assert found.of("dmarc")[0].value("header", "from") == "c.d"
    assert len(found.of("dmarc")[0].properties) == 1


def test_reading_is_bounded() -> None:
    """SECURITY.md, Limits: 8 KiB, 32 results, 16 properties each, 256 characters a value; any
    nesting, no recursion."""
    assert parse(b"mx.a; " + b"x" * MAX_FIELD) == Malformed("too long")
    assert len(read(b"mx.a" + b"; spf=pass" * 100).infos) <= 32
    assert len(read(b"mx.a; spf=pass" + b" a.b=c" * 100).infos[0].properties) == 16
    assert read(b"mx.a; spf=pass a.b=" + b"c" * 257).infos[0].properties == ()
    assert read(b"mx.a " + b"(" * 4000 + b")" * 4000 + b"; spf=pass").infos == (
        ResInfo("spf", "pass"),
    )
    assert read(b"i=" + b"9" * 5000 + b"; mx.a; spf=pass").authserv_id == "mx.a"


@pytest.mark.parametrize(
    "value", [b"(" * 5000, b"mx.a; spf=pass (", b'mx.a; spf=pass a.b="c', b'"']
)
def test_what_does_not_end_is_malformed(value: bytes) -> None:
    """An open comment or quotation."""
    assert isinstance(parse(value), Malformed)


@given(
    st.binary(max_size=300) | st.text(alphabet='ai.=;()"\\ \r\n\t1é/', max_size=80).map(str.encode)
)
def test_any_octets_are_read_or_malformed(value: bytes) -> None:
    """No exception escapes."""
    assert isinstance(parse(value), AuthResults | Malformed)


@pytest.mark.parametrize(
    "piece",
    [b"(", b"()", b'"', b'""', b"a ", b"a=", b"a.", b". ", b"a . ", b";", b"=", b")", b"\\"],
)
def test_a_field_is_read_in_linear_time(piece: bytes) -> None:
    """Within its bound."""
    assert is_linear(parse, lambda size: (b"mx.a;" + piece * size)[:size], 4096)
