"""SPF as this milter checks it: RFC 7208 by section, docs/attacks.md (SPF-nn), BSP-01 and WL-03 by
id."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.resolver import LookupFailed, NoAnswer, Question
from dmarc_milter.core.spf import record
from dmarc_milter.core.spf.check import (
    EarlierSpf,
    SpfOptions,
    SpfResult,
    SpfStatus,
    check,
    questions,
    upgraded,
)
from fakes.dns_zone import Zone

CLIENT = "192.0.2.66"
DOMAIN = "attack.example"
QUERIES = 112


def envelope(
    *,
    ip: str | None = CLIENT,
    helo: str = "mx.attack.example",
    local_part: str = "any",
    domain: str | None = DOMAIN,
    **other: Any,
) -> Envelope:
    """The default session of docs/attacks.md; domain None is the null sender."""
    sender = ReversePath(local_part, Domain(domain)) if domain else ReversePath()
    return Envelope(ip_address(ip) if ip else None, helo, sender, **other)


def records(*texts: str | bytes, **others: dict[str, list[Any]]) -> Zone:
    """A zone with these TXT records at DOMAIN; other names have _ for dots."""
    zone = Zone({name.replace("_", "."): types for name, types in others.items()})
    zone.add(DOMAIN, "TXT", *texts)
    return zone


def status(zone: Zone, **session: Any) -> str:
    return check(envelope(**session), zone).status.value


# RFC 7208 4.1 to 4.3: who is checked


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        ({}, ("pass", "mailfrom", DOMAIN)),
        ({"domain": None, "helo": DOMAIN}, ("pass", "helo", DOMAIN)),
        ({"domain": None, "helo": "Attack.EXAMPLE."}, ("pass", "helo", DOMAIN)),
        ({"domain": "none.example"}, ("none", "mailfrom", "none.example")),
        ({"domain": "single"}, ("none", "mailfrom", "single")),
        ({"domain": None, "helo": "localhost"}, ("none", "helo", "localhost")),
        ({"ip": f"::ffff:{CLIENT}"}, ("pass", "mailfrom", DOMAIN)),
        ({"ip": None}, ("none", "mailfrom", DOMAIN)),
        ({"source_known": False}, ("none", "mailfrom", DOMAIN)),
    ],
)
def test_the_identity_is_mail_from_or_postmaster_at_helo(
    session: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    """RFC 7208 2.4, 4.3; WL-02, SPF-13."""
    result = check(envelope(**session), records(f"v=spf1 ip4:{CLIENT} -all"))
    assert (result.status, result.identity, str(result.domain)) == expected
    assert result.usable is (expected[0] == "pass")


@pytest.mark.parametrize(
    "helo",
    [
        "[192.0.2.66]",
        "192.0.2.66",
        "",
        "-",
        "x" * 300,
        "\udcff.example",
        "bücher.example",
        "a..b",
        "[IPv6:::1]",
    ],
)
def test_a_helo_that_is_no_name_gives_none(helo: str) -> None:
    """WL-03: none, nothing asked, nothing raised."""
    zone = Zone()
    assert check(envelope(domain=None, helo=helo), zone) == SpfResult(
        SpfStatus.NONE, None, "helo", "HELO is not a domain name"
    )
    assert zone.calls == []
    assert questions(envelope(domain=None, helo=helo)) == ()


def test_a_malformed_sender_gives_none() -> None:
    """SPF-11; the reason is address.py's."""
    result = check(
        Envelope(ip_address(CLIENT), "mx.attack.example", ReversePath("", None, "address literal")),
        Zone(),
    )
    assert result == SpfResult(SpfStatus.NONE, None, "mailfrom", "address literal")


def test_a_zone_id_is_no_part_of_the_address() -> None:
    """SPF-13."""
    zone = records("v=spf1 ip6:fe80::/10 -all", **{"2001:db8::": {}})
    assert (
        check(
            Envelope(IPv6Address("fe80::1%eth0"), "h.example", ReversePath("a", Domain(DOMAIN))),
            zone,
        ).status
        == "pass"
    )


def test_the_local_part_may_hold_an_at() -> None:
    """RFC 5321 4.1.2: pyspf splits at the first @, and would check another domain."""
    zone = records(
        "v=spf1 exists:%{o}.x.example -all", **{"attack_example_x_example": {"A": ["127.0.0.2"]}}
    )
    assert status(zone, local_part='"a@legit.example"') == "pass"


def test_what_is_asked_first_is_known_at_mail_from() -> None:
    """For early look-ups."""
    assert questions(envelope()) == (Question(DOMAIN, "TXT"),)
    assert questions(envelope(domain=None, helo="Mx.Example")) == (Question("mx.example", "TXT"),)
    assert questions(envelope(domain="single")) == questions(envelope(ip=None)) == ()


