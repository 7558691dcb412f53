"""DMARC for a message: RFC 9989 4.4, 4.7, 5.3; which DNS failures prevent a verdict (
C.4; DMR-01..13; G.3, G.5, G.6)."""

from collections.abc import Iterable, Mapping

import pytest

from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.evaluate import DmarcOptions, evaluate
from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.resolver import LimitExceeded, LookupFailed, Missing, Resolver
from dmarc_milter.core.spf.check import SpfResult, SpfStatus
from fakes.dns_zone import Zone
from fakes.suffixes import ListedSuffixes

NONE, PASS, FAIL, TEMPERROR = (
    DmarcStatus.NONE,
    DmarcStatus.PASS,
    DmarcStatus.FAIL,
    DmarcStatus.TEMPERROR,
)
TREEWALK, PSL = DmarcOptions(), DmarcOptions(discovery="psl")
SUFFIXES = ListedSuffixes()
REJECT = "v=DMARC1; p=reject"
LEGIT = {"legit.example": REJECT}


Others = Mapping[str, Mapping[str, list[str]]]


def zone(
    records: Mapping[str, str | list[str]],
    failing: Iterable[str] = (),
    others: Others | None = None,
) -> Zone:
    """DMARC records at names without `_dmarc`; `failing` are `_dmarc` names too, `others` any
    records."""
    dns = Zone(
        {
            f"_dmarc.{name}": {"TXT": [text] if isinstance(text, str) else text}
            for name, text in records.items()
        }
    )
    for name in failing:
        dns.fail(f"_dmarc.{name}")
    for name, types in (others or {}).items():
        for rdtype, values in types.items():
            dns.add(name, rdtype, *values)
    return dns


def spf(words: str) -> SpfResult:
    """`pass attack.example`, `none`, `temperror a.example helo`."""
    status, name, *identity = [*words.split(), "", ""][:3]
    return SpfResult(
        SpfStatus(status),
        Domain(name) if name else None,
        "helo" if "helo" in identity else "mailfrom",
    )


def dkim(words: str) -> tuple[DkimResult, ...]:
    """`pass a.example, fail b.example, testing c.example, hopeless d.example`; hopeless: a
    temperror that could not have counted."""
    results = []
    for each in filter(None, words.split(", ")):
        status, name = each.split()
        testing, hopeless = status == "testing", status == "hopeless"
        word = (
            DkimStatus.POLICY
            if testing
            else DkimStatus.TEMPERROR
            if hopeless
            else DkimStatus(status)
        )
        results.append(DkimResult(word, Domain(name), "sel", testing=testing, hopeless=hopeless))
    return tuple(results)


def judge(
    author: str,
    records: Resolver | Mapping[str, str],
    spf_words: str = "none",
    dkim_words: str = "",
    options: DmarcOptions = TREEWALK,
) -> DomainOutcome:
    """The outcome for a well-formed author."""
    dns = zone(records) if isinstance(records, Mapping) else records
    result = evaluate(
        Author(Domain(author)), spf(spf_words), dkim(dkim_words), dns, options, SUFFIXES
    )
    assert result.outcome is not None
    assert result.status is result.outcome.status
    assert result.candidates == ()
    return result.outcome


STRICT = {"strict.example": "v=DMARC1; p=reject; adkim=s; aspf=s"}
BANK = {"bank.example": "v=DMARC1; p=none; psd=y", "giant.bank.example": REJECT}


