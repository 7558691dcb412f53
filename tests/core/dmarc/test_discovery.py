"""Policy discovery and organizational domains: RFC 9989 4.10, RFC 7489 6.6.3 (
divergences G.1, G.2)."""

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.dmarc.discovery import Discovery, DmarcOptions, PolicySearch, questions
from dmarc_milter.core.dmarc.tree_walk import targets
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.resolver import Question
from fakes.dns_zone import Zone
from fakes.suffixes import ICANN, ListedSuffixes

NONE, U, Y, N = (
    "v=DMARC1; p=none",
    "v=DMARC1; p=reject",
    "v=DMARC1; p=quarantine; psd=y",
    "v=DMARC1; p=reject; psd=n",
)
TREEWALK, PSL = DmarcOptions(), DmarcOptions(discovery="psl")
UNGUARDED = DmarcOptions(psl_guard=False)
SUFFIXES = ListedSuffixes((*ICANN, "g.city.jp"))
DEEP = "a.b.c.d.e.f.g.h.i.j.mail.example.com"
BELOW_REGISTRY, REGISTRY = "f.g.h.i.j.mail.example.com", "g.h.i.j.mail.example.com"
"""The walk from DEEP goes from its first label to the latter's: RFC 9989 4.10 step 4."""


def zone(records: Mapping[str, str | Iterable[str]], failing: Iterable[str] = ()) -> Zone:
    """A DNS with these DMARC records: names without `_dmarc`."""
    texts = {
        name: [text] if isinstance(text, str) else list(text) for name, text in records.items()
    }
    return Zone(
        {f"_dmarc.{name}": {"TXT": text} for name, text in texts.items()},
        failing=[f"_dmarc.{name}" for name in failing],
    )


def discovery(
    records: Mapping[str, str | Iterable[str]],
    failing: Iterable[str] = (),
    options: DmarcOptions = TREEWALK,
) -> tuple[Discovery, Zone]:
    dns = zone(records, failing)
    return Discovery(dns, options, SUFFIXES), dns


def found(search: PolicySearch) -> str | None:
    """The policy domain, "" for none, None when it could not be looked up."""
    if search.failed:
        return None
    return str(search.published.policy_domain) if search.published else ""


@pytest.mark.parametrize(
    ("start", "names"),
    [
        ("com", "com"),
        ("example.com", "example.com com"),
        ("a.b.example.com", "a.b.example.com b.example.com example.com com"),
        (
            "a.b.c.d.e.example.com",
            (
                "a.b.c.d.e.example.com b.c.d.e.example.com c.d.e.example.com d.e.example.com"
                " e.example.com example.com com"
            ),
        ),
        (
            "a.b.c.d.e.f.example.com",
            (
                "a.b.c.d.e.f.example.com b.c.d.e.f.example.com c.d.e.f.example.com"
                " d.e.f.example.com e.f.example.com f.example.com example.com com"
            ),
        ),
        (
            DEEP,
            (
                f"{DEEP} g.h.i.j.mail.example.com h.i.j.mail.example.com i.j.mail.example.com"
                " j.mail.example.com mail.example.com example.com com"
            ),
        ),
        (
            "x." * 97 + "mail.example.com",
            "x." * 97 + "mail.example.com x.x.x.x.mail.example.com x.x.x.mail.example.com"
            " x.x.mail.example.com x.mail.example.com mail.example.com example.com com",
        ),
    ],
)
def test_the_names_of_a_walk(start: str, names: str) -> None:
    """RFC 9989 4.10 steps 4 and 7: one label less each time, from the 7 right-most on; never more
    than 8 (DMR-07)."""
    walked = [domain.name for domain in targets(Domain(start))]
    assert walked == names.split()
    assert len(walked) <= 8


