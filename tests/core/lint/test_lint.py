"""The linter of published policies: each mistake that domains make is named, and nothing is said of
a sound one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.check_finding import Level
from dmarc_milter.core.dmarc.record import parse
from dmarc_milter.core.lint import Survey, survey
from dmarc_milter.core.lint.record import findings, sentence, tags
from dmarc_milter.core.mail.domain import Domain
from fakes.dns_zone import Zone
from fakes.suffixes import ListedSuffixes

SOUND = "v=DMARC1; p=reject; rua=mailto:agg@example.com"
AROUND = {"example.com": {"TXT": ["v=spf1 ip4:198.51.100.1 -all"], "MX": [(10, "mx.example.com")]}}


def surveyed(
    record: str | list[str], name: str = "example.com", **more: dict[str, list[object]]
) -> Survey:
    records = [record] if isinstance(record, str) else record
    zone = Zone(AROUND | {"_dmarc.example.com": {"TXT": records}})
    for each, types in more.items():
        for rdtype, values in types.items():
            zone.add(each, rdtype, *values)
    return survey(Domain(name), zone, suffixes=ListedSuffixes())


def told(found: Survey, level: Level = "error") -> list[tuple[str, str]]:
    return [(each.where, each.text) for each in found.findings if each.level == level]


def test_nothing_is_wrong_with_a_sound_domain() -> None:
    found = surveyed(SOUND)
    assert found.findings == ()
    assert found.worst == "note"
    assert (
        found.sentence
        == "example.com asks that mail failing DMARC be refused. It wants aggregate reports at"
        " agg@example.com."
    )


@pytest.mark.parametrize(
    ("record", "level", "where", "words"),
    [
        ("v=DMARC1; rua=mailto:agg@example.com", "error", "p", "missing"),
        ("v=DMARC1; p=refuse; rua=mailto:agg@example.com", "error", "p", "not valid"),
        ("v=DMARC1; p=reject; p=none; rua=mailto:agg@example.com", "error", "p", "repeated"),
        (SOUND + "; sp=nothing", "error", "sp", "not valid"),
        (SOUND + "; sp=none", "warning", "sp", "weaker than p=reject"),
        (SOUND + "; np=quarantine", "warning", "np", "weaker"),
        (SOUND + "; adkim=x", "error", "adkim", "its default applies"),
        (SOUND + "; polcy=none", "warning", "record", "unknown tag polcy"),
        (SOUND + "; sp", "error", "record", "tag without value sp"),
        (SOUND + "; pct=50", "warning", "pct", "ignore pct=50"),
        (SOUND + "; pct=0", "warning", "pct", "t=y"),
        (SOUND + "; pct=100", "note", "pct", "default"),
        (SOUND + "; pct=10; t=n", "note", "pct", "receivers that know t ignore pct"),
        (SOUND + "; t=y", "note", "t", "one level less than p=reject"),
        (SOUND + "; fo=1", "note", "fo", "without ruf"),
        (SOUND + "; ri=3600", "note", "ri", "removed"),
        (SOUND + "; rf=afrf", "note", "rf", "removed"),
        (SOUND + "; psd=y", "warning", "psd", "public suffix"),
        (
            "v=DMARC1; p=none; rua=mailto:agg@example.com",
            "warning",
            "p",
            "forged mail of this domain is delivered",
        ),
        ("v=DMARC1; p=reject", "warning", "rua", "nobody tells"),
        (
            "v=DMARC1; p=reject; rua=agg@example.com",
            "error",
            "rua",
            "that address gets nothing",
        ),
        ("v=DMARC1; p=reject; rua=mailto:agg@example.com!10m", "note", "rua", "size after !"),
        ("v=DMARC1; p=rejct", "error", "p", "p=rejct is not valid, did you mean p=reject"),
        ("v=DMARC1; p=refuse", "error", "p", "p=refuse is not valid, allowed: none, quarantine"),
        (SOUND + "; t=yes", "error", "t", "t=yes is not valid"),
        (SOUND + "; pct=all", "error", "pct", "pct=all is not valid, allowed: 0 to 100"),
        (SOUND + "; rau=mailto:b@example.com", "warning", "record", "did you mean rua?"),
        (
            "v=DMARC1; p=reject; rua=dmarc@example.com",
            "error",
            "rua",
            "rua=dmarc@example.com: mailto: is missing, write rua=mailto:dmarc@example.com",
        ),
        (
            "v=DMARC1; p=reject; rua=mailto:a@example.com, b@example.com",
            "error",
            "rua",
            "rua=b@example.com: mailto: is missing",
        ),
        (SOUND + "; ruf=mailto:nobody", "error", "ruf", "ruf=mailto:nobody is no mail address"),
        (SOUND + "; ruf=https://example.com/r", "warning", "ruf", "by mail only"),
        (SOUND + "; ruf=", "error", "ruf", "an address of ruf is empty"),
        (" v=DMARC1; p=reject", "error", "record", "white space stands before v=DMARC1"),
        ("v=dmarc1; p=reject", "error", "record", "must be written in capitals"),
        ("v=DMARC1 p=reject", "error", "record", "the semicolon is missing"),
        ("v=DMARC1, p=reject", "error", "record", "a comma stands for the semicolon"),
        ("v=DMARC1: p=reject", "error", "record", "the semicolon is missing"),
        ("v=DMARC1\\; p=reject", "error", "record", "the backslash belongs into the zone file"),
        ("v=DMARC2; p=reject", "error", "record", "the only version is v=DMARC1"),
        ("v=DMARC; p=reject", "error", "record", "the only version is v=DMARC1"),
        ("v:DMARC1; p=reject", "error", "record", "`=` is missing behind v"),
        ("p=reject; v=DMARC1", "error", "record", "v=DMARC1 must stand first"),
        ("p=reject; rua=mailto:a@b.example", "error", "record", "is missing at its beginning"),
        ('"v=DMARC1; p=reject"', "error", "record", "the quotation marks"),
        ("v=spf1 -all", "note", "record", "it is an SPF record"),
        ("v=DKIM1; p=x", "note", "record", "it is a DKIM key"),
        ("dmarc1 p=reject", "error", "record", "does not begin with v=DMARC1"),
        ("DMARC: reject", "error", "record", "does not begin with v=DMARC1"),
    ],
)
def test_each_mistake_is_named_where_it_is(
    record: str, level: Level, where: str, words: str
) -> None:
    found = surveyed(record)
    assert any(place == where and words in text for place, text in told(found, level)), (
        found.findings
    )


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1 -all",
        '"v=spf1 -all"',
        "v=DKIM1; p=",
        "p=MIGfMA0GCSqGSIb3DQEBAQUAA4GN",
        "v=TLSRPTv1; rua=mailto:dmarc@example.com",
        "google-site-verification=dmarc-abc",
        '"google-site-verification=dmarc"',
        "easydmarc-verification=abc",
        "v-verification: 1",
    ],
)
def test_a_wildcard_of_the_zone_is_no_mistake(text: str) -> None:
    """RFC 4592 2.1.1: it answers for _dmarc of every name below; the policy is found above."""
    more = {"*.example.com": {"TXT": [text], "MX": [(10, "mx.example.com")]}}
    found = surveyed(SOUND, "mail.example.com", **more)
    assert found.published is not None
    assert [each for each in found.findings if each.where == "record"] == []


def test_a_domain_without_policy_is_an_error() -> None:
    found = survey(Domain("example.com"), Zone(AROUND), suffixes=ListedSuffixes())
    assert told(found) == [("record", "no DMARC policy applies to example.com: no policy record")]
    assert found.worst == "error"


def test_several_records_are_an_error() -> None:
    """docs/design.md, Decisions: they are all discarded."""
    assert ("walk", "_dmarc.example.com has 2 DMARC records: receivers discard them all") in told(
        surveyed([SOUND, SOUND + "; t=y"])
    )


def test_a_subdomain_is_told_by_the_tag_that_applies() -> None:
    found = surveyed(
        SOUND + "; sp=quarantine", "news.example.com", **{"news.example.com": {"A": ["192.0.2.1"]}}
    )
    assert (found.outcome.policy_tag, found.outcome.policy) == ("sp", "quarantine")
    assert any(each.name == "sp" and "quarantined" in each.meaning for each in found.tags)


@pytest.mark.parametrize(
    ("zone", "level", "words"),
    [
        ({}, "error", "did not ask for these reports"),
        (
            {"example.com._report._dmarc.reports.example": {"TXT": ["v=DMARC1"]}},
            "error",
            "neither MX nor address",
        ),
        (
            {
                "example.com._report._dmarc.reports.example": {"TXT": ["v=DMARC1"]},
                "reports.example": {"MX": [(0, "")]},
            },
            "error",
            "null MX",
        ),
        (
            {
                "example.com._report._dmarc.reports.example": {"TXT": ["v=DMARC1"]},
                "reports.example": {"TXT": ["no mail here"]},
            },
            "error",
            "neither MX nor address",
        ),
        (
            {
                "example.com._report._dmarc.reports.example": {"TXT": ["v=DMARC1"]},
                "reports.example": {"MX": [(0, "mx.reports.example")]},
            },
            None,
            "",
        ),
        (
            {
                "example.com._report._dmarc.reports.example": {"TXT": ["v=DMARC1"]},
                "reports.example": {"AAAA": ["2001:db8::1"]},
            },
            None,
            "",
        ),
    ],
)
def test_each_external_address_is_asked_about(
    zone: dict[str, dict[str, list[object]]], level: Level | None, words: str
) -> None:
    """RFC 9990 4: without the host's consent the address gets nothing."""
    found = surveyed(
        "v=DMARC1; p=reject; rua=mailto:agg@example.com,mailto:a@reports.example", **zone
    )
    assert [each.address for each in found.destinations] == ["agg@example.com", "a@reports.example"]
    assert [text for where, text in told(found) if where == "rua"] == (
        [text for _, text in told(found) if words in text] if level else []
    )
    assert found.worst is (level or "note")