@pytest.mark.parametrize(
    ("author", "records", "spf_words", "dkim_words", "status"),
    [
        # nothing passed
        ("legit.example", LEGIT, "none", "", FAIL),
        ("legit.example", LEGIT, "fail legit.example", "", FAIL),
        ("legit.example", LEGIT, "softfail legit.example", "fail legit.example", FAIL),
        ("legit.example", LEGIT, "neutral legit.example", "permerror legit.example", FAIL),
        ("legit.example", LEGIT, "permerror legit.example", "policy legit.example", FAIL),
        ("legit.example", LEGIT, "policy legit.example", "", FAIL),
        ("legit.example", LEGIT, "none", "testing legit.example", FAIL),
        # the same name
        ("legit.example", LEGIT, "pass legit.example", "", PASS),
        ("legit.example", LEGIT, "none", "pass legit.example", PASS),
        ("legit.example", LEGIT, "pass legit.example helo", "", PASS),
        # one of several is enough, in any order (WL-07)
        (
            "legit.example",
            LEGIT,
            "pass attack.example",
            "pass attack.example, fail legit.example",
            FAIL,
        ),
        (
            "legit.example",
            LEGIT,
            "pass attack.example",
            "fail legit.example, pass attack.example",
            FAIL,
        ),
        (
            "legit.example",
            LEGIT,
            "fail attack.example",
            "pass attack.example, pass legit.example",
            PASS,
        ),
        # relaxed alignment, both ways (7489 3.1)
        ("legit.example", LEGIT, "none", "pass mail.legit.example", PASS),
        ("legit.example", LEGIT, "pass bounce.mail.legit.example", "", PASS),
        ("a.legit.example", LEGIT, "none", "pass legit.example", PASS),
        ("a.legit.example", LEGIT, "none", "pass b.legit.example", PASS),
        (
            "a.legit.example",
            {**LEGIT, "a.legit.example": REJECT},
            "none",
            "pass b.legit.example",
            PASS,
        ),
        # names that only look alike
        ("legit.example", LEGIT, "pass notlegit.example", "pass legit.example.attack.com", FAIL),
        ("legit.example", LEGIT, "pass example", "pass com", FAIL),
        # strict (DMR-01)
        ("strict.example", STRICT, "pass strict.example", "", PASS),
        ("strict.example", STRICT, "none", "pass strict.example", PASS),
        ("strict.example", STRICT, "pass sub.strict.example", "pass sub.strict.example", FAIL),
        ("sub.strict.example", STRICT, "pass strict.example", "pass strict.example", FAIL),
        ("sub.strict.example", STRICT, "pass sub.strict.example", "", PASS),
        ("a.example", {"a.example": "v=DMARC1; p=reject; adkim=s"}, "pass b.a.example", "", PASS),
        (
            "a.example",
            {"a.example": "v=DMARC1; p=reject; adkim=s"},
            "none",
            "pass b.a.example",
            FAIL,
        ),
        ("a.example", {"a.example": "v=DMARC1; p=reject; aspf=s"}, "pass b.a.example", "", FAIL),
        (
            "a.example",
            {"a.example": "v=DMARC1; p=reject; aspf=s"},
            "none",
            "pass b.a.example",
            PASS,
        ),
        # public suffixes (DMR-02)
        ("evil.co.uk", {"evil.co.uk": REJECT}, "none", "pass co.uk, pass other.co.uk", FAIL),
        ("x.github.io", {"x.github.io": REJECT}, "none", "pass y.github.io, pass github.io", FAIL),
        ("a.com", {"a.com": REJECT, "com": REJECT}, "none", "pass b.com, pass com", FAIL),
        ("x.co.uk", {"uk": REJECT}, "pass y.co.uk", "pass co.uk", FAIL),
        (
            "x.co.uk",
            {"uk": f"{REJECT}; psd=y", "x.co.uk": REJECT},
            "pass y.co.uk",
            "pass co.uk",
            FAIL,
        ),
        ("co.uk", {"uk": REJECT}, "pass y.co.uk", "", FAIL),
        ("a.x.co.uk", {"uk": REJECT}, "none", "pass b.x.co.uk", PASS),
        # psd (RFC 9989 B.4)
        ("giant.bank.example", BANK, "none", "pass mail.giant.bank.example", PASS),
        (
            "giant.bank.example",
            BANK,
            "none",
            "pass mail.mega.bank.example, pass bank.example",
            FAIL,
        ),
        ("bank.example", BANK, "none", "pass giant.bank.example", FAIL),
        (
            "a.legit.example",
            {**LEGIT, "a.legit.example": "v=DMARC1; p=reject; psd=n"},
            "none",
            "pass legit.example",
            FAIL,
        ),
        (
            "a.legit.example",
            {**LEGIT, "a.legit.example": "v=DMARC1; p=reject; psd=n"},
            "none",
            "pass b.a.legit.example",
            PASS,
        ),
        (
            "legit.example",
            {**LEGIT, "a.legit.example": "v=DMARC1; p=reject; psd=n"},
            "none",
            "pass b.a.legit.example",
            FAIL,
        ),
        # no policy, no DMARC
        ("legit.example", {}, "pass legit.example", "pass legit.example", NONE),
        ("legit.example", {"legit.example": "v=spf1 -all"}, "none", "", NONE),
        ("legit.example", {"legit.example": [REJECT, REJECT]}, "none", "", NONE),
        # no policy in the record (DMR-05, G.3)
        ("legit.example", {"legit.example": "v=DMARC1"}, "none", "", NONE),
        ("legit.example", {"legit.example": "v=DMARC1; p=xx"}, "pass legit.example", "", NONE),
        ("legit.example", {"legit.example": "v=DMARC1; p=reject; sp=xx"}, "none", "", NONE),
        (
            "legit.example",
            {"legit.example": "v=DMARC1; rua=mailto:a@legit.example"},
            "none",
            "",
            FAIL,
        ),
        (
            "legit.example",
            {"legit.example": "v=DMARC1; p=xx; rua=mailto:a@legit.example"},
            "pass legit.example",
            "",
            PASS,
        ),
        ("a.legit.example", {"legit.example": "v=DMARC1; p=reject; np=xx"}, "none", "", NONE),
        # the deep end: an identifier and an author of many labels
        ("legit.example", LEGIT, "none", "pass a.b.c.d.e.f.g.h.i.legit.example", PASS),
        ("a.b.c.d.e.f.g.h.i.legit.example", LEGIT, "none", "pass legit.example", PASS),
        # a single label has a policy of its own (RFC 9989 4.10.1); special-use names are in no DNS
        # (RFC 6761)
        ("localhost", {"localhost": REJECT}, "pass localhost", "pass localhost", NONE),
        ("a.internal", {"internal": REJECT, "a.internal": REJECT}, "none", "", NONE),
        ("example", {"example": REJECT}, "none", "", FAIL),
        ("example", {"example": f"{REJECT}; psd=y"}, "none", "pass legit.example", FAIL),
        ("example", {"example": "v=DMARC1; p=reject; psd=n"}, "none", "pass legit.example", PASS),
        ("example", {"example": REJECT}, "none", "pass example", PASS),
        ("example", {}, "none", "", NONE),
    ],
)
def test_pass_or_fail(
    author: str, records: Mapping[str, str], spf_words: str, dkim_words: str, status: DmarcStatus
) -> None:
    """RFC 9989 4.4, 5.3.5: pass when an identifier that passed is aligned with the author
    domain."""
    outcome = judge(author, records, spf_words, dkim_words)
    assert outcome.status is status
    assert (outcome.spf_aligned or outcome.dkim_aligned) is (status is PASS)
    assert (outcome.published is None) is (status is NONE)
    assert outcome.reason