@pytest.mark.parametrize(
    ("start", "records", "organization"),
    [
        # RFC 9989 4.10.2 and B.4
        ("a.mail.example.com", {"mail.example.com": U, "example.com": U}, "example.com"),
        ("a.mail.example.com", {"mail.example.com": N, "example.com": U}, "mail.example.com"),
        ("a.mail.example.com", {"com": Y}, "example.com"),
        ("giant.bank.example", {"giant.bank.example": U, "bank.example": Y}, "giant.bank.example"),
        (
            "mail.giant.bank.example",
            {"giant.bank.example": U, "bank.example": Y},
            "giant.bank.example",
        ),
        (
            "mail.mega.bank.example",
            {"giant.bank.example": U, "bank.example": Y},
            "mega.bank.example",
        ),
        ("bank.example", {"bank.example": Y}, "bank.example"),
        ("bank.example", {"bank.example": Y, "example": Y}, "bank.example"),
        # nothing found: the name itself
        ("a.b.example.com", {}, "a.b.example.com"),
        ("example.com", {}, "example.com"),
        # the fewest labels
        ("a.b.example.com", {"a.b.example.com": U}, "a.b.example.com"),
        ("a.b.example.com", {"b.example.com": U}, "b.example.com"),
        (
            "a.b.example.com",
            {"a.b.example.com": U, "b.example.com": U, "example.com": NONE},
            "example.com",
        ),
        ("a.b.example.com", {"example.com": "v=DMARC1; psd=u"}, "example.com"),
        ("a.b.example.com", {"b.example.com": U, "example.com": "v=DMARC1; p=bad"}, "example.com"),
        # psd=n at the start, in the middle, above a record
        ("a.b.example.com", {"a.b.example.com": N, "example.com": U}, "a.b.example.com"),
        (
            "a.b.example.com",
            {"a.b.example.com": U, "b.example.com": N, "example.com": U},
            "b.example.com",
        ),
        ("a.b.example.com", {"example.com": N}, "example.com"),
        # psd=y: one label below, whether or not there is a record
        ("a.b.example.com", {"example.com": Y}, "b.example.com"),
        (
            "a.b.example.com",
            {"a.b.example.com": U, "b.example.com": U, "example.com": Y},
            "b.example.com",
        ),
        ("a.b.example.com", {"a.b.example.com": U, "example.com": Y}, "b.example.com"),
        ("a.b.example.com", {"b.example.com": Y, "example.com": U}, "a.b.example.com"),
        ("b.example.com", {"b.example.com": Y, "example.com": N}, "b.example.com"),
        # the jump: a record between is never seen, and psd=y above it counts from the start's
        # labels
        (DEEP, {"h.i.j.mail.example.com": U}, "h.i.j.mail.example.com"),
        (DEEP, {"f.g.h.i.j.mail.example.com": U}, DEEP),
        (DEEP, {"g.h.i.j.mail.example.com": Y}, "f.g.h.i.j.mail.example.com"),
        (
            "mail.a.b.c.d.e.f.g.example.com",
            {"b.c.d.e.f.g.example.com": U},
            "mail.a.b.c.d.e.f.g.example.com",
        ),
        # several records at a name are none
        ("a.example.com", {"a.example.com": [N, N], "example.com": U}, "example.com"),
        ("a.example.com", {"example.com": [U, U]}, "a.example.com"),
        ("a.example.com", {"example.com": [U, "v=spf1 -all"]}, "example.com"),
        # psd_guard: a public suffix without psd counts as psd=y, but psd=n stays
        ("a.example.com", {"com": U}, "example.com"),
        ("a.example.com", {"com": "v=DMARC1; p=none; psd=u"}, "example.com"),
        ("a.example.co.uk", {"co.uk": U}, "example.co.uk"),
        ("a.b.kobe.jp", {"kobe.jp": U, "jp": U}, "b.kobe.jp"),
        ("a.legit.example", {"example": U}, "legit.example"),
        ("a.example.com", {"com": N}, "com"),
        # and nothing above a public suffix makes that one an organization, whether psd=y is written
        # there or counts as such
        ("a.x.co.uk", {"uk": U}, "x.co.uk"),
        ("a.x.co.uk", {"uk": Y}, "x.co.uk"),
        ("x.co.uk", {"uk": Y, "x.co.uk": U}, "x.co.uk"),
        ("b.a.x.co.uk", {"uk": U, "a.x.co.uk": U}, "x.co.uk"),
        ("a.x.co.uk", {"uk": U, "co.uk": [U, U]}, "x.co.uk"),
        ("co.uk", {"uk": U}, "co.uk"),
        ("x.uk", {"uk": U}, "x.uk"),
        ("a.b.c.d.e.f.g.h.x.co.uk", {"uk": Y}, "x.co.uk"),
        # city.jp is no public suffix, but the names below it are (the list's *.city.jp)
        ("a.x.g.city.jp", {"city.jp": U}, "x.g.city.jp"),
        ("a.x.g.city.jp", {"city.jp": Y}, "x.g.city.jp"),
        ("a.x.g.city.jp", {"jp": Y}, "x.g.city.jp"),
        ("a.city.jp", {"city.jp": U}, "city.jp"),
        ("a.b.github.io", {"github.io": U}, "github.io"),
    ],
)
def test_organizational_domain_by_walk(
    start: str, records: Mapping[str, str], organization: str
) -> None:
    """RFC 9989 4.10.2 in its order: psd=n, below psd=y, the fewest labels, the name itself."""
    finder, _ = discovery(records)
    assert str(finder.walk(Domain(start)).organizational_domain()) == organization
    assert finder.walk(Domain(start)).possible_organizational_domains() == {Domain(organization)}