# RFC 7208 4.4, 4.5: the record


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["v=spf1 +all", "v=spf1 -all"], "permerror"),
        (["V=SPF1 +all"], "pass"),
        (["v=spf10 +all"], "none"),
        ([" v=spf1 +all"], "none"),
        (["v=spf1\t+all"], "none"),
        (["v=spf1\n"], "none"),
        (["v=spf1"], "neutral"),
        (["other", "", "v=spf1 +all"], "pass"),
        ([tuple("v=spf1 +all")], "pass"),
        ([("v=spf1", "+all")], "none"),
        ([""], "none"),
        ([b"v=spf1 a:\xff.example +all"], "permerror"),
        ([b"v=spf1 \x00 +all"], "permerror"),
        ([b"v=spf1 +all\r"], "permerror"),
        ([b"\xff", "v=spf1 +all"], "pass"),
    ],
)
def test_the_record_is_the_one_that_begins_with_the_version(
    texts: list[Any], expected: str
) -> None:
    """SPF-07, SPF-14."""
    assert status(records(*texts)) == expected


def test_a_record_is_found_through_an_alias() -> None:
    """SPF-07."""
    zone = Zone({DOMAIN: {"CNAME": ["other.example"]}, "other.example": {"TXT": ["v=spf1 +all"]}})
    assert status(zone) == "pass"


def test_a_failed_look_up_of_the_record_is_a_temperror() -> None:
    """RFC 7208 4.4."""
    result = check(envelope(), Zone(failing={DOMAIN}))
    assert (result.status, result.reason) == ("temperror", "DNS look-up failed")


@pytest.mark.parametrize(("octets", "expected"), [(4096, "pass"), (4097, "permerror")])
def test_records_have_a_bound(octets: int, expected: str) -> None:
    """SECURITY.md, Limits: 4 KiB; SPF-09."""
    text = "v=spf1 " + "ip4:10.0.0.0/9 " * 300
    text = text[: octets - 5].rsplit(" ", 1)[0]
    text += " " * (octets - 5 - len(text)) + " +all"
    result = check(envelope(), records(text))
    assert (len(text), result.status) == (octets, expected)
    assert result.record == (text if expected == "pass" else "")


# RFC 7208 4.6.4: limits, at the bound and one past it

NOTHING = "192.0.2.1"


def address(name: str) -> dict[str, dict[str, list[Any]]]:
    return {name: {"A": [NOTHING]}}


def zone_of_includes(count: int) -> Zone:
    zone = Zone({f"i{n}.example": {"TXT": ["v=spf1 -all"]} for n in range(count)})
    zone.add(
        DOMAIN, "TXT", "v=spf1 " + " ".join(f"include:i{n}.example" for n in range(count)) + " +all"
    )
    return zone


@pytest.mark.parametrize(("count", "expected"), [(10, "pass"), (11, "permerror")])
def test_ten_terms_may_look_up(count: int, expected: str) -> None:
    """SPF-01; the eleventh is refused before it is asked."""
    zone = zone_of_includes(count)
    result = check(envelope(), zone)
    assert (result.status, result.lookups) == (expected, 10)
    assert len(zone.calls) == 11


def test_terms_are_counted_when_they_are_evaluated() -> None:
    """RFC 7208 4.6.4: "during SPF evaluation": a redirect= that is not followed costs nothing, nor
    does a term after the match."""
    zone = records(
        "v=spf1 "
        + "a:a.example " * 9
        + f"a:b.example redirect=r.example include:{'c' * 9}.example",
        **{"a_example": {"A": [NOTHING]}},
    )
    zone.add("b.example", "A", CLIENT)
    assert check(envelope(), zone).status == "pass"


@pytest.mark.parametrize(("count", "expected"), [(2, "neutral"), (3, "permerror")])
@pytest.mark.parametrize("mechanism", ["a", "exists", "mx"])
def test_two_terms_may_find_nothing(mechanism: str, count: int, expected: str) -> None:
    """SPF-02: NXDOMAIN and no data alike."""
    zone = records(
        "v=spf1 " + " ".join(f"{mechanism}:n{n}.example" for n in range(count)),
        **{"n0_example": {"TXT": ["x"]}},
    )
    assert status(zone) == expected


def test_a_term_that_finds_nothing_counts_once() -> None:
    """RFC 7208 4.6.4 counts terms: an mx whose three exchanges have no AAAA is one of them, so an
    IPv6 client is judged by `-all`."""
    zone = records("v=spf1 a mx -all")
    zone.add(DOMAIN, "A", NOTHING)
    zone.add(DOMAIN, "MX", *((10, f"m{n}.example") for n in range(3)))
    for n in range(3):
        zone.add(f"m{n}.example", "A", NOTHING)
    assert status(zone, ip="2001:db8::66") == "fail"