@pytest.mark.parametrize(
    ("author", "records", "dkim_words", "status"),
    [
        ("legit.example", LEGIT, "pass mail.legit.example", PASS),
        ("a.legit.example", LEGIT, "pass b.legit.example", PASS),
        ("a.b.example.co.uk", {"example.co.uk": REJECT}, "pass c.example.co.uk", PASS),
        ("evil.co.uk", {"evil.co.uk": REJECT}, "pass co.uk", FAIL),
        ("evil.co.uk", {"evil.co.uk": REJECT}, "pass other.co.uk", FAIL),
        ("x.github.io", {"x.github.io": REJECT}, "pass y.github.io", FAIL),
        ("uk.com", {"uk.com": REJECT}, "pass evil.uk.com", FAIL),
        ("co.uk", {"co.uk": REJECT}, "pass co.uk", PASS),
        ("strict.example", STRICT, "pass sub.strict.example", FAIL),
        (
            "a.legit.example",
            {**LEGIT, "a.legit.example": "v=DMARC1; p=reject; psd=n"},
            "pass b.legit.example",
            PASS,
        ),
        ("a.legit.example", {"a.legit.example": [REJECT, REJECT], **LEGIT}, "", NONE),
    ],
)
def test_pass_or_fail_by_public_suffix_list(
    author: str, records: Mapping[str, str], dkim_words: str, status: DmarcStatus
) -> None:
    """RFC 7489 3.2: the organizational domain by the list; psd plays no part."""
    assert judge(author, records, "none", dkim_words, PSL).status is status


def test_both_methods_are_reported_for_themselves() -> None:
    """RFC 9990: policy_evaluated says of each whether it gave an aligned pass."""
    outcome = judge("legit.example", LEGIT, "pass mail.legit.example", "pass attack.example")
    assert (outcome.spf_aligned, outcome.dkim_aligned) == (True, False)
    outcome = judge(
        "legit.example", LEGIT, "pass attack.example", "pass attack.example, pass legit.example"
    )
    assert (outcome.spf_aligned, outcome.dkim_aligned) == (False, True)
    assert [(each.method, str(each.domain), each.aligned) for each in outcome.identifiers] == [
        ("spf", "attack.example", False),
        ("dkim", "attack.example", False),
        ("dkim", "legit.example", True),
    ]


EXISTS = {"sub.legit.example": {"A": ["192.0.2.1"]}}
UNDER = {"x.sub.legit.example": {"A": ["192.0.2.1"]}}
NP = "v=DMARC1; p=quarantine; sp=none; np=reject"