def test_without_the_guard_a_top_level_record_is_an_organization() -> None:
    """RFC 9989 4.10.2 to the letter: psd_guard = false."""
    finder, _ = discovery({"com": U}, options=UNGUARDED)
    assert str(finder.walk(Domain("a.example.com")).organizational_domain()) == "com"


@pytest.mark.parametrize(
    ("author", "records", "policy_domain"),
    [
        ("example.com", {}, ""),
        ("example.com", {"example.com": U}, "example.com"),
        ("a.example.com", {"a.example.com": NONE, "example.com": U}, "a.example.com"),
        ("a.example.com", {"example.com": U}, "example.com"),
        # G.1: not the nearest ancestor but the organizational domain
        ("a.b.example.com", {"b.example.com": NONE, "example.com": U}, "example.com"),
        ("a.b.example.com", {"b.example.com": N, "example.com": U}, "b.example.com"),
        # the public suffix's own policy, only without one of the organization
        ("example.com", {"com": Y}, "com"),
        ("a.b.example.com", {"com": Y}, "com"),
        ("a.example.com", {"example.com": NONE, "com": Y}, "example.com"),
        ("a.b.example.com", {"b.example.com": U, "com": Y}, "com"),
        ("bank.example", {"bank.example": Y}, "bank.example"),
        ("giant.bank.example", {"bank.example": Y, "example": U}, "bank.example"),
        # psd_guard
        ("a.example.com", {"com": U}, "com"),
        # G.2, DMR-03: several records are discarded and the walk goes on
        ("a.example.com", {"a.example.com": [U, U], "example.com": NONE}, "example.com"),
        ("a.example.com", {"a.example.com": [U, NONE]}, ""),
        ("example.com", {"example.com": [U, NONE], "com": Y}, "com"),
        (
            "example.com",
            {"example.com": [U, "v=dmarc1; p=none", "v=spf1 -all", " v=DMARC1; p=none"]},
            "example.com",
        ),
        # G.4: what is no DMARC record is not there
        ("a.example.com", {"a.example.com": "v=dmarc1; p=none", "example.com": U}, "example.com"),
        ("a.example.com", {"a.example.com": "p=none; v=DMARC1", "example.com": U}, "example.com"),
        (
            "a.example.com",
            {"a.example.com": "v=DMARC1; p=none; x=" + "x" * 4096, "example.com": U},
            "example.com",
        ),
        # a record without a policy still ends discovery
        ("a.example.com", {"a.example.com": "v=DMARC1", "example.com": U}, "a.example.com"),
        # the jump hides what lies between
        (DEEP, {"f.g.h.i.j.mail.example.com": U}, ""),
        (DEEP, {"g.h.i.j.mail.example.com": U}, "g.h.i.j.mail.example.com"),
        (DEEP, {DEEP: NONE, "example.com": U}, DEEP),
        # but not the organization below a psd=y there
        (DEEP, {REGISTRY: Y, BELOW_REGISTRY: U}, BELOW_REGISTRY),
        (DEEP, {REGISTRY: Y, BELOW_REGISTRY: Y}, BELOW_REGISTRY),
        (DEEP, {REGISTRY: Y, BELOW_REGISTRY: [U, U]}, REGISTRY),
        (DEEP, {REGISTRY: Y}, REGISTRY),
        (DEEP, {REGISTRY: N, BELOW_REGISTRY: U}, REGISTRY),
        (DEEP, {DEEP: NONE, REGISTRY: Y, BELOW_REGISTRY: U}, DEEP),
    ],
)
def test_policy_by_walk(author: str, records: Mapping[str, str], policy_domain: str) -> None:
    """RFC 9989 4.10.1: the author domain's record, else the organizational domain's, else the
    public suffix's."""
    finder, dns = discovery(records)
    search = finder.policy(Domain(author))
    assert found(search) == policy_domain
    assert search.published is None or search.published.discovery_method == "treewalk"
    assert len(dns.calls) <= 8
    assert len(set(dns.calls)) == len(dns.calls)