@pytest.mark.parametrize(("count", "expected"), [(10, "pass"), (11, "permerror")])
def test_an_mx_may_have_ten_names(count: int, expected: str) -> None:
    """SPF-03."""
    zone = records("v=spf1 mx -all")
    zone.add(DOMAIN, "MX", *((n, f"m{n}.example") for n in range(count)))
    for n in range(count):
        zone.add(f"m{n}.example", "A", CLIENT if n == 9 else NOTHING)
    assert status(zone) == expected


def zone_of_exchanges(terms: str) -> Zone:
    """d0.example to d9.example with ten exchanges each, none of them the client."""
    zone = records(terms)
    for d in range(10):
        zone.add(f"d{d}.example", "MX", *((n, f"m{d}{n}.example") for n in range(10)))
        for n in range(10):
            zone.add(f"m{d}{n}.example", "A", NOTHING)
    return zone


TEN_TIMES_TEN = " ".join(f"mx:d{d}.example" for d in range(10))


def test_the_most_that_the_rfc_allows_is_asked() -> None:
    """SPF-03: one record, ten MX, a hundred addresses: all of it legal, and judged."""
    zone = zone_of_exchanges(f"v=spf1 {TEN_TIMES_TEN} -all")
    assert status(zone) == "fail"
    assert len(set(zone.calls) | set(zone.prefetched)) == 111


def test_a_hundred_addresses_are_all() -> None:
    """SPF-03, pinned: one more look-up than the hundred is the record's own doing, a permerror, and
    is not made."""
    zone = zone_of_exchanges(f"v=spf1 {TEN_TIMES_TEN.replace('d9', '%{p}.d9')} -all")
    zone.add("66.2.0.192.in-addr.arpa", "PTR", "p.attack.example")
    zone.add("p.attack.example", "A", CLIENT)
    zone.add("p.attack.example.d9.example", "MX", *((n, f"m9{n}.example") for n in range(10)))
    result = check(envelope(), zone)
    assert (result.status, result.reason) == ("permerror", "too many address look-ups")
    assert len(set(zone.calls)) <= QUERIES


def test_only_ten_names_of_the_client_are_used() -> None:
    """SPF-04, RFC 7208 4.6.4: the rest is ignored, without an error; the macro and the mechanism
    share them."""
    zone = records("v=spf1 exists:%{p}.x.example ptr -all")
    zone.add("66.2.0.192.in-addr.arpa", "PTR", *(f"n{n}.attack.example" for n in range(100)))
    for n in range(100):
        zone.add(f"n{n}.attack.example", "A", CLIENT if n >= 10 else NOTHING)
    assert status(zone) == "fail"
    assert len(zone.calls) == 1 + 1 + 10 + 1


@pytest.mark.parametrize("last", ["include:b.example", "redirect=b.example"])
@pytest.mark.parametrize(
    "back",
    [
        "include:attack.example",
        "redirect=attack.example",
        "include:b.example",
        "redirect=b.example",
    ],
)
def test_loops_end_at_ten(last: str, back: str) -> None:
    """SPF-06: a to b to a, and b to itself."""
    zone = records(f"v=spf1 {last}", **{"b_example": {"TXT": [f"v=spf1 {back}"]}})
    result = check(envelope(), zone)
    assert (result.status, result.lookups <= 10, len(zone.calls) <= 11) == ("permerror", True, True)


def test_a_tarpit_ends_in_time() -> None:
    """SPF-17: each answer after 4.9 s; 20 s in all, then temperror."""
    zone = zone_of_exchanges(f"v=spf1 {TEN_TIMES_TEN} -all")
    zone.latency = 4.9
    result = check(envelope(), zone)
    assert (result.status, result.reason, zone.now < 25) == ("temperror", "time limit", True)


def test_a_message_that_used_up_its_questions_gains_no_temperror() -> None:
    """What else is in the message must not buy a sender that would fail a second chance: permerror,
    where no time ran out."""
    zone = zone_of_exchanges(f"v=spf1 {TEN_TIMES_TEN} -all")
    result = check(envelope(), zone.share(queries=90, seconds=25.0))
    assert (result.status, result.reason, len(zone.calls) <= 90) == (
        "permerror",
        "too many DNS queries",
        True,
    )


def test_names_of_the_client_beyond_the_questions_left_do_not_match() -> None:
    """RFC 7208 5.5: as with any other trouble there."""
    zone = records(f"v=spf1 ptr ip4:{CLIENT} -all")
    zone.add("66.2.0.192.in-addr.arpa", "PTR", *(f"n{n}.attack.example" for n in range(10)))
    assert check(envelope(), zone.share(queries=4, seconds=25.0)).status == "pass"