@pytest.mark.parametrize("options", [TREEWALK, PSL], ids=["treewalk", "psl"])
@pytest.mark.parametrize(
    ("author", "record", "others", "policy", "tag"),
    [
        ("legit.example", "v=DMARC1; p=reject; sp=none; np=none", {}, "reject", "p"),
        ("sub.legit.example", "v=DMARC1; p=reject", {}, "reject", "p"),
        ("sub.legit.example", "v=DMARC1; p=reject; sp=none", EXISTS, "none", "sp"),
        ("sub.legit.example", "v=DMARC1; p=none; sp=quarantine", {}, "quarantine", "sp"),
        ("sub.legit.example", NP, EXISTS, "none", "sp"),
        ("sub.legit.example", NP, {}, "reject", "np"),
        ("sub.legit.example", NP, UNDER, "none", "sp"),
        ("sub.legit.example", NP, {"sub.legit.example": {"TXT": ["x"]}}, "none", "sp"),
        ("sub.legit.example", NP, {"sub.legit.example": {"CNAME": ["gone.example"]}}, "none", "sp"),
        (
            "sub.legit.example",
            "v=DMARC1; p=reject; np=none",
            {"sub.legit.example": {"CNAME": ["gone.example"]}},
            "reject",
            "p",
        ),
        ("sub.legit.example", "v=DMARC1; p=reject; np=none", {}, "none", "np"),
        ("sub.legit.example", "v=DMARC1; p=reject; np=none", EXISTS, "reject", "p"),
        ("sub.legit.example", "v=DMARC1; sp=reject; rua=mailto:a@legit.example", {}, "none", "p"),
        (
            "sub.legit.example",
            "v=DMARC1; p=reject; sp=bad; rua=mailto:a@legit.example",
            {},
            "none",
            "p",
        ),
        (
            "sub.legit.example",
            "v=DMARC1; p=reject; np=bad; rua=mailto:a@legit.example",
            EXISTS,
            "none",
            "p",
        ),
        (
            "legit.example",
            "v=DMARC1; p=bad; sp=reject; rua=mailto:a@legit.example",
            {},
            "none",
            "p",
        ),
    ],
)
def test_which_policy_applies(
    options: DmarcOptions, author: str, record: str, others: Others, policy: str, tag: str
) -> None:
    """RFC 9989 4.7, 4.10.1: p at the name itself; below it np if it does not exist (NXDOMAIN only:
    G.6, DMR-10), else sp, else p.

    An alias exists whatever becomes of its target (RFC 6604 3, RFC 8020 2).
    """
    outcome = judge(author, zone({"legit.example": record}, others=others), options=options)
    assert (outcome.policy, outcome.policy_tag) == (Policy(policy), tag)
    assert outcome.status is FAIL


@pytest.mark.parametrize(
    ("author", "records", "policy", "policy_domain"),
    [
        (
            "a.b.example.com",
            {"b.example.com": "v=DMARC1; p=none", "example.com": "v=DMARC1; p=none; sp=reject"},
            "reject",
            "example.com",
        ),
        (
            "sub.example.com",
            {"sub.example.com": "v=DMARC1; p=none; sp=reject", "example.com": REJECT},
            "none",
            "sub.example.com",
        ),
        ("a.example.com", {"com": "v=DMARC1; p=none; sp=quarantine; psd=y"}, "quarantine", "com"),
        (
            "a.example.com",
            {"example.com": "v=DMARC1; p=none", "com": "v=DMARC1; p=reject; psd=y"},
            "none",
            "example.com",
        ),
        (
            "nx.bank.example",
            {"bank.example": "v=DMARC1; p=none; sp=none; np=reject; psd=y"},
            "reject",
            "bank.example",
        ),
    ],
)
def test_where_the_policy_comes_from(
    author: str, records: Mapping[str, str], policy: str, policy_domain: str
) -> None:
    """RFC 9989 4.10.1; divergence G.1."""
    outcome = judge(author, records)
    assert outcome.policy == policy
    assert outcome.published is not None
    assert str(outcome.published.policy_domain) == policy_domain


def test_existence_that_cannot_be_looked_up_counts_as_existing() -> None:
    """RFC 9989 4.7: SERVFAIL is not NXDOMAIN."""
    dns = zone({"legit.example": NP})
    dns.fail("nx.legit.example", "A")
    outcome = judge("nx.legit.example", dns)
    assert (outcome.policy, outcome.policy_tag) == (Policy.NONE, "sp")
    assert (outcome.status, outcome.unsure, outcome.missing) == (
        TEMPERROR,
        Policy.REJECT,
        Missing("dns", "nx.legit.example"),
    )
    assert judge("nx.legit.example", dns, "pass nx.legit.example").status is PASS


@pytest.mark.parametrize(
    "record",
    ["v=DMARC1; p=reject; np=none", "v=DMARC1; p=quarantine; sp=reject; np=quarantine", REJECT],
)
def test_existence_that_could_only_soften_the_policy_leaves_nothing_open(record: str) -> None:
    """docs/design.md, Decisions: whoever makes up names at a lame delegation gains nothing."""
    dns = zone({"legit.example": record})
    dns.fail("nx.legit.example", "A")
    outcome = judge("nx.legit.example", dns)
    assert (outcome.status, outcome.policy, outcome.missing) == (FAIL, Policy.REJECT, None)