@pytest.mark.parametrize(
    ("failing", "records", "supposed", "missing"),
    [
        ([BELOW_REGISTRY], {REGISTRY: Y}, REGISTRY, BELOW_REGISTRY),
        ([DEEP], {REGISTRY: Y, BELOW_REGISTRY: U}, BELOW_REGISTRY, DEEP),
        ([DEEP, BELOW_REGISTRY], {REGISTRY: Y}, REGISTRY, DEEP),
        ([REGISTRY], {BELOW_REGISTRY: U, "example.com": NONE}, "example.com", REGISTRY),
    ],
)
def test_the_organization_that_a_walk_leaves_out_is_asked_before_another_record_is_supposed(
    failing: list[str], records: Mapping[str, str], supposed: str, missing: str
) -> None:
    """RFC 9989 4.10.1: its record comes before the public suffix's, and one that does not answer is
    no record of anybody."""
    search = discovery(records, failing)[0].policy(Domain(DEEP))
    assert search.published is None
    assert search.supposed is not None
    assert str(search.supposed.policy_domain) == supposed
    assert search.failed is not None
    assert search.failed.name == f"_dmarc.{missing}"


def test_a_record_of_the_author_domain_needs_no_other() -> None:
    """RFC 9989 4.10.1: then nothing beyond the walk is asked."""
    finder, dns = discovery({DEEP: U, REGISTRY: Y})
    finder.policy(Domain(DEEP))
    assert [call.name for call in dns.calls] == [f"_dmarc.{DEEP}", f"_dmarc.{REGISTRY}"]


@pytest.mark.parametrize(
    ("author", "records", "policy_domain"),
    [
        ("example.com", {}, ""),
        ("example.com", {"example.com": U}, "example.com"),
        ("a.b.example.com", {"example.com": U}, "example.com"),
        ("a.b.example.com", {"b.example.com": U}, ""),
        ("a.b.example.com", {"a.b.example.com": U, "example.com": NONE}, "a.b.example.com"),
        ("a.example.com", {"com": U}, ""),
        ("a.b.example.co.uk", {"example.co.uk": U}, "example.co.uk"),
        ("co.uk", {"co.uk": U}, "co.uk"),
        ("x.github.io", {"github.io": U}, ""),
        ("a.legit.example", {"legit.example": U}, "legit.example"),
        # G.2: several records end discovery
        ("a.example.com", {"a.example.com": [U, NONE], "example.com": U}, ""),
        ("a.example.com", {"example.com": [U, NONE]}, ""),
        ("a.example.com", {"a.example.com": ["v=spf1 -all", "x"], "example.com": U}, "example.com"),
        # psd is not used
        ("a.b.example.com", {"b.example.com": N, "example.com": Y}, "example.com"),
    ],
)
def test_policy_by_public_suffix_list(
    author: str, records: Mapping[str, str], policy_domain: str
) -> None:
    """RFC 7489 6.6.3: the author domain, then the organizational domain; more than one record is
    none."""
    finder, dns = discovery(records, options=PSL)
    search = finder.policy(Domain(author))
    assert found(search) == policy_domain
    assert search.published is None or search.published.discovery_method == "psl"
    assert len(dns.calls) <= 2