def test_a_client_cannot_stall_the_check_with_its_own_names() -> None:
    """RFC 7208 5.5: trouble with PTR means no match. Reverse names are the client's own, so slow
    ones must not buy a temperror."""
    zone = records("v=spf1 ptr a:a.example -all", **{"a_example": {"A": [NOTHING]}})
    zone.add("66.2.0.192.in-addr.arpa", "PTR", *(f"n{n}.attack.example" for n in range(10)))

    def stall(question: Question) -> None:
        zone.now += 4.9 * (question.name.endswith("arpa") or question.name.startswith("n"))

    zone.on_query = stall
    assert status(zone) == "fail"


# RFC 7208 5: mechanisms


def test_evaluation_goes_from_left_to_right() -> None:
    """SPF-15: what comes after the match is not evaluated, whatever is wrong with it."""
    zone = Zone({"one.example": {"TXT": ["v=spf1 +all"]}}, failing={"two.example"})
    zone.add(DOMAIN, "TXT", "v=spf1 include:one.example include:two.example exists:%{p}.x -all")
    assert status(zone) == "pass"
    assert "66.2.0.192.in-addr.arpa" not in zone.asked()


@pytest.mark.parametrize(
    ("included", "expected"),
    [
        (["v=spf1 +all"], "pass"),
        (["v=spf1 -all"], "softfail"),
        (["v=spf1 ?all"], "softfail"),
        (["v=spf1 ~all"], "softfail"),
        (["v=spf1"], "softfail"),
        (["v=spf1 foo"], "permerror"),
        (["v=spf1", "v=spf1"], "permerror"),
        (["other"], "permerror"),
        ([], "permerror"),
        (None, "temperror"),
    ],
)
def test_include_asks_whether_the_other_passes(included: list[str] | None, expected: str) -> None:
    """RFC 7208 5.2."""
    zone = records("v=spf1 include:other.example ~all")
    zone.fail("other.example") if included is None else zone.add("other.example", "TXT", *included)
    assert status(zone) == expected


@pytest.mark.parametrize(
    "term",
    ["a", "mx", "exists:x.example", "include:x.example", "redirect=x.example", "a:x.example"],
)
def test_a_failed_look_up_of_a_term_is_a_temperror(term: str) -> None:
    """RFC 7208 5: whatever follows it."""
    zone = records(f"v=spf1 {term} -all" if "=" not in term else f"v=spf1 {term}")
    for rdtype in ("A", "MX"):
        zone.fail(DOMAIN, rdtype)
    zone.fail("x.example")
    assert status(zone) == "temperror"


@pytest.mark.parametrize("failing", ["66.2.0.192.in-addr.arpa", "n.attack.example"])
@pytest.mark.parametrize("terms", ["ptr -all", "-exists:%{p}.x.example +ptr -all"])
def test_a_failed_look_up_of_the_clients_names_is_no_match(failing: str, terms: str) -> None:
    """RFC 7208 5.5 and 7.3: no match, and %{p} is "unknown"."""
    zone = records(f"v=spf1 {terms}")
    zone.add("66.2.0.192.in-addr.arpa", "PTR", "n.attack.example")
    zone.fail(failing)
    assert status(zone) == "fail"
    assert ("unknown.x.example" in zone.asked()) is ("%" in terms)


def test_a_mechanism_names_its_own_family() -> None:
    """RFC 7208 5.3: A or AAAA by the client; exists is always A (5.7)."""
    zone = records("v=spf1 a exists:e.example -all", **{"e_example": {"A": ["127.0.0.1"]}})
    zone.add(DOMAIN, "AAAA", "2001:db8::1")
    assert status(zone, ip="2001:db8::66") == "pass"
    assert zone.asked("AAAA") == [DOMAIN]
    assert zone.asked("A") == ["e.example"]


@pytest.mark.parametrize(
    ("term", "ip", "expected"),
    [
        ("a:h.example", "192.0.2.2", "pass"),
        ("a:h.example/24", CLIENT, "pass"),
        ("a:h.example/25//127", "192.0.2.129", "fail"),
        ("a:h.example/32//64", "2001:db8::ffff", "pass"),
        ("a:h.example/0//128", "2001:db8::ffff", "fail"),
        ("ip4:192.0.2.3/24", CLIENT, "pass"),
        ("ip6:::192.0.2.66", CLIENT, "fail"),
        ("IP4:192.0.2.66", CLIENT, "pass"),
        ("mx:null.example", CLIENT, "fail"),
        ("a:nul..example", CLIENT, "fail"),
        ("a:%{d}" + ".long" * 60 + ".h.example", "192.0.2.2", "fail"),
    ],
)
def test_addresses_match_within_the_prefix(term: str, ip: str, expected: str) -> None:
    """RFC 7208 5.3, 5.4 and 5.6; RFC 7505's null MX; a name that cannot be asked does not match."""
    zone = records(f"v=spf1 {term} -all", **{"null_example": {"MX": [(0, ".")]}})
    zone.add("h.example", "A", "192.0.2.2")
    zone.add("h.example", "AAAA", "2001:db8::2")
    assert status(zone, ip=ip) == expected