@pytest.mark.parametrize(
    ("author", "failing", "spf_words", "dkim_words", "name"),
    [
        ("legit.example", ["legit.example"], "none", "", "_dmarc.legit.example"),
        ("a.legit.example", ["a.legit.example"], "none", "", "_dmarc.a.legit.example"),
        (
            "a.b.legit.example",
            ["b.legit.example"],
            "none",
            "pass legit.example",
            "_dmarc.b.legit.example",
        ),
        (
            "legit.example",
            ["mail.legit.example"],
            "none",
            "pass mail.legit.example",
            "_dmarc.mail.legit.example",
        ),
    ],
)
def test_the_name_that_left_the_verdict_open_is_told(
    author: str, failing: list[str], spf_words: str, dkim_words: str, name: str
) -> None:
    """For the reply, the log and the ledger."""
    outcome = judge(author, zone(LEGIT, failing), spf_words, dkim_words)
    assert (outcome.status, outcome.missing) == (TEMPERROR, Missing("dns", name))


def test_existence_is_asked_only_where_np_could_decide() -> None:
    """One query of one type, and none for the record's own name, without np, or without a
    record."""
    for author, record in (("legit.example", NP), ("sub.legit.example", REJECT)):
        dns = zone({"legit.example": record})
        judge(author, dns)
        assert dns.asked("A") == []
    dns = zone({"legit.example": NP})
    judge("sub.legit.example", dns)
    assert dns.asked("A") == ["sub.legit.example"]
    assert dns.asked("AAAA") == dns.asked("MX") == []


# --- DNS failures (docs/design.md, Decisions; RFC 9989 5.3.6; DMR-08, DMR-09, DMR-12)

SUB = {**LEGIT, "a.legit.example": "v=DMARC1; p=quarantine"}