@pytest.mark.parametrize(
    ("spf", "level", "words"),
    [
        (None, "warning", "no SPF record"),
        ("v=spf1 +all", "error", "almost any address"),
        ("v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all", "error", "almost any address"),
        ("v=spf1 ip4:198.51.100.1", "warning", "does not end in -all"),
        ("v=spf1 ipv4:198.51.100.1 -all", "error", "cannot be used"),
        (
            "v=spf1 " + " ".join(f"a:h{n}.example.com" for n in range(11)) + " -all",
            "error",
            "more than 10",
        ),
        (
            "v=spf1 " + " ".join(f"a:h{n}.example.com" for n in range(9)) + " -all",
            "warning",
            "9 of the 10",
        ),
    ],
)
def test_spf_is_read_to_its_end(spf: str | None, level: Level, words: str) -> None:
    zone = Zone(
        {"_dmarc.example.com": {"TXT": [SOUND]}, "example.com": {"MX": [(10, "mx.example.com")]}}
    )
    for number in range(11):
        zone.add(f"h{number}.example.com", "A", "198.51.100.1")
    if spf:
        zone.add("example.com", "TXT", spf)
    found = survey(Domain("example.com"), zone, suffixes=ListedSuffixes())
    assert any(where == "SPF" and words in text for where, text in told(found, level)), (
        found.findings
    )


@pytest.mark.parametrize(
    "failing", ["_dmarc.example.com", "example.com", "example.com._report._dmarc.reports.example"]
)
def test_what_the_dns_did_not_say_is_unknown_not_wrong(failing: str) -> None:
    zone = Zone(
        AROUND
        | {"_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject; rua=mailto:a@reports.example"]}},
        failing={failing},
    )
    zone.add("reports.example", "MX", (10, "mx.reports.example"))
    if not failing.startswith("example.com._report"):
        zone.add("example.com._report._dmarc.reports.example", "TXT", "v=DMARC1")
    assert survey(Domain("example.com"), zone, suffixes=ListedSuffixes()).worst == "unknown"


@given(st.binary(max_size=200))
def test_any_record_can_be_told(text: bytes) -> None:
    """Whatever a zone holds: printable ASCII, no exception."""
    record = parse(b"v=DMARC1;" + text)
    if record is None:
        return
    said = [
        sentence(record, "example.com"),
        *(each.text for each in findings(record)),
        *(each.meaning for each in tags(record)),
    ]
    assert all(each.isascii() and each.isprintable() for each in said)
