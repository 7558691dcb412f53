"""The DMARC record parser: RFC 9989 4.7, 4.8 and the RFC 7489 tags (docs/attacks.md DMR,
RPT-03)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.dmarc.record import (
    MAX_RECORD,
    AlignmentMode,
    Policy,
    Record,
    ReportUri,
    parse,
)
from fakes.growth import costs_less

NONE, QUARANTINE, REJECT = Policy.NONE, Policy.QUARANTINE, Policy.REJECT


def read(text: str | bytes) -> Record:
    """The record, which must be one."""
    record = parse(text.encode("latin-1") if isinstance(text, str) else text)
    assert record is not None
    return record


@pytest.mark.parametrize(
    "text",
    [
        "v=DMARC1; p=reject",
        "v=DMARC1;p=reject",
        "v=DMARC1;p=reject;",
        "v=DMARC1 ; p=reject ;",
        "v = DMARC1 ; p = reject",
        "v =DMARC1;\tp\t=\treject\t",
        "v= DMARC1; P=reject",
        "V=DMARC1; p=REJECT",
        "v=DMARC1; p=Reject",
        "v=DMARC1;; ;p=reject;;",
        "v=DMARC1; sp=reject; p=reject",
        "v=DMARC1; unknown=1; p=reject; x-y=;",
        "v=DMARC1; p=reject; p2=none; pp=none",
        "v=DMARC1; p=reject; pct; =; =x; garbage",
    ],
)
def test_a_record_that_says_reject(text: str) -> None:
    """RFC 9989 4.8: white space around "=" and ";", tags in any order, values without case, the
    rest ignored (DMR-04, DMR-05)."""
    record = read(text)
    assert record.p is REJECT
    assert not record.invalid_policy
    assert record.applies


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "v",
        "v=",
        "v=DMARC",
        "v=dmarc1; p=reject",
        "v=Dmarc1; p=reject",
        "v=DMARC1x; p=reject",
        "v=DMARC11; p=reject",
        "v=DMARC2; p=reject",
        "v=DMARC 1; p=reject",
        "v=DMARC1 p=reject",
        "v=DMARC1, p=reject",
        " v=DMARC1; p=reject",
        "\tv=DMARC1; p=reject",
        '"v=DMARC1; p=reject"',
        '"v=DMARC1"; p=reject',
        "p=reject; v=DMARC1",
        "; v=DMARC1; p=reject",
        "v=DMARC1\n; p=reject",
        "v=DMARC1\0; p=reject",
        "\xa0v=DMARC1; p=reject",
        "vv=DMARC1; p=reject",
        "v==DMARC1; p=reject",
        "v=spf1 -all",
        "v=STSv1; id=1",
        "v=DMARC1:p=reject",
        "DMARC1; p=reject",
    ],
)
def test_what_is_not_a_dmarc_record(text: str) -> None:
    """RFC 9989 4.7: `v` first, its value exactly DMARC1, nothing before it (DMR-04; divergence
    G.4)."""
    assert parse(text.encode("latin-1")) is None


@pytest.mark.parametrize(
    ("tags", "p", "sp", "np", "invalid", "applies"),
    [
        ("p=none", NONE, None, None, False, True),
        ("p=quarantine; sp=none; np=reject", QUARANTINE, NONE, REJECT, False, True),
        ("", None, None, None, True, False),
        ("rua=mailto:a@b.example", None, None, None, True, True),
        ("ruf=mailto:a@b.example", None, None, None, True, False),
        ("p=", None, None, None, True, False),
        ("p=xx", None, None, None, True, False),
        ("p=re ject", None, None, None, True, False),
        ("p=reject,none", None, None, None, True, False),
        ("p=xx; rua=mailto:a@b.example", None, None, None, True, True),
        ("p=reject; sp=xx", REJECT, None, None, True, False),
        ("p=reject; sp=", REJECT, None, None, True, False),
        ("p=reject; sp=xx; rua=mailto:a@b.example", REJECT, None, None, True, True),
        ("p=reject; np=xx", REJECT, None, None, True, False),
        ("p=reject; np=xx; rua=mailto:a@b.example", REJECT, None, None, True, True),
        ("p=reject; p=reject", None, None, None, True, False),
        ("p=reject; P=none; rua=mailto:a@b.example", None, None, None, True, True),
        ("p=reject; sp=none; sp=none; rua=mailto:a@b.example", REJECT, None, None, True, True),
        ("p=reject; np=none; np=none", REJECT, None, None, True, False),
        ("p=xx; rua=mailto:no-address", None, None, None, True, False),
        ("p=xx; rua=https://report.example/in", None, None, None, True, True),
        ("p=xx; rua=b.example", None, None, None, True, False),
        ("p=rej\xe9ct", None, None, None, True, False),
        ("p=reject\x01", None, None, None, True, False),
        ("p", None, None, None, True, False),
        ("p reject", None, None, None, True, False),
    ],
)
def test_policy_tags(
    tags: str, p: Policy, sp: Policy, np: Policy, invalid: bool, applies: bool
) -> None:
    """RFC 9989 4.10.1: no valid p, or a bad sp or np, is p=none with a valid rua and no DMARC
    without (DMR-05, G.3)."""
    record = read(f"v=DMARC1; {tags}")
    assert (record.p, record.sp, record.np) == (p, sp, np)
    assert (record.invalid_policy, record.applies) == (invalid, applies)


@pytest.mark.parametrize(
    ("tag", "field", "value"),
    [
        ("adkim=s", "adkim", AlignmentMode.STRICT),
        ("adkim=S", "adkim", AlignmentMode.STRICT),
        ("adkim=r", "adkim", AlignmentMode.RELAXED),
        ("adkim=x", "adkim", AlignmentMode.RELAXED),
        ("adkim=strict", "adkim", AlignmentMode.RELAXED),
        ("adkim=s; adkim=s", "adkim", AlignmentMode.RELAXED),
        ("aspf=s", "aspf", AlignmentMode.STRICT),
        ("aspf=", "aspf", AlignmentMode.RELAXED),
        ("aspf=s; ASPF=r", "aspf", AlignmentMode.RELAXED),
        ("t=y", "testing", True),
        ("t=Y", "testing", True),
        ("t=n", "testing", False),
        ("t=yes", "testing", None),
        ("t=", "testing", None),
        ("t=y; t=y", "testing", None),
        ("psd=y", "psd", "y"),
        ("psd=N", "psd", "n"),
        ("psd=u", "psd", "u"),
        ("psd=", "psd", "u"),
        ("psd=yes", "psd", "u"),
        ("psd=y; psd=n", "psd", "u"),
        ("pct=0", "pct", 0),
        ("pct=50", "pct", 50),
        ("pct=050", "pct", 50),
        ("pct=100", "pct", 100),
        ("pct=101", "pct", None),
        ("pct=-1", "pct", None),
        ("pct=+5", "pct", None),
        ("pct=5.0", "pct", None),
        ("pct=50%", "pct", None),
        ("pct=0050", "pct", None),
        ("pct=", "pct", None),
        ("pct=5_0", "pct", None),
        ("pct=\xb2", "pct", None),
        ("pct=10; pct=20", "pct", None),
        ("pct=" + "9" * 3000, "pct", None),
        ("fo=0", "fo", "0"),
        ("fo=1", "fo", "1"),
        ("fo=1:d:s", "fo", "1:d:s"),
        ("fo=D : S", "fo", "d:s"),
        ("fo=d", "fo", "d"),
        ("fo=0:1", "fo", "0"),
        ("fo=1:1", "fo", "0"),
        ("fo=2", "fo", "0"),
        ("fo=1:", "fo", "0"),
        ("fo=", "fo", "0"),
        ("ri=3600", "ri", 3600),
        ("ri=4294967295", "ri", 4294967295),
        ("ri=4294967296", "ri", None),
        ("ri=99999999999", "ri", None),
        ("ri=-1", "ri", None),
        ("rf=afrf", "p", REJECT),
        ("rf=iodef:afrf", "p", REJECT),
        ("v=DMARC1", "p", REJECT),
    ],
)
def test_other_tags_fall_back_to_their_default(tag: str, field: str, value: object) -> None:
    """RFC 9989 4.8, RFC 7489 6.4: a bad or repeated tag is its default and never switches the
    policy off (DMR-06)."""
    record = read(f"v=DMARC1; p=reject; {tag}")
    assert getattr(record, field) == value
    assert record.p is REJECT
    assert record.applies


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("mailto:agg@legit.example", "agg@legit.example"),
        ("MAILTO:Agg@Legit.Example", "Agg@legit.example"),
        ("mailto:a%2Bb@legit.example", "a+b@legit.example"),
        ("mailto:a%40b@legit.example", None),
        ("mailto:d=legit=x@legit.example", "d=legit=x@legit.example"),
        ("mailto:a.b-c_d@sub.legit.example", "a.b-c_d@sub.legit.example"),
        ("mailto:a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
        ("mailto:a@legit.example?subject=x", "a@legit.example"),
        ("mailto:a@legit.example?cc=victim@x.example", "a@legit.example"),
        ("mailto:a%21b@legit.example", "a!b@legit.example"),
        ("mailto:a!b@legit.example", None),
        ("mailto:a@legit.example!", None),
        ("mailto:a@legit.example!10x", None),
        ("mailto:a@legit.example%0d%0aBcc:x@y.example", None),
        ("mailto:a%0d%0aBcc%3ax@legit.example", None),
        ("mailto:a%00@legit.example", None),
        ("mailto:a%20b@legit.example", None),
        ("mailto:a%2cb@legit.example", None),
        ("mailto:%22a b%22@legit.example", None),
        ("mailto:%22ab%22@legit.example", None),
        ('mailto:"ab"@legit.example', None),
        ("mailto:a..b@legit.example", None),
        ("mailto:.a@legit.example", None),
        ("mailto:a.@legit.example", None),
        ("mailto:@legit.example", None),
        ("mailto:a@", None),
        ("mailto:a", None),
        ("mailto:", None),
        ("mailto", None),
        ("mailto:a@b", None),
        ("mailto:a@[192.0.2.1]", None),
        ("mailto:a@192.0.2.1", None),
        ("mailto:a@-x.example", None),
        ("mailto:a@x_y.example", None),
        ("mailto:a@legit.example.", None),
        ("mailto:a@b\xfccher.example", None),
        ("mailto:a@b%C3%BCcher.example", None),
        ("mailto:%c3%bc@legit.example", None),
        ("mailto://a@legit.example", None),
        ("mailto:a@legit.example#x", None),
        ("mailto:a%4@legit.example", None),
        ("mailto:a%zz@legit.example", None),
        ("mailto:" + "a" * 65 + "@legit.example", None),
        ("<mailto:a@legit.example>", None),
        ("mail to:a@legit.example", None),
        ("a@legit.example", None),
        ("https://169.254.169.254/x", None),
        ("http://localhost:8000", None),
        ("file:/etc/passwd", None),
        ("javascript:alert(1)", None),
    ],
)
def test_report_addresses(uri: str, address: str | None) -> None:
    """RFC 7489 6.2, RPT-03, RPT-04: mailto only, percent-decoded, then dot-atom@LDH-domain; header
    fields are ignored."""
    record = read(f"v=DMARC1; p=none; rua={uri}; ruf={uri}")
    assert record.rua == record.ruf == ((ReportUri(address),) if address else ())
    assert record.p is NONE


@pytest.mark.parametrize(
    ("suffix", "octets"),
    [
        ("", None),
        ("!0", 0),
        ("!10", 10),
        ("!10k", 10 * 2**10),
        ("!10K", 10 * 2**10),
        ("!50m", 50 * 2**20),
        ("!1g", 2**30),
        ("!2t", 2 * 2**40),
        ("!18446744073709551615", 2**64 - 1),
        ("!18446744073709551616", None),
    ],
)
def test_report_sizes(suffix: str, octets: int | None) -> None:
    """RFC 7489 6.4: an optional size, units are powers of two."""
    assert read(f"v=DMARC1; p=none; rua=mailto:a@b.example{suffix}").rua == (
        ReportUri("a@b.example", octets),
    )


def test_addresses_are_kept_in_order_once_and_at_most_ten() -> None:
    """RPT-06, SECURITY.md, Limits: a list cannot multiply reports."""
    twelve = ",".join(f" mailto:a{n}@b.example , mailto:a{n}@B.example!5m" for n in range(12))
    record = read(f"v=DMARC1; p=none; rua={twelve}")
    assert [uri.address for uri in record.rua] == [f"a{n}@b.example" for n in range(10)]
    assert "rua: more than 10 addresses" in record.errors


def test_a_bad_address_leaves_the_others() -> None:
    """RFC 9989 4.8: what is malformed is ignored, the rest counts."""
    record = read("v=DMARC1; p=none; rua=mailto:bad, ,https://x.example,mailto:a@b.example")
    assert record.rua == (ReportUri("a@b.example"),)
    assert record.errors == (
        "rua: address not valid",
        "rua: URI not valid",
        "rua: scheme not supported",
    )


@pytest.mark.parametrize(
    "bad",
    [
        "mailto:j\u00fcrgen@b.example",
        "mailto:x@b\u00fccher.example",
        "mailto:x\x07@b.example",
        "mailto:x@b.example!1\xb2",
    ],
)
def test_an_address_that_is_not_ascii_leaves_the_others(bad: str) -> None:
    """RFC 8616 6: conventional addresses only; RFC 9989 4.8: the rest counts."""
    record = read(f"v=DMARC1; p=none; rua={bad},mailto:a@b.example; ruf={bad}")
    assert (record.rua, record.ruf) == ((ReportUri("a@b.example"),), ())
    assert record.errors == ("rua: URI not valid", "ruf: URI not valid")


def test_errors_are_a_fixed_vocabulary() -> None:
    """What the domain published is never repeated in an error, which reports print, but for names
    of tags that are plain words."""
    record = read(
        "v=DMARC1; p=<b>; sp=reject; sp=none; pct=<x>; Evil=<y>; t\x07=y; fo=\x07; lone; lo ne;"
        f" {'x' * 21}=1; \xe4=1"
    )
    assert set(record.errors) == {
        "unknown tag",
        "evil: unknown tag",
        "lone: tag without value",
        "tag without value",
        "p: not valid",
        "pct: not valid",
        "sp: repeated",
        "fo: not printable ASCII",
    }


def test_text_is_printable() -> None:
    """The record as published goes into logs and reports."""
    assert read(b"v=DMARC1; p=none; x=\x00\xff\r\n\x1b").text == "v=DMARC1; p=none; x=?????"


@pytest.mark.parametrize(("length", "applies"), [(MAX_RECORD, True), (MAX_RECORD + 1, False)])
def test_a_record_over_4_kib_is_ignored(length: int, applies: bool) -> None:
    """docs/design.md, Decisions; DMR-13."""
    text = b"v=DMARC1; p=reject; x="
    assert (parse(text + b"a" * (length - len(text))) is not None) is applies


@pytest.mark.parametrize(
    "text",
    [
        b"v=DMARC1; p=reject; x=" + b"a" * 65536,
        b"v=DMARC1; " + b"p=none;" * 1000,
        b"v=DMARC1; " + b"".join(b"x%d=1;" % n for n in range(1000)),
        b"v=DMARC1; p=none; rua=" + b",".join(b"mailto:a%d@b.example" % n for n in range(10_000)),
        b"v=DMARC1; p=none; rua=" + b"," * 4000,
        b"v=DMARC1; p=none; rua=" + b"!" * 4000,
        b"v=DMARC1; p=none; rua=mailto:" + b"%41." * 900 + b"@x.example",
        b"v=DMARC1; p=none; fo=" + b"d:" * 2000,
        b"v=DMARC1;" + b" " * 4000,
        b"v=DMARC1" + b"=" * 4000,
        b"v=DMARC1" + b";" * 4000,
    ],
)
def test_hostile_records_are_read_in_linear_time(text: bytes) -> None:
    """DMR-13: under 50 ms each."""
    assert costs_less(0.05, lambda: parse.__wrapped__(text))


@pytest.mark.parametrize(
    "text",
    [
        "v=DMARC1",
        "v=DMARC1; p=reject",
        (
            "v=DMARC1; p=none; sp=quarantine; np=reject; adkim=s; aspf=s; t=y; psd=n; pct=5;"
            " fo=1:d:s; ri=3600"
        ),
        (
            "v=DMARC1; p=none; rua=mailto:a@b.example,mailto:c+d@e.example!10485760;"
            " ruf=mailto:x%21y@b.example"
        ),
        "v=DMARC1; p=quarantine; t=n",
    ],
)
def test_a_canonical_record_round_trips(text: str) -> None:
    """str() is the inverse of parse()."""
    assert str(read(text)) == text


TAGS = st.sampled_from(
    [
        "p",
        "sp",
        "np",
        "adkim",
        "aspf",
        "t",
        "psd",
        "pct",
        "fo",
        "rua",
        "ruf",
        "ri",
        "rf",
        "v",
        "x",
        "P",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            "none",
            "quarantine",
            "Reject",
            "r",
            "s",
            "y",
            "n",
            "u",
            "0",
            "1:d",
            "50",
            "mailto:a@b.example",
            "mailto:%21@b.ex!1k",
        ]
    ),
    st.text("abc:!%2,@.=?/ \t\x00\xff", max_size=12),
)
RECORDS = st.lists(st.tuples(TAGS, VALUES), max_size=8).map(
    lambda tags: "v=DMARC1" + "".join(f"; {name}={value}" for name, value in tags)
)


@given(
    st.one_of(
        RECORDS.map(lambda text: text.encode("latin-1")),
        st.binary(max_size=200),
        st.binary(max_size=100).map(b"v=DMARC1;".__add__),
    )
)
def test_any_octets_are_a_record_or_not(text: bytes) -> None:
    """Never raises; whatever comes out is safe to print and reads the same again."""
    record = parse(text)
    if record is None:
        return
    assert record.text.isascii()
    assert record.text.isprintable()
    for uri in (*record.rua, *record.ruf):
        assert re.fullmatch(r"[!-~]+@[a-z0-9.-]+", uri.address)
        assert "," not in uri.address
    assert all(error.isascii() and error.isprintable() for error in record.errors)
    again = read(str(record))
    assert str(again) == str(record)
    for field in (
        "p",
        "sp",
        "np",
        "adkim",
        "aspf",
        "testing",
        "psd",
        "pct",
        "fo",
        "rua",
        "ruf",
        "ri",
    ):
        assert getattr(again, field) == getattr(record, field)