@pytest.mark.parametrize(
    ("author", "records", "failing", "spf_words", "dkim_words", "status"),
    [
        # the policy cannot be looked up: nothing can be said, whatever passed
        ("legit.example", {}, ["legit.example"], "none", "", TEMPERROR),
        (
            "legit.example",
            {},
            ["legit.example"],
            "pass legit.example",
            "pass legit.example",
            TEMPERROR,
        ),
        ("a.legit.example", {}, ["legit.example"], "pass attack.example", "", TEMPERROR),
        ("a.legit.example", LEGIT, ["a.legit.example"], "none", "", TEMPERROR),
        ("a.b.legit.example", LEGIT, ["b.legit.example"], "none", "", TEMPERROR),
        ("a.legit.example", LEGIT, ["example"], "none", "", FAIL),
        ("a.legit.example", LEGIT, ["example"], "none", "pass legit.example", PASS),
        ("legit.example", {}, ["example"], "none", "", NONE),
        # the author domain itself is aligned by whichever record
        ("a.legit.example", LEGIT, ["a.legit.example"], "pass a.legit.example", "", PASS),
        ("a.b.legit.example", LEGIT, ["b.legit.example"], "none", "pass a.b.legit.example", PASS),
        ("a.legit.example", LEGIT, ["a.legit.example"], "none", "pass legit.example", TEMPERROR),
        (
            "a.legit.example",
            LEGIT,
            ["a.legit.example"],
            "none",
            "temperror a.legit.example",
            TEMPERROR,
        ),
        # the policy is known: the rest of the walk matters only where it decides
        ("legit.example", LEGIT, ["example"], "none", "", FAIL),
        ("legit.example", LEGIT, ["example"], "pass legit.example", "", PASS),
        (
            "a.legit.example",
            SUB,
            ["legit.example"],
            "pass attack.example",
            "pass attack.example",
            FAIL,
        ),
        ("a.legit.example", SUB, ["legit.example"], "none", "pass a.legit.example", PASS),
        ("a.legit.example", SUB, ["legit.example"], "none", "pass legit.example", TEMPERROR),
        ("a.legit.example", SUB, ["legit.example"], "none", "pass b.legit.example", TEMPERROR),
        ("a.legit.example", SUB, ["legit.example"], "none", "pass attack.com", FAIL),
        # whatever the missing answer is, both are one organization
        ("a.legit.example", SUB, ["legit.example"], "none", "pass x.a.legit.example", PASS),
        ("a.legit.example", SUB, ["example"], "none", "pass legit.example", PASS),
        # an identifier's own walk
        ("legit.example", LEGIT, ["mail.legit.example"], "pass mail.legit.example", "", TEMPERROR),
        (
            "legit.example",
            LEGIT,
            ["mail.legit.example"],
            "none",
            "pass x.mail.legit.example",
            TEMPERROR,
        ),
        (
            "legit.example",
            LEGIT,
            ["x.mail.legit.example"],
            "none",
            "pass x.mail.legit.example",
            TEMPERROR,
        ),
        (
            "legit.example",
            LEGIT,
            ["mail.legit.example"],
            "pass mail.legit.example",
            "pass legit.example",
            PASS,
        ),
        ("legit.example", LEGIT, ["mail.legit.example"], "fail mail.legit.example", "", FAIL),
        ("strict.example", STRICT, ["sub.strict.example"], "pass sub.strict.example", "", FAIL),
        # an attacker's DNS that fails on purpose
        (
            "legit.example",
            LEGIT,
            ["attack.example"],
            "pass attack.example",
            "pass attack.example",
            FAIL,
        ),
        (
            "legit.example",
            LEGIT,
            ["attack.com", "com"],
            "pass attack.com",
            "pass mail.attack.com",
            FAIL,
        ),
        # SPF and keys that could not be looked up (DMR-09)
        ("legit.example", LEGIT, [], "temperror legit.example", "", TEMPERROR),
        ("legit.example", LEGIT, [], "temperror legit.example helo", "", TEMPERROR),
        ("legit.example", LEGIT, [], "temperror mail.legit.example", "", TEMPERROR),
        ("legit.example", LEGIT, [], "temperror legit.example", "pass legit.example", PASS),
        ("legit.example", LEGIT, [], "pass attack.example", "temperror legit.example", TEMPERROR),
        (
            "legit.example",
            LEGIT,
            [],
            "pass attack.example",
            "temperror mail.legit.example",
            TEMPERROR,
        ),
        ("legit.example", LEGIT, [], "pass mail.legit.example", "temperror legit.example", PASS),
        (
            "legit.example",
            LEGIT,
            ["mail.legit.example"],
            "none",
            "temperror mail.legit.example",
            TEMPERROR,
        ),
        # the unaligned twins
        ("legit.example", LEGIT, [], "temperror attack.example", "", FAIL),
        ("legit.example", LEGIT, [], "none", "hopeless legit.example", FAIL),
        (
            "legit.example",
            LEGIT,
            [],
            "none",
            "hopeless legit.example, temperror legit.example",
            TEMPERROR,
        ),
        ("legit.example", LEGIT, [], "temperror attack.example helo", "", FAIL),
        ("legit.example", LEGIT, [], "pass attack.example", "temperror attack.example", FAIL),
        (
            "legit.example",
            LEGIT,
            [],
            "temperror attack.example",
            "temperror attack.example, fail legit.example",
            FAIL,
        ),
        (
            "legit.example",
            LEGIT,
            ["attack.example"],
            "temperror attack.example",
            "temperror attack.example",
            FAIL,
        ),
        (
            "strict.example",
            STRICT,
            [],
            "temperror sub.strict.example",
            "temperror sub.strict.example",
            FAIL,
        ),
        ("strict.example", STRICT, [], "temperror strict.example", "", TEMPERROR),
        (
            "evil.co.uk",
            {"evil.co.uk": REJECT},
            [],
            "temperror other.co.uk",
            "temperror co.uk",
            FAIL,
        ),
        # no policy: nothing to prevent
        ("legit.example", {}, [], "temperror legit.example", "temperror legit.example", NONE),
        # permanent errors of the sender are no DNS failures
        ("legit.example", LEGIT, [], "permerror legit.example", "permerror legit.example", FAIL),
    ],
)
def test_dns_failures(
    author: str,
    records: Mapping[str, str],
    failing: list[str],
    spf_words: str,
    dkim_words: str,
    status: DmarcStatus,
) -> None:
    """A failure prevents a verdict only if its answer could have given an aligned pass; an aligned
    pass wins over everything."""
    assert judge(author, zone(records, failing), spf_words, dkim_words).status is status


@pytest.mark.parametrize(
    ("failing", "dkim_words", "status"),
    [
        (["legit.example"], "pass legit.example", TEMPERROR),
        (["a.legit.example"], "", TEMPERROR),
        ([], "temperror legit.example", TEMPERROR),
        ([], "temperror b.legit.example", TEMPERROR),
        ([], "temperror attack.example", FAIL),
        (["b.legit.example", "example"], "pass b.legit.example", PASS),
    ],
)
def test_dns_failures_by_public_suffix_list(
    failing: list[str], dkim_words: str, status: DmarcStatus
) -> None:
    """The same with RFC 7489 discovery, where alignment needs no DNS."""
    assert judge("a.legit.example", zone(LEGIT, failing), "none", dkim_words, PSL).status is status