# RFC 7208 6: modifiers


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ("redirect=other.example", "softfail"),
        ("REDIRECT=other.example", "softfail"),
        ("redirect=other.example -all", "fail"),
        ("redirect=none.example", "permerror"),
        ("redirect=%{l}.example", "permerror"),
        ("redirect=%{h}", "permerror"),
        ("exp=e.example exp=e.example", "permerror"),
        ("x=1 x=2 exp=%{p}.e.example y=%{p} ?all", "neutral"),
    ],
)
def test_modifiers(terms: str, expected: str) -> None:
    """RFC 7208 6; SPF-05: exp is never fetched, and an unknown modifier's macros are not
    expanded."""
    zone = records(f"v=spf1 {terms}", **{"other_example": {"TXT": ["v=spf1 ~all"]}})
    assert status(zone, helo="[192.0.2.66]", local_part="käse") == expected
    assert zone.asked("PTR") == []


# RFC 7208 7: macros


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("%{s}", "philip-gladstone-test@sub.attack.example"),
        ("%{l}.%{o}", "philip-gladstone-test.sub.attack.example"),
        ("%{l2r-}.x", "gladstone.philip.x"),
        ("%{l1-}.x", "test.x"),
        ("%{lR-}.x", "test.gladstone.philip.x"),
        ("%{d2}", "attack.example"),
        ("%{dr}", "example.attack.sub"),
        ("%{d99}", "sub.attack.example"),
        ("%{o-}.x", "sub.attack.example.x"),
        ("%{ir}.%{v}.x", "66.2.0.192.in-addr.x"),
        ("%{h}", "mx.attack.example"),
        ("%{p}.x", "unknown.x"),
        ("a%%b%_c%-d.x", "a%b c%20d.x"),
        ("%{L}.x", "philip-gladstone-test.x"),
        ("%{S}.x", "philip-gladstone-test%40sub.attack.example.x"),
        ("%{d}.x.", "sub.attack.example.x"),
        ("%{d}" + ".abcdefghi" * 24, "example" + ".abcdefghi" * 24),
    ],
)
def test_macros_expand_to_the_name_that_is_asked(spec: str, name: str) -> None:
    """RFC 7208 7.1, 7.3, 7.4."""
    zone = Zone({"sub.attack.example": {"TXT": [f"v=spf1 exists:{spec} -all"]}})
    zone.add(name, "A", "127.0.0.2")
    assert status(zone, domain="sub.attack.example", local_part="philip-gladstone-test") == "pass"
    assert name in zone.asked("A")


def test_a_delimiter_is_replaced_by_a_dot() -> None:
    """RFC 7208 7.3: rejoined with dots, "and not the original splitting characters"."""
    zone = Zone(
        {
            "a-b.example": {"TXT": ["v=spf1 exists:%{o-}.x -all"]},
            "a.b.example.x": {"A": ["127.0.0.2"]},
        }
    )
    assert status(zone, domain="a-b.example") == "pass"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.example", "n.attack.example", "H.B.Example", "B.EXAMPLE"], "b.example"),
        (["a.example", "n.attack.example", "H.B.Example"], "h.b.example"),
        (["a.example", "n.attack.example", "xb.example"], "a.example"),
    ],
)
def test_the_validated_name_depends_on_the_current_domain(names: list[str], chosen: str) -> None:
    """RFC 7208 7.3: a name at or below the domain of the record at hand is preferred."""
    zone = records(
        "v=spf1 include:B.example -all", **{"b_example": {"TXT": ["v=spf1 exists:%{p}.x -all"]}}
    )
    zone.add("66.2.0.192.in-addr.arpa", "PTR", *names)
    for name in names:
        zone.add(name, "A", CLIENT)
    check(envelope(), zone)
    assert zone.asked("A")[-1] == f"{chosen}.x"


