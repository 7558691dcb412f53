"""Names as mail authentication compares them (RFC 7489 6.6.1, RFC 8616; docs/attacks.md
FRM-16..24)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.mail.domain import Domain, Malformed, parse, unicode_form
from fakes.growth import seconds

LONGEST_LABEL = "a" * 63
NAMES = [
    ("legit.example", "legit.example"),
    ("LEGIT.Example", "legit.example"),
    ("legit.example.", "legit.example"),
    ("localhost", "localhost"),
    ("_dmarc.legit.example", "_dmarc.legit.example"),
    ("20230601", "20230601"),
    ("1.2.3", "1.2.3"),
    ("1.2.0.192.in-addr.arpa", "1.2.0.192.in-addr.arpa"),
    (f"{LONGEST_LABEL}.example", f"{LONGEST_LABEL}.example"),
    ("r3---sn-x.example", "r3---sn-x.example"),
    ("straße.example", "xn--strae-oqa.example"),
    ("STRAßE.example", "xn--strae-oqa.example"),
    ("XN--STRAE-OQA.example", "xn--strae-oqa.example"),
    ("BÜCHER.example", "xn--bcher-kva.example"),
    ("用户.example", "xn--zouo53b.example"),
    ("x.ΑΣ", "x.xn--mxa0b"),
    ("東京tokyo.example", "xn--tokyo-w91hq39l.example"),
    ("xn--a", "xn--a"),
    ("xn--lgit-xyz.example", "xn--lgit-xyz.example"),
]
NO_NAMES = [
    "",
    ".",
    "..",
    ".legit.example",
    "legit..example",
    "legit.example..",
    "-",
    "-a.example",
    "a-.example",
    "xn--zz--.example",
    "a" * 64 + ".example",
    "a." * 128,
    ".".join(["a"] * 128),
    "192.0.2.1",
    "192.0.2.1.",
    "[192.0.2.1]",
    "[IPv6:2001:db8::1]",
    "legit.example attack.example",
    "legit.example\x00.attack.example",
    "legit.example\\.attack.example",
    "legit.example/",
    "legit.example%2f",
    "legit.example(.attack.example",
    "${run{/bin/true}}.legit.example",
    "legit。example",
    "legit．example",
    "legit｡example",
    "ｌegit.example",
    "le\u200bgit.example",
    "a\u200db.example",
    "le\u00adgit.example",
    "\u202elegit.example",
    "legi\u0307t.example",
    "İstanbul.example",
    "u\u0308ber.example",
    "\u212aelvin.example",
    "\u05d0a.example",
    "lеgit.example",
    "legit.example\ufeff",
    "\udc80.example",
    "ü" * 64 + ".example",
]


@pytest.mark.parametrize(("text", "name"), NAMES)
def test_a_name_is_lower_case_a_labels(text: str, name: str) -> None:
    """IDNA2008 without mapping but case (RFC 5891), never IDNA2003's folding; A-labels are literal.
    As text or as UTF-8."""
    assert parse(text) == parse(text.encode()) == Domain(name)


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_is_no_name_is_malformed(text: str) -> None:
    """RFC 1035 2.3.4, RFC 5321 4.1.3, RFC 5892 (DISALLOWED, CONTEXTJ), RFC 5893; look-alikes by UTS
    39."""
    found = parse(text)
    assert isinstance(found, Malformed)
    assert found.reason.isascii()


@pytest.mark.parametrize(
    "octets",
    [b"legit.ex\xe9mple", b"legit\xc0\xaeexample", b"\xed\xb2\x80.example", b"legit.\xe2\x82"],
)
def test_octets_that_are_no_utf_8_are_malformed(octets: bytes) -> None:
    """FRM-23: Latin-1, overlong forms, surrogates, truncated sequences."""
    assert parse(octets) == Malformed("domain not UTF-8")


@pytest.mark.parametrize(
    "text",
    ["a" * 10240, "ü" * 10240, "ü." * 126, "\u0660" * 250, "a\u200c" * 126, "\u0301\u0327" * 120],
)
def test_a_hostile_name_costs_nothing(text: str) -> None:
    """CVE-2024-3651: 10 KB labels, and the worst that fits into 253 octets, within 0.1 s."""
    assert min(seconds(lambda: parse(text)) for _ in range(5)) < 0.1


def test_the_unicode_form_decodes_genuine_a_labels_only() -> None:
    """RFC 5891 5.4: an A-label that decodes to nothing stays as it is."""
    assert unicode_form(Domain("xn--zz.xn--strae-oqa.example")) == "xn--zz.straße.example"
    assert unicode_form(Domain("legit.example")) == "legit.example"


def test_below_means_at_a_label_boundary() -> None:
    """`evillegit.example` is not below `legit.example`."""
    legit = Domain("legit.example")
    assert legit.is_at_or_below(legit)
    assert Domain("a.legit.example").is_at_or_below(legit)
    assert not Domain("evillegit.example").is_at_or_below(legit)
    assert Domain("a.b.legit.example").right_most(2) == legit


@given(st.text(max_size=80) | st.text(alphabet="aZ-_.ßüxn0é用\u200d\u0307", max_size=80))
def test_a_parsed_name_is_ascii_and_parses_to_itself(text: str) -> None:
    """Format is parse's inverse, and nothing escapes."""
    found = parse(text)
    if isinstance(found, Domain):
        assert found.name.isascii()
        assert len(found.name) <= 253
        assert all(0 < len(label) <= 63 for label in found.labels)
        assert parse(str(found)) == found
        unicode_form(found)


@given(st.binary(max_size=300))
def test_any_octets_are_a_name_or_malformed(octets: bytes) -> None:
    """The sender's mistake is a value."""
    assert isinstance(parse(octets), Domain | Malformed)