@pytest.mark.parametrize("options", [TREEWALK, PSL], ids=["treewalk", "psl"])
@pytest.mark.parametrize(
    ("author", "records", "failing", "policy_domain"),
    [
        ("example.com", {}, ["example.com"], None),
        ("a.example.com", {}, ["a.example.com"], None),
        ("a.example.com", {"example.com": U}, ["a.example.com"], None),
        ("a.example.com", {}, ["example.com"], None),
        ("a.example.com", {"a.example.com": U}, ["example.com"], "a.example.com"),
        ("example.com", {"example.com": U}, ["com"], "example.com"),
    ],
)
def test_a_failed_policy_look_up_is_not_absence(
    options: DmarcOptions,
    author: str,
    records: Mapping[str, str],
    failing: list[str],
    policy_domain: str | None,
) -> None:
    """RFC 9989 5.3.6, DMR-08: only a definite absence means no DMARC; a record that is known needs
    nothing above it."""
    finder, _ = discovery(records, failing, options)
    assert found(finder.policy(Domain(author))) == policy_domain


@pytest.mark.parametrize(
    ("author", "records", "failing", "policy_domain"),
    [
        ("a.b.example.com", {"example.com": U}, ["b.example.com"], None),
        ("a.b.example.com", {"example.com": N}, ["com"], "example.com"),
        ("a.b.example.com", {"b.example.com": N}, ["example.com"], "b.example.com"),
        ("a.b.example.com", {"b.example.com": Y}, ["example.com", "com"], "b.example.com"),
        ("a.b.example.com", {"b.example.com": N}, ["a.b.example.com"], None),
    ],
)
def test_a_failed_step_of_the_walk(
    author: str, records: Mapping[str, str], failing: list[str], policy_domain: str | None
) -> None:
    """A step that might have held psd=n or psd=y leaves the policy unknown; above a certain psd
    nothing is asked."""
    finder, dns = discovery(records, failing)
    assert found(finder.policy(Domain(author))) == policy_domain
    assert (policy_domain is None) == any(
        call.name.removeprefix("_dmarc.") in failing for call in dns.calls
    )


@pytest.mark.parametrize(
    ("author", "records", "failing", "policy_domain"),
    [
        # either way the organization is the same: there is no record, as far as this author is
        # concerned
        ("example.com", {}, ["com"], ""),
        ("example.com", {"example.com": U}, ["com"], "example.com"),
        ("a.b.example.com", {"example.com": U}, ["com"], "example.com"),
        ("a.b.example.com", {"example.com": U, "b.example.com": NONE}, ["com"], "example.com"),
        ("a.example.co.uk", {"example.co.uk": U}, ["co.uk"], "example.co.uk"),
        ("a.example.co.uk", {"example.co.uk": U}, ["uk"], "example.co.uk"),
        ("a.example.co.uk", {"example.co.uk": U}, ["co.uk", "uk"], "example.co.uk"),
        ("example.co.uk", {}, ["co.uk", "uk"], ""),
        ("example.co.uk", {}, ["co.uk"], ""),
        ("a.b.kobe.jp", {"b.kobe.jp": NONE}, ["kobe.jp", "jp"], "b.kobe.jp"),
        (DEEP, {"example.com": U}, ["com"], "example.com"),
        # not the same
        ("a.example.com", {}, ["com"], None),
        ("a.example.com", {"a.example.com": [U, U]}, ["com"], None),
        ("a.example.co.uk", {}, ["co.uk"], None),
        ("a.b.github.io", {"b.github.io": U}, ["github.io"], None),
        # the author's own record, and one below a public suffix, may say anything
        ("com", {}, ["com"], None),
        ("co.uk", {"uk": Y}, ["co.uk"], None),
        ("a.example.com", {}, ["example.com", "com"], None),
    ],
)
@pytest.mark.parametrize("options", [TREEWALK, UNGUARDED], ids=["guard", "no guard"])
def test_a_failing_public_suffix_is_no_record_where_that_makes_no_difference(
    options: DmarcOptions,
    author: str,
    records: Mapping[str, str],
    failing: list[str],
    policy_domain: str | None,
) -> None:
    """docs/design.md, Decisions: a broken country-code domain must not leave open what everybody
    below it asks for."""
    finder, _ = discovery(records, failing, options)
    assert found(finder.policy(Domain(author))) == policy_domain