@pytest.mark.parametrize(
    ("local_part", "terms", "expected"),
    [
        ("käse", "exists:%{l}.x.example -all", "fail"),
        ("käse", "exists:%{L}.x.example -all", "fail"),
        ("käse", "exists:%{s}.x.example ip4:192.0.2.66 -all", "pass"),
        ("käse", "include:%{l}.x.example ?all", "neutral"),
        ("käse", "-exists:%{l}.x.example +all", "pass"),
        ("käse", "ip4:192.0.2.66 -all", "pass"),
        ("k\udcffse", "exists:%{L}.x.example -all", "permerror"),
        ("k\udcffse", "ip4:192.0.2.66 -all", "pass"),
        ("a b", "exists:%{l}.x.example -all", "fail"),
        ("a\\046b", "exists:%{l}.x.example -all", "fail"),
        ("*", "exists:%{l}.x.example -all", "fail"),
        ("a\x00b", "exists:%{l}.x.example -all", "fail"),
        ("x" * 5000, "exists:%{l}.x.example -all", "fail"),
        ("a+b=c", "exists:%{l}.x.example -all", "fail"),
    ],
)
def test_odd_local_parts_do_not_match(local_part: str, terms: str, expected: str) -> None:
    """RFC 8616 4, SPF-10, DNS-05: what is no visible ASCII, or reads as an escape or a
    wildcard, is never asked."""
    zone = records(f"v=spf1 {terms}")
    assert status(zone, local_part=local_part) == expected
    assert zone.asked("A") == (["a+b=c.x.example"] if local_part == "a+b=c" else [])


@pytest.mark.parametrize(
    "helo",
    [
        "JUMPIN' JUPITER",
        "[192.0.2.66]",
        "",
        "\udcff.example",
        "a\\b.example",
        "x" * 400,
        "*.example",
    ],
)
def test_a_helo_that_is_no_name_does_not_match(helo: str) -> None:
    """RFC 7208 7.3: %{h} is what was said, and is asked only if it can be."""
    zone = records("v=spf1 a:%{h} a:%{H} -all")
    assert status(zone, helo=helo) == "fail"
    assert all(
        name
        in (
            "[192.0.2.66]",
            "%5b192.0.2.66%5d",
            "jumpin%27%20jupiter",
            "%ff.example",
            "a%5cb.example",
            "%2a.example",
        )
        for name in zone.asked("A")
    )


def test_an_expansion_is_not_expanded_again() -> None:
    """pyspf expands the current domain of a mechanism without one: a local part could bring its own
    macros."""
    zone = records(
        "v=spf1 include:%{l}.x.example -all", **{"%{h}_x_example": {"TXT": ["v=spf1 a -all"]}}
    )
    zone.add("%{h}.x.example", "A", CLIENT)
    assert status(zone, local_part="%{h}") == "pass"


@pytest.mark.parametrize(
    "term",
    [
        "exists:%{l" + "9" * 400 + "r}",
        "ip4:1.1.1.1/" + "9" * 400,
        "exists:%{d2147483648}.x",
        "exists:%{i-1}.x",
        "exists:%{d0}",
    ],
)
def test_numbers_are_bounded(term: str) -> None:
    """SPF-08."""
    assert status(records(f"v=spf1 {term} +all")) == "permerror"


# What else is found


@pytest.mark.parametrize(
    ("zone", "mechanism"),
    [
        (
            records(f"v=spf1 a:a.example ip4:{CLIENT}/24 -all", **{"a_example": {"A": [NOTHING]}}),
            f"ip4:{CLIENT}/24",
        ),
        (records("v=spf1 ip4:10.0.0.1 -ALL"), "-ALL"),
        (
            records(
                "v=spf1 include:a.example",
                **{
                    "a_example": {"TXT": ["v=spf1 redirect=b.example"]},
                    "b_example": {"TXT": ["v=spf1 all"]},
                },
            ),
            "include:a.example > redirect=b.example > all",
        ),
        (records("v=spf1 ip4:10.0.0.1"), ""),
        (records("v=spf1 a:n1.example a:n2.example a:n3.example"), "a:n3.example"),
    ],
)
def test_the_term_that_decided_is_told(zone: Zone, mechanism: str) -> None:
    """For `check` and `why`."""
    assert check(envelope(), zone).mechanism == mechanism


def test_output_is_printable() -> None:
    """Reasons are this program's words, records lose what is not ASCII, and paths have an end."""
    zone = records(b"v=spf1 \xff\x00\r\n <b> +all")
    result = check(envelope(), zone)
    assert (result.record, result.reason) == (
        "v=spf1 ???? <b> +all",
        "character outside printable ASCII",
    )
    result = check(envelope(), records("v=spf1 include:" + "x" * 300 + ".example"))
    assert (result.reason, len(result.mechanism)) == ("include of a domain without SPF record", 200)


