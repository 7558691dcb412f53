"""Local rules tried on mail that was judged already: whom they would have let in, or stopped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from ipaddress import ip_address

from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.policy.rules import matches
from dmarc_milter.core.policy.verdict import Context, Rule
from dmarc_milter.core.stored import Facts


def holds(rule: Rule, facts: Facts, today: date) -> bool:
    """Whether the rule's conditions hold for a message of which only the facts are left.

    Names that Sendmail would have written into From are not kept, so they are not looked at.
    """
    return matches(rule, _result(facts), _context(facts), today)


def first_that_holds(rules: Sequence[Rule], facts: Facts, today: date) -> int | None:
    """The number, from 1, of the rule that would decide: the first that holds and does not only
    tag."""
    numbers = (
        number
        for number, rule in enumerate(rules, 1)
        if rule.action != "tag" and holds(rule, facts, today)
    )
    return next(numbers, None)


def _result(facts: Facts) -> DmarcResult:
    author = facts.outcome.author_domain if facts.outcome else ""
    return DmarcResult(
        DmarcStatus(facts.status),
        Domain(author) if author else None,
        candidates=tuple(
            DomainOutcome(DmarcStatus(one.status), Domain(one.author_domain))
            for one in facts.candidates
        ),
    )


def _context(facts: Facts) -> Context:
    chain = facts.arc is not None and facts.arc.status == "pass"
    return Context(
        source_ip=ip_address(facts.source_ip) if facts.source_ip else None,
        recipient_domains=tuple(_domains(facts.envelope_to)),
        dkim_domains=tuple(_domains(one.domain for one in facts.dkim if one.result == "pass")),
        spf_domain=next(iter(spf_pass(facts)), None),
        names=facts.names,
        arc_sealers=tuple(_domains(facts.arc.sealers)) if chain and facts.arc else (),
    )


def spf_pass(facts: Facts) -> Iterator[Domain]:
    """The domain that SPF passed, if it did."""
    if facts.spf is not None and facts.spf.result == "pass" and facts.spf.domain:
        yield Domain(facts.spf.domain)


def _domains(names: Iterable[str]) -> Iterator[Domain]:
    return (Domain(name) for name in names if name)