@pytest.mark.parametrize(
    ("author", "records", "failing", "options", "supposed"),
    [
        ("a.example.com", {"example.com": U}, ["a.example.com"], TREEWALK, "example.com"),
        ("a.b.example.com", {"example.com": U}, ["b.example.com"], TREEWALK, "example.com"),
        ("a.b.example.com", {"b.example.com": U}, ["example.com"], TREEWALK, "b.example.com"),
        (
            "a.b.example.com",
            {"example.com": U, "b.example.com": NONE},
            ["a.b.example.com"],
            TREEWALK,
            "example.com",
        ),
        ("a.b.example.com", {"b.example.com": N}, ["a.b.example.com"], TREEWALK, "b.example.com"),
        ("a.example.com", {"com": Y}, ["a.example.com"], TREEWALK, "com"),
        ("a.example.com", {"com": Y}, ["example.com"], TREEWALK, "com"),
        (
            "a.b.example.com",
            {"example.com": U},
            ["a.b.example.com", "b.example.com"],
            TREEWALK,
            "example.com",
        ),
        (
            DEEP,
            {"example.com": U},
            [DEEP, "mail.example.com", "j.mail.example.com", "i.j.mail.example.com"],
            TREEWALK,
            "example.com",
        ),
        ("co.uk", {"uk": Y}, ["co.uk"], TREEWALK, "uk"),
        ("a.b.github.io", {"b.github.io": U}, ["github.io"], TREEWALK, "b.github.io"),
        ("example.com", {}, ["example.com"], TREEWALK, None),
        ("a.example.com", {}, ["a.example.com"], TREEWALK, None),
        ("a.example.com", {"a.example.com": U}, ["a.example.com"], TREEWALK, None),
        ("a.example.com", {"example.com": [U, U]}, ["a.example.com"], TREEWALK, None),
        ("a.b.example.com", {"example.com": U}, ["a.b.example.com"], PSL, "example.com"),
        ("a.b.example.co.uk", {"example.co.uk": U}, ["a.b.example.co.uk"], PSL, "example.co.uk"),
        ("a.example.com", {"example.com": [U, U]}, ["a.example.com"], PSL, None),
        ("a.example.com", {}, ["example.com"], PSL, None),
        ("example.com", {}, ["example.com"], PSL, None),
    ],
)
def test_what_is_known_of_a_policy_where_an_answer_is_missing(
    author: str,
    records: Mapping[str, str],
    failing: list[str],
    options: DmarcOptions,
    supposed: str | None,
) -> None:
    """on_temperror: the record that answered and would decide if there were none where the DNS
    failed; and the name that failed."""
    finder, _ = discovery(records, failing, options)
    search = finder.policy(Domain(author))
    assert search.published is None
    assert search.failed is not None
    assert search.failed.kind == "dns"
    assert search.failed.name.removeprefix("_dmarc.") in failing
    assert (str(search.supposed.policy_domain) if search.supposed else None) == supposed


@pytest.mark.parametrize(
    ("author", "records", "policy_domain"),
    [
        ("a.x.co.uk", {"uk": U}, "uk"),
        ("a.x.co.uk", {"uk": U, "x.co.uk": NONE}, "x.co.uk"),
        ("a.x.co.uk", {"uk": U, "co.uk": NONE, "x.co.uk": U}, "x.co.uk"),
        ("a.x.co.uk", {"uk": U, "co.uk": NONE}, "co.uk"),
        ("co.uk", {"uk": U}, "uk"),
        ("a.x.g.city.jp", {"city.jp": U, "jp": NONE}, "city.jp"),
        ("a.x.g.city.jp", {"city.jp": U, "x.g.city.jp": NONE}, "x.g.city.jp"),
    ],
)
def test_a_policy_above_a_public_suffix_is_the_last_to_be_asked(
    author: str, records: Mapping[str, str], policy_domain: str
) -> None:
    """RFC 9989 4.10.1 with psl_guard: the organization's own record, which the letter of 4.10.2
    would pass over, comes first."""
    finder, _ = discovery(records)
    assert found(finder.policy(Domain(author))) == policy_domain