def test_with_many_missing_answers_only_names_that_cannot_meet_are_unaligned() -> None:
    """Four and more failed steps: possible ends are compared."""
    deep = "a.b.c.d.e.legit.example"
    failing = [deep.split(".", n)[n] for n in range(1, 6)]
    dns = zone({deep: REJECT}, failing)
    assert judge(deep, dns, "pass legit.example").status is TEMPERROR
    assert judge(deep, dns, "pass attack.example").status is FAIL
    assert judge(deep, dns, f"pass {deep}").status is PASS


class Exhausted(Zone):
    """A DNS in which these questions are over the message's own limit."""

    def __init__(self, records: Mapping[str, str], names: Iterable[str]) -> None:
        super().__init__({f"_dmarc.{name}": {"TXT": [text]} for name, text in records.items()})
        self.names = set(names)

    def txt(self, name: str) -> tuple[bytes, ...]:
        if name in self.names:
            raise LimitExceeded(name)
        return super().txt(name)

    def addresses(self, name: str, rdtype: str) -> tuple[str, ...]:  # type: ignore[override]
        raise LimitExceeded(name)


@pytest.mark.parametrize(
    ("author", "records", "over", "dkim_words", "status"),
    [
        ("legit.example", LEGIT, "_dmarc.mail.legit.example", "pass mail.legit.example", FAIL),
        ("legit.example", LEGIT, "_dmarc.mail.legit.example", "temperror mail.legit.example", FAIL),
        ("a.legit.example", SUB, "_dmarc.legit.example", "pass legit.example", FAIL),
        ("legit.example", LEGIT, "_dmarc.mail.legit.example", "pass legit.example", PASS),
        ("legit.example", LEGIT, "_dmarc.legit.example", "", TEMPERROR),
    ],
)
def test_an_exhausted_limit_never_improves_the_verdict(
    author: str, records: Mapping[str, str], over: str, dkim_words: str, status: DmarcStatus
) -> None:
    """docs/design.md, Decisions: the message's own doing is no DNS failure; a policy that was not
    reached says so."""
    outcome = judge(author, Exhausted(records, [over]), "none", dkim_words)
    assert outcome.status is status
    assert (outcome.missing == Missing("limit", "_dmarc.legit.example")) is (status is TEMPERROR)


@pytest.mark.parametrize(("record", "tag"), [(NP, "np"), ("v=DMARC1; p=reject; np=none", "p")])
def test_an_exhausted_limit_takes_the_stricter_of_np_and_sp(record: str, tag: str) -> None:
    """Whether the author domain exists was not found out: the policy that is worse for the
    message."""
    outcome = judge("sub.legit.example", Exhausted({"legit.example": record}, []))
    assert (outcome.policy, outcome.policy_tag) == (Policy.REJECT, tag)


# --- keys in testing, malformed authors, what is told


@pytest.mark.parametrize(
    ("spf_words", "dkim_words", "status", "testing"),
    [
        ("none", "testing legit.example", FAIL, True),
        ("none", "testing mail.legit.example", FAIL, True),
        ("none", "testing attack.example", FAIL, False),
        ("none", "testing attack.example, testing legit.example", FAIL, True),
        ("pass legit.example", "testing legit.example", PASS, False),
        ("none", "testing legit.example, pass legit.example", PASS, False),
        ("temperror legit.example", "testing legit.example", TEMPERROR, False),
        ("pass attack.example", "policy legit.example", FAIL, False),
    ],
)
def test_a_key_in_testing_is_no_pass_but_noted(
    spf_words: str, dkim_words: str, status: DmarcStatus, testing: bool
) -> None:
    """RFC 6376 3.6.1 t=y; docs/design.md, testing_key_action."""
    outcome = judge("legit.example", LEGIT, spf_words, dkim_words)
    assert (outcome.status, outcome.testing_key_only) == (status, testing)


def malformed(*candidates: str, more: bool = False) -> DmarcResult:
    author = Author(None, "several domains", tuple(map(Domain, candidates)), more)
    return evaluate(
        author,
        spf("pass attack.example"),
        dkim("temperror other.example"),
        zone(LEGIT | STRICT | {"attack.example": REJECT}),
    )


def test_a_malformed_author_never_passes() -> None:
    """RFC 9989 11.5, docs/attacks.md: permerror, each domain in it judged for itself."""
    result = malformed("attack.example", "legit.example", "unknown.example", "localhost")
    assert (result.status, result.author_domain, result.outcome) == (
        DmarcStatus.PERMERROR,
        None,
        None,
    )
    assert [(str(each.author_domain), each.status) for each in result.candidates] == [
        ("attack.example", PASS),
        ("legit.example", FAIL),
        ("unknown.example", NONE),
        ("localhost", NONE),
    ]
    assert result.reason == "several domains"