@pytest.mark.parametrize(
    ("terms", "ip", "permissive"),
    [
        ("+all", CLIENT, True),
        ("ip4:192.0.0.0/2 -all", CLIENT, True),
        ("ip4:0.0.0.0/0", CLIENT, True),
        ("ip4:192.0.0.0/7", CLIENT, True),
        ("ip4:192.0.0.0/8", CLIENT, False),
        ("ip6:::/0 -all", "2001:db8::66", True),
        ("ip6:2001::/15 -all", "2001:db8::66", True),
        ("ip6:2001::/16 -all", "2001:db8::66", False),
        ("a:a.example/0 -all", CLIENT, True),
        ("mx:a.example/7//128 -all", CLIENT, True),
        ("a:a.example/8//0 -all", CLIENT, False),
        ("include:all.example -all", CLIENT, True),
        ("-include:all.example ip4:192.0.2.66", CLIENT, False),
        ("?include:all.example", CLIENT, False),
        ("redirect=all.example", CLIENT, True),
        ("ip4:192.0.2.66 +all", CLIENT, False),
        ("exists:%{i}.wild.example -all", CLIENT, False),
        ("ptr:attack.example -all", CLIENT, False),
    ],
)
def test_permissive_passes_are_noticed(terms: str, ip: str, permissive: bool) -> None:
    """BSP-01: the result stays RFC 7208's, and is marked; only the option makes it policy."""
    zone = records(
        f"v=spf1 {terms}",
        **{"all_example": {"TXT": ["v=spf1 +all"]}, "*_wild_example": {"A": ["127.0.0.2"]}},
    )
    zone.add("a.example", "A", "192.0.2.1")
    zone.add("a.example", "MX", (10, "a.example"))
    zone.add("66.2.0.192.in-addr.arpa", "PTR", "n.attack.example")
    zone.add("n.attack.example", "A", CLIENT)
    lax, strict = (
        check(envelope(ip=ip), zone, SpfOptions(permissive_counts=counts))
        for counts in (True, False)
    )
    assert lax.permissive is strict.permissive is permissive
    if permissive:
        assert (lax.status, lax.usable, strict.status, strict.usable) == (
            "pass",
            True,
            "policy",
            False,
        )
    else:
        assert lax == strict


@pytest.mark.parametrize(
    ("earlier", "noticed"),
    [
        ([], False),
        ([EarlierSpf("pass", Domain(DOMAIN))], False),
        ([EarlierSpf("fail", Domain(DOMAIN))], True),
        ([EarlierSpf("softfail", Domain(DOMAIN)), EarlierSpf("pass", Domain(DOMAIN))], True),
        ([EarlierSpf("none", Domain("other.example"))], False),
        ([EarlierSpf("fail", None)], False),
    ],
)
def test_an_upgrade_on_the_way_is_noticed(earlier: list[EarlierSpf], noticed: bool) -> None:
    """A pass that an earlier hop did not see; counts unless the option says otherwise."""
    result = check(envelope(), records(f"v=spf1 ip4:{CLIENT}"))
    assert upgraded(result, earlier).upgrade is noticed
    assert upgraded(result, earlier).usable
    assert upgraded(result, earlier, SpfOptions(upgrade_counts=False)).usable is not noticed
    failed = check(envelope(), records("v=spf1 -all"))
    assert upgraded(failed, earlier) == failed


# Hints, threads, hostile data


def test_what_will_be_asked_is_asked_in_parallel() -> None:
    """The first questions of the coming terms, as far as no macro hides them; then the addresses of
    an mx."""
    zone = records(
        "v=spf1 ip4:10.0.0.1 include:I1.example a:%{l}.x a mx exists:e.example ptr ip4:10.0.0.2"
        " redirect=r.example."
    )
    zone.add("i1.example", "TXT", "v=spf1 -all")
    zone.add(DOMAIN, "A", NOTHING)
    zone.add(DOMAIN, "MX", (1, "m1.example"), (2, "m2.example"))
    check(envelope(), zone)
    assert zone.prefetched == [
        Question("i1.example", "TXT"),
        Question(DOMAIN, "A"),
        Question(DOMAIN, "MX"),
        Question("e.example", "A"),
        Question("66.2.0.192.in-addr.arpa", "PTR"),
        Question("r.example", "TXT"),
        Question("m1.example", "A"),
        Question("m2.example", "A"),
    ]


@pytest.mark.parametrize(
    ("terms", "hinted"),
    [
        ("ip4:192.0.2.66 include:a.example include:b.example", 0),
        ("include:a.example ip4:192.0.2.66 include:b.example include:c.example", 0),
        ("include:a.example include:b.example all include:c.example", 2),
        (" ".join(f"include:i{n}.example" for n in range(40)), 10),
        ("include:a.example", 0),
    ],
)
def test_hints_stay_within_what_may_be_asked(terms: str, hinted: int) -> None:
    """I7: not past a certain match, not past the ten, and not for one question alone."""
    zone = records(f"v=spf1 {terms}")
    check(envelope(), zone)
    assert len(zone.prefetched) == hinted