def test_without_the_guard_the_letter_counts() -> None:
    """RFC 9989 4.10.2: one label below psd=y, or the fewest labels, whatever the list says."""
    for record, organization in ((U, "uk"), (Y, "co.uk")):
        finder, _ = discovery({"uk": record}, options=UNGUARDED)
        assert str(finder.walk(Domain("a.x.co.uk")).organizational_domain()) == organization


@pytest.mark.parametrize(
    ("start", "records", "failing", "possible"),
    [
        ("a.example.com", {}, ["a.example.com"], "a.example.com"),
        ("a.example.com", {}, ["example.com"], "a.example.com example.com"),
        ("a.example.com", {}, ["com"], "a.example.com example.com com"),
        ("a.example.com", {"a.example.com": U}, ["example.com"], "a.example.com example.com"),
        ("a.example.com", {"example.com": U}, ["a.example.com"], "a.example.com example.com"),
        (
            "a.b.example.com",
            {"example.com": U},
            ["b.example.com"],
            "a.b.example.com b.example.com example.com",
        ),
        (
            "a.b.example.com",
            {"example.com": Y},
            ["a.b.example.com"],
            "a.b.example.com b.example.com",
        ),
        (
            "a.b.example.com",
            {"com": Y},
            ["b.example.com"],
            "a.b.example.com b.example.com example.com",
        ),
        ("a.example.com", {"example.com": N}, ["com"], "example.com"),
        ("a.x.co.uk", {"uk": Y}, ["x.co.uk"], "a.x.co.uk x.co.uk"),
        ("a.x.co.uk", {"uk": U}, ["a.x.co.uk"], "a.x.co.uk x.co.uk"),
        ("a.x.g.city.jp", {}, ["city.jp"], "a.x.g.city.jp x.g.city.jp city.jp"),
    ],
)
def test_where_a_walk_with_missing_answers_can_end(
    start: str, records: Mapping[str, str], failing: list[str], possible: str
) -> None:
    """Every organizational domain that some answer would give, and no other."""
    finder, _ = discovery(records, failing)
    walk = finder.walk(Domain(start))
    assert {domain.name for domain in walk.possible_organizational_domains()} == set(
        possible.split()
    )


@given(
    st.lists(st.sampled_from(["", U, Y, N, "FAIL"]), min_size=4, max_size=4),
    st.sampled_from(["a.b.example.com", "b.example.com"]),
    st.booleans(),
)
def test_possible_ends_are_what_the_possible_answers_give(
    answers: list[str], start: str, guard: bool
) -> None:
    """The set is exactly the organizational domains over all completions of the missing answers."""
    names = ["a.b.example.com", "b.example.com", "example.com", "com"]
    known = {
        name: text for name, text in zip(names, answers, strict=True) if text not in ("", "FAIL")
    }
    failing = [name for name, text in zip(names, answers, strict=True) if text == "FAIL"]
    options = DmarcOptions(psl_guard=guard)

    def ends(completed: Mapping[str, str], missing: list[str]) -> set[Domain | None]:
        if missing:
            name, *rest = missing
            return set().union(
                *(
                    ends({**completed, name: text} if text else completed, rest)
                    for text in ("", U, Y, N)
                )
            )
        return {
            discovery(completed, options=options)[0].walk(Domain(start)).organizational_domain()
        }

    finder, _ = discovery(known, failing, options)
    assert finder.walk(Domain(start)).possible_organizational_domains() == ends(known, failing)


def test_all_questions_of_a_walk_are_known_before_the_first_answer() -> None:
    """The early prefetch asks for what the walk asks, and the walk hints it itself."""
    asked = questions(Domain(DEEP))
    finder, dns = discovery({})
    finder.policy(Domain(DEEP))
    assert list(asked) == dns.calls == dns.prefetched
    assert len(asked) == 8