def test_no_more_than_four_domains_are_looked_at() -> None:
    """SECURITY.md, Limits: the work is bounded, and that there were more is kept."""
    result = malformed(*(f"d{n}.example" for n in range(9)), more=True)
    assert len(result.candidates) == 4
    assert result.more_candidates
    assert malformed().candidates == ()


def test_where_walk_and_list_disagree_is_noted() -> None:
    """RFC 9990 3: logged, since an organizational domain chosen too high is a security problem (RFC
    9989 11.8)."""
    outcome = judge("a.b.github.io", {"github.io": REJECT})
    assert (str(outcome.organizational_domain), str(outcome.psl_organizational_domain)) == (
        "github.io",
        "b.github.io",
    )
    assert judge("a.legit.example", LEGIT).psl_organizational_domain is None
    assert judge("a.legit.example", LEGIT, options=PSL).psl_organizational_domain is None


def test_the_guard_is_noted() -> None:
    """docs/design.md, psl_guard: logged."""
    assert judge("a.b.com", {"com": REJECT}).guarded == (Domain("com"),)
    assert judge("a.b.com", {"com": REJECT + "; psd=y"}).guarded == ()


def test_the_trace_tells_the_whole_story() -> None:
    """For `check` and `why`: discovery, organization, policy, each identifier."""
    outcome = judge(
        "a.legit.example", {"legit.example": NP}, "pass attack.example", "temperror x.legit.example"
    )
    assert outcome.trace == (
        "_dmarc.a.legit.example: no DMARC record",
        f"_dmarc.legit.example: {NP}",
        "_dmarc.example: no DMARC record",
        "organizational domain of a.legit.example: legit.example",
        (
            "the policy for a.legit.example is np=reject of legit.example: the author domain does"
            " not exist"
        ),
        (
            "spf pass for attack.example: not aligned (relaxed): not under the author's"
            " organizational domain"
        ),
        "dkim temperror for x.legit.example: aligned (relaxed): same organizational domain",
    )


def test_no_look_up_without_need() -> None:
    """Strict alignment, equal names and names outside the organization are decided without a
    walk."""
    dns = zone(LEGIT)
    judge(
        "legit.example",
        dns,
        "pass attack.example",
        "pass legit.example, pass other.com, fail x.legit.example",
    )
    assert dns.asked() == ["_dmarc.legit.example", "_dmarc.example"]
    dns = zone(STRICT)
    judge("strict.example", dns, "pass a.strict.example", "pass b.strict.example")
    assert dns.asked() == ["_dmarc.strict.example", "_dmarc.example"]


def test_identifiers_that_did_not_pass_are_not_looked_at_after_a_pass() -> None:
    """Nothing that they could say matters any more."""
    dns = zone(LEGIT)
    judge(
        "legit.example",
        dns,
        "temperror a.legit.example",
        "pass legit.example, testing b.legit.example",
    )
    assert dns.asked() == ["_dmarc.legit.example", "_dmarc.example"]


def test_ten_signatures_cost_one_walk_each_at_most() -> None:
    """SECURITY.md, Limits: bounded by the signatures that passed, shared steps asked once."""
    dns = zone(LEGIT)
    judge("legit.example", dns, "none", ", ".join(f"pass s{n}.legit.example" for n in range(10)))
    assert len(dns.calls) == 12


def test_a_failing_resolver_never_raises() -> None:
    """Whatever the DNS does is a result."""

    class Down(Zone):
        def txt(self, name: str) -> tuple[bytes, ...]:
            raise LookupFailed(name)

    assert (
        judge("legit.example", Down({}), "pass legit.example", "temperror legit.example").status
        is TEMPERROR
    )


SEVERAL = (
    "a.one.co.uk",
    "b.one.co.uk",
    "c.one.co.uk",
    "two.com",
    "x.three.com",
    "y.three.com",
    "four.org",
)


@pytest.mark.parametrize("suffixes", [None, ListedSuffixes()])
def test_names_of_one_organization_count_once(suffixes: ListedSuffixes | None) -> None:
    """RFC 9989 4.10.2, or the list where there is one: four organizations are looked at, whatever
    the number of their names."""
    published = zone(
        {name: REJECT for name in ("one.co.uk", "two.com", "three.com", "four.org", "five.jp")}
    )
    four = evaluate(
        Author(None, "x", tuple(map(Domain, (*SEVERAL, "localhost")))),
        spf("none"),
        (),
        published,
        suffixes=suffixes,
    )
    assert not four.more_candidates
    assert [str(each.author_domain) for each in four.candidates] == [*SEVERAL, "localhost"]
    five = evaluate(
        Author(None, "x", tuple(map(Domain, (*SEVERAL, "five.jp")))),
        spf("none"),
        (),
        published,
        suffixes=suffixes,
    )
    assert five.more_candidates
    assert [str(each.author_domain) for each in five.candidates] == [*SEVERAL]