def test_hints_of_nested_records_stay_within_the_ten() -> None:
    """I7: ten includes with ten includes each: ten hints in all."""
    zone = zone_of_includes(10)
    for n in range(10):
        zone.records[f"i{n}.example"]["TXT"] = [
            "v=spf1 " + " ".join(f"include:i{n}{m}.example" for m in range(10))
        ]
        for m in range(10):
            zone.add(f"i{n}{m}.example", "TXT", "v=spf1 -all")
    assert status(zone) == "permerror"
    assert len(zone.prefetched) == 10
    assert len(set(zone.calls) | set(zone.prefetched)) <= 1 + 10 + 10


def test_checks_share_nothing() -> None:
    """pyspf keeps its DNS function in a module global; ours is each check's own."""
    zones = [
        records(
            f"v=spf1 a:h{n}.example -all",
            **{f"h{n}_example": {"A": [CLIENT if n % 2 else NOTHING]}},
        )
        for n in range(40)
    ]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda zone: check(envelope(), zone).status.value, zones))
    assert found == ["pass" if n % 2 else "fail" for n in range(40)]


@pytest.mark.parametrize(
    "text",
    [
        "v=spf1 a:x." + "a" * 60_000 + "!",
        "v=spf1 exists:%%" + ".a" * 30_000,
        "v=spf1 " + "x=y " * 10_000,
        "v=spf1 " + ("exists:" + "%{l-}" * 98 + ".x ") * 8,
        "v=spf1 " + " ".join(f"a:h{n}.example/1" for n in range(10)),
    ],
)
def test_no_record_is_slow(text: str) -> None:
    """SPF-09: patterns of quadratic time, long expansions, thousands of addresses; all far below
    0.2 s."""
    zone = records(text)
    for n in range(10):
        zone.add(f"h{n}.example", "A", *([NOTHING] * 4000))
    record.parse.cache_clear()
    began = time.thread_time()
    check(envelope(local_part="a-" * 120), zone)
    assert time.thread_time() - began < 0.2


class AnyAnswer(Zone):
    """Every question is answered with something odd, chosen by its name."""

    def __init__(self, texts: list[bytes], names: list[str]) -> None:
        super().__init__()
        self.texts, self.names = texts, names

    def _answer(self, name: str, rdtype: str, hops: int) -> list[Any]:
        number = sum(name.encode()) + len(rdtype)
        if number % 7 == 0:
            raise (NoAnswer, LookupFailed)[number % 2]("odd")
        text, found = self.texts[number % len(self.texts)], self.names[number % len(self.names)]
        return {
            "TXT": [text],
            "A": [CLIENT if number % 3 else NOTHING],
            "AAAA": ["::1"],
            "MX": [(1, found)] * (number % 13),
            "PTR": [found] * 12,
        }[rdtype]


TERMS = st.sampled_from(
    [
        "a",
        "mx",
        "ptr",
        "-a:%{l}.x",
        "?mx:%{h}",
        "include:%{p}.x",
        "exists:%{ir}.%{d}",
        "redirect=%{s}.x",
        "exp=%{d}",
        "ip4:0.0.0.0/1",
        "a/0",
        "%",
        "+all",
    ]
)
TEXTS = st.lists(TERMS | st.text("aptrmx:%{}dlsh0/24.-=", max_size=12), max_size=12).map(
    lambda terms: " ".join(["v=spf1", *terms]).encode()
)


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(TEXTS | st.binary(max_size=100), min_size=1, max_size=5),
    names=st.lists(st.text(max_size=20) | st.just("m.attack.example"), min_size=1, max_size=3),
    local_part=st.text(st.characters(), max_size=30),
    helo=st.text(st.characters(), max_size=30),
    ip=st.ip_addresses(),
)
def test_anything_gives_a_result(
    texts: list[bytes], names: list[str], local_part: str, helo: str, ip: Any
) -> None:
    """Any record, any names in the DNS, any envelope: a result, printable, within the questions
    allowed."""
    zone = AnyAnswer(texts, names)
    for sender in (ReversePath(local_part, Domain(DOMAIN)), ReversePath()):
        zone.calls.clear()
        result = check(Envelope(ip, helo, sender), zone)
        assert len(set(zone.calls)) <= QUERIES
        assert result.lookups <= 10
        assert all(" " <= char <= "~" for char in result.reason + result.mechanism + result.record)