def test_questions_by_public_suffix_list() -> None:
    """RFC 7489 6.6.3: two names."""
    asked = questions(Domain("a.b.example.co.uk"), PSL, SUFFIXES)
    assert asked == (
        Question("_dmarc.a.b.example.co.uk", "TXT"),
        Question("_dmarc.example.co.uk", "TXT"),
    )
    assert questions(Domain("example.com"), PSL, SUFFIXES) == (
        Question("_dmarc.example.com", "TXT"),
    )
    assert (
        questions(Domain("com"))
        == questions(Domain("com"), PSL, SUFFIXES)
        == (Question("_dmarc.com", "TXT"),)
    )


@pytest.mark.parametrize(
    "top",
    ["localhost", "local", "localdomain", "invalid", "test", "onion", "home.arpa", "internal"],
)
@pytest.mark.parametrize("options", [TREEWALK, PSL], ids=["treewalk", "psl"])
def test_special_use_names_are_never_asked(top: str, options: DmarcOptions) -> None:
    """RFC 6761, 6762, 7686, 8375: they are not in the DNS, at or below."""
    for name in (top, f"a.{top}", f"a.b.c.{top}"):
        assert questions(Domain(name), options, SUFFIXES) == ()
    for name in (f"x{top}", f"{top}.example", "arpa"):
        assert questions(Domain(name), options, SUFFIXES) != ()


def test_a_name_is_asked_once_for_a_message() -> None:
    """Walks of one message share their steps."""
    finder, dns = discovery({"example.com": U})
    for start in ("a.example.com", "b.example.com", "a.example.com", "example.com"):
        finder.walk(Domain(start))
    assert sorted(dns.asked()) == [
        "_dmarc.a.example.com",
        "_dmarc.b.example.com",
        "_dmarc.com",
        "_dmarc.example.com",
    ]


def test_the_trace_tells_each_step() -> None:
    """For `check`, `why` and `domain`: every query in order, and what was done with its answer."""
    finder, _ = discovery(
        {"b.example.com": [U, U], "example.com": U, "com": NONE}, ["a.b.example.com"]
    )
    assert finder.policy(Domain("a.b.example.com")).trace == (
        "_dmarc.a.b.example.com: the DNS did not answer",
        "_dmarc.b.example.com: 2 DMARC records, all discarded",
        "_dmarc.example.com: v=DMARC1; p=reject",
        "_dmarc.com: v=DMARC1; p=none (counts as psd=y: com is a public suffix)",
    )


def test_repeated_records_are_an_error_of_the_policy_domain() -> None:
    """RFC 9990 3: reports say so; what lies above the policy domain is not its concern."""
    finder, _ = discovery(
        {"a.b.example.com": [U, U], "b.example.com": [U, U], "example.com": U, "com": [Y, Y]}
    )
    published = finder.policy(Domain("a.b.example.com")).published
    assert published is not None
    assert published.errors == (
        "multiple records at _dmarc.a.b.example.com",
        "multiple records at _dmarc.b.example.com",
    )


def test_the_search_list_is_never_consulted_and_long_names_are_asked_by_label() -> None:
    """DMR-14: names are absolute. DMR-07: a hundred labels cost eight questions."""
    finder, dns = discovery({})
    finder.policy(Domain("a." * 98 + "example.com"))
    assert len(dns.calls) == 8
    assert dns.asked()[-1] == "_dmarc.com"


def test_a_wildcard_answers_as_the_name_itself() -> None:
    """DMR-11: *.legit.example TXT is what _dmarc.x.legit.example says."""
    finder = Discovery(
        Zone({"*.legit.example": {"TXT": [NONE]}, "_dmarc.legit.example": {"TXT": [U]}})
    )
    assert found(finder.policy(Domain("x.legit.example"))) == "x.legit.example"


def test_character_strings_are_joined_and_cnames_followed() -> None:
    """RFC 7489 6.1; DMR-12: a CNAME that leads nowhere is no record, a loop is a failure."""
    dns = Zone(
        {
            "_dmarc.a.example": {"CNAME": ["there.example"]},
            "there.example": {"TXT": [("v=DMARC1; p=", "reject")]},
            "_dmarc.b.example": {"CNAME": ["nowhere.example"]},
            "_dmarc.c.example": {"CNAME": ["_dmarc.c.example"]},
        }
    )
    assert [
        found(Discovery(dns).policy(Domain(name)))
        for name in ("a.example", "b.example", "c.example")
    ] == ["a.example", "", None]
