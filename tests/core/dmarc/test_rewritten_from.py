"""The names that Sendmail writes into From, found by what it would ask itself (RFC 9989 5.3.1
judges only what was sent)."""

from __future__ import annotations

import pytest

from dmarc_milter.core.budget import WRITTEN_QUERIES
from dmarc_milter.core.dmarc.evaluate import evaluate
from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.dmarc.rewritten_from import Canonify, WritableNames, judged, names
from dmarc_milter.core.mail.author import author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.resolver import Resolver, Shortage
from dmarc_milter.core.spf.check import SpfResult, SpfStatus
from fakes.dns_zone import Zone

ZONE = """
    legit.example           A      198.51.100.10
    _dmarc.legit.example    TXT    "v=DMARC1; p=reject"
    x.attack.example        CNAME  legit.example
    y.attack.example        CNAME  x.attack.example
    attack.example          A      192.0.2.66
    _dmarc.attack.example   TXT    "v=DMARC1; p=none"
    mail.attack             TXT    "only text"
    mail.attack.corp.example  A    198.51.100.11
    dead.example            FAIL
"""
CORP = Canonify(search=("example", "corp.example"))


@pytest.mark.parametrize(
    ("domain", "how", "expected"),
    [
        ("attack.example", Canonify(), ()),
        ("x.attack.example", Canonify(), ("legit.example",)),
        ("y.attack.example", Canonify(), ("x.attack.example", "legit.example")),
        ("x.attack.example", Canonify(aliases=False), ()),
        ("legit", CORP, ("legit.example",)),
        ("legit", Canonify(), ()),
        ("x.attack", CORP, ("x.attack.example", "legit.example")),
        ("x.attack", Canonify(aliases=False, search=("example",)), ("x.attack.example",)),
        ("mail.attack", CORP, ("mail.attack.corp.example",)),
        ("legit.example", CORP, ()),
        ("legit.example", Canonify(search=("corp.example",), ndots=2), ()),
    ],
)
def test_the_names_that_may_be_written(
    domain: str, how: Canonify, expected: tuple[str, ...]
) -> None:
    """MTA-01, MTA-09: aliases, each of a chain; completions that exist, of names that do not or
    have too few dots."""
    assert names([Domain(domain)], Zone.parse(ZONE), how) == WritableNames(
        tuple(map(Domain, expected))
    )


@pytest.mark.parametrize("rdtype", ["", "A", "AAAA", "MX"])
def test_a_missing_answer_leaves_it_open(rdtype: str) -> None:
    """MTA-03: of any of the questions."""
    zone = Zone.parse(ZONE)
    zone.fail("attack.example", rdtype)
    assert names([Domain("attack.example")], zone, Canonify()).unknown


def test_what_it_may_cost_is_bounded() -> None:
    """MTA-03: a long search list, a chain to nowhere, four candidates; past the share it is
    unknown, never a pass."""
    zone = Zone.parse(ZONE)
    domains = [Domain(f"{letter}.attack") for letter in "abcd"]
    names(domains, zone, Canonify(search=tuple(f"s{number}.example" for number in range(100))))
    assert len(set(zone.calls)) <= WRITTEN_QUERIES
    exhausted = Zone.parse(ZONE).share(queries=1, seconds=5)
    assert names([Domain("attack.example")], exhausted, Canonify()).unknown


def test_more_names_than_are_judged_are_unknown() -> None:
    """MTA-03."""
    zone = Zone(
        {
            f"n{number}.attack.example": {"CNAME": [f"n{number + 1}.attack.example"]}
            for number in range(8)
        }
    )
    zone.add("n8.attack.example", "CNAME", "n9.other.example")
    zone.add("n9.other.example", "A", "192.0.2.1")
    assert names([Domain("n0.attack.example")], zone, Canonify()).unknown


PASSED = SpfResult(SpfStatus.PASS, Domain("attack.example"))


def result(value: bytes, found: WritableNames) -> tuple[DmarcStatus, list[str]]:
    zone = Zone.parse(ZONE)
    dmarc = judged(evaluate(author([value]), PASSED, (), zone), found, (PASSED, ()), zone)
    return dmarc.status, [each.author_domain.name for each in dmarc.written]


def test_a_pass_is_none_where_another_organization_is_written() -> None:
    """MTA-01, MTA-03."""
    legit = Domain("legit.example")
    assert result(b" a@attack.example", WritableNames((legit,))) == (
        DmarcStatus.FAIL,
        ["legit.example"],
    )
    assert result(b" a@attack.example", WritableNames((), unknown=True)) == (
        DmarcStatus.TEMPERROR,
        [],
    )
    assert result(b" a@attack.example", WritableNames((Domain("b.attack.example"),))) == (
        DmarcStatus.PASS,
        [],
    )
    assert result(b" a@attack.example, b@attack.example", WritableNames((legit,))) == (
        DmarcStatus.FAIL,
        ["legit.example"],
    )
    assert result(b" a@legit.example", WritableNames((Domain("x.example"),)))[0] is DmarcStatus.FAIL


def test_our_own_shortage_is_told_from_a_failing_dns() -> None:
    """MTA-03: a message that only waited for room is deferred (451 4.3.2), not quarantined."""

    class Full(Zone):
        def aliases(self, name: str, rdtype: str) -> tuple[str, ...]:  # type: ignore[override]
            raise Shortage(name, name=name)

        def share(self, *, queries: int, seconds: float) -> Resolver:
            return self

    found = names([Domain("attack.example")], Full(), Canonify())
    assert found.missing is not None
    assert found.missing.kind == "shortage"
