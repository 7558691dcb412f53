"""DMARC for one message (RFC 9989 5.3): an aligned pass, else a DNS failure that could have given
one, else fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.alignment import align, could_align
from dmarc_milter.core.dmarc.author_policy import left_open, published_by
from dmarc_milter.core.dmarc.discovery import Discovery, DmarcOptions, PublicSuffixes
from dmarc_milter.core.dmarc.record import AlignmentMode
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome, Identifier
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.resolver import Missing, Resolver, gravest
from dmarc_milter.core.spf.check import SpfResult, SpfStatus

__all__ = ["DmarcOptions", "PublicSuffixes", "author_names", "evaluate"]

MAX_ORGANIZATIONS = 4
"""Organizational domains that one From field may name; with more the strictest policy is not looked
for (docs/design.md, Decisions)."""


class _Candidate(NamedTuple):
    """An identifier that passed, could have passed but for the DNS, or passed with a key in
    testing."""

    method: Literal["spf", "dkim"]
    domain: Domain
    status: str
    kind: Literal["passed", "unanswered", "testing"]
    selector: str = ""
    missing: Missing | None = None


def evaluate(
    author: Author,
    spf: SpfResult,
    dkim: tuple[DkimResult, ...],
    resolver: Resolver,
    options: DmarcOptions = DmarcOptions(),
    suffixes: PublicSuffixes | None = None,
) -> DmarcResult:
    """DMARC for the author of a message. Never raises.

    A malformed author gets permerror; `candidates` has each domain that a lenient reader could see.
    """
    discovery = Discovery(resolver, options, suffixes)
    identifiers = tuple(_candidates(spf, dkim))
    if author.domain is None:
        outcomes, more = _outcomes(author, identifiers, discovery)
        reason = author.malformed or "malformed From"
        return DmarcResult(DmarcStatus.PERMERROR, None, None, outcomes, more, reason)
    outcome = _outcome(author.domain, identifiers, discovery)
    return DmarcResult(outcome.status, author.domain, outcome, reason=outcome.reason)


def author_names(
    author: Author, suffixes: PublicSuffixes | None
) -> tuple[tuple[Domain, ...], bool]:
    """The names whose policy is asked for, those of four organizations at most, and whether there
    are more.

    Several names of one organization count once; which is whose says the public suffix list, before
    anything is asked.
    """
    if author.domain is not None:
        return (author.domain,), False
    if suffixes is None:
        return author.candidates, author.more
    names: dict[Domain, Domain] = {}
    more = author.more
    for name in author.candidates:
        organization = suffixes.organizational_domain(name) or name
        known = organization in names.values() or "." not in name.name
        if (
            known
            or len({organization for organization in names.values() if "." in organization.name})
            < MAX_ORGANIZATIONS
        ):
            names[name] = organization
        else:
            more = True
    return tuple(names), more


def _outcomes(
    author: Author, candidates: tuple[_Candidate, ...], discovery: Discovery
) -> tuple[tuple[DomainOutcome, ...], bool]:
    """DMARC for each domain that a malformed author may have, and whether there are too many."""
    names, more = author_names(author, discovery.suffixes)
    outcomes: list[DomainOutcome] = []
    organizations: set[Domain] = set()
    for name in names:
        outcome = _outcome(name, candidates, discovery)
        if discovery.suffixes is None and "." in name.name:  # so the walk says whose it is
            organizations.add(outcome.organizational_domain or name)
            if len(organizations) > MAX_ORGANIZATIONS:
                more = True
                break
        outcomes.append(outcome)
    return tuple(outcomes), more


def _candidates(spf: SpfResult, dkim: Iterable[DkimResult]) -> Iterable[_Candidate]:
    if spf.domain and spf.usable:
        yield _Candidate("spf", spf.domain, spf.status, "passed")
    elif spf.domain and spf.status is SpfStatus.TEMPERROR:
        yield _Candidate("spf", spf.domain, spf.status, "unanswered", missing=spf.missing)
    for signature in dkim:
        if signature.domain and signature.usable:
            yield _Candidate(
                "dkim", signature.domain, signature.status, "passed", signature.selector
            )
        elif (
            signature.domain and signature.status is DkimStatus.TEMPERROR and not signature.hopeless
        ):
            yield _Candidate(
                "dkim",
                signature.domain,
                signature.status,
                "unanswered",
                signature.selector,
                signature.missing,
            )
        elif signature.domain and signature.testing:
            yield _Candidate(
                "dkim", signature.domain, signature.status, "testing", signature.selector
            )


def _outcome(
    author_domain: Domain, candidates: tuple[_Candidate, ...], discovery: Discovery
) -> DomainOutcome:
    """DMARC for one author domain."""
    outcome = published_by(author_domain, discovery)
    if outcome.supposed is not None and any(
        candidate.kind == "passed" and candidate.domain == author_domain for candidate in candidates
    ):
        # The author domain itself is aligned by any record, whichever the missing answers would
        # have given: there is one.
        outcome = replace(outcome, published=outcome.supposed, supposed=None, missing=None)
    return outcome if outcome.published is None else _judge(outcome, candidates, discovery)


def _judge(
    outcome: DomainOutcome, candidates: tuple[_Candidate, ...], discovery: Discovery
) -> DomainOutcome:
    """The verdict, given the policy. Identifiers that did not pass are looked at only if none that
    passed is aligned."""
    record = outcome.published.record if outcome.published else None
    modes = {"spf": record.aspf, "dkim": record.adkim} if record else {}
    _prefetch(outcome.author_domain, candidates, modes, discovery)

    def judged(kind: str) -> dict[_Candidate, _Judged]:
        return {
            candidate: _identifier(
                candidate, outcome.author_domain, modes[candidate.method], discovery
            )
            for candidate in candidates
            if candidate.kind == kind
        }

    judgements = judged("passed")
    aligned = {
        candidate.method
        for candidate, judged_so in judgements.items()
        if judged_so.identifier.aligned
    }
    if not aligned:
        judgements |= judged("unanswered") | judged("testing")
    identifiers = tuple(
        dict.fromkeys(
            judgements[candidate].identifier for candidate in candidates if candidate in judgements
        )
    )
    outcome = replace(
        outcome,
        identifiers=identifiers,
        spf_aligned="spf" in aligned,
        dkim_aligned="dkim" in aligned,
        trace=(*outcome.trace, *map(_sentence, identifiers)),
        status=DmarcStatus.PASS if aligned else outcome.status,
        reason="an aligned identifier passed" if aligned else outcome.reason,
        missing=None if aligned else outcome.missing,
    )
    return outcome if aligned else _without_pass(outcome, judgements)


def _prefetch(
    author_domain: Domain,
    candidates: Iterable[_Candidate],
    modes: dict[str, AlignmentMode],
    discovery: Discovery,
) -> None:
    """Start all walks of identifiers that passed and that only a walk can decide."""
    if discovery.method == "treewalk":
        discovery.prefetch(
            candidate.domain
            for candidate in candidates
            if candidate.kind == "passed"
            and candidate.domain != author_domain
            and modes[candidate.method] is AlignmentMode.RELAXED
            and could_align(author_domain, candidate.domain, discovery)
        )


class _Judged(NamedTuple):
    """An identifier, and the answer without which it is not certain that it gives no aligned
    pass."""

    identifier: Identifier
    missing: Missing | None


def _identifier(
    candidate: _Candidate, author_domain: Domain, mode: AlignmentMode, discovery: Discovery
) -> _Judged:
    alignment = align(author_domain, candidate.domain, mode, discovery)
    identifier = Identifier(
        method=candidate.method,
        domain=candidate.domain,
        status=candidate.status,
        aligned=alignment.aligned,
        mode=mode,
        organizational_domain=alignment.organizational_domain,
        selector=candidate.selector,
        note=alignment.note,
    )
    lost: Missing | None = None
    if alignment.aligned is None and candidate.kind != "testing":
        lost = alignment.missing or NOT_TOLD
    if alignment.aligned is not False and candidate.kind == "unanswered":
        lost = gravest((candidate.missing or NOT_TOLD, lost))
    return _Judged(identifier, lost)


NOT_TOLD = Missing("dns")


def _without_pass(outcome: DomainOutcome, judgements: dict[_Candidate, _Judged]) -> DomainOutcome:
    """DNS failure that could have given an aligned pass > policy left open > fail (RFC 9989
    5.3)."""
    lost = gravest(judgement.missing for judgement in judgements.values())
    if lost is not None:
        open_ones = (
            candidate.kind for candidate, judged_so in judgements.items() if judged_so.missing
        )
        if next(open_ones) == "passed":
            return left_open(
                outcome,
                lost,
                "a DNS failure left open whether an identifier that passed is aligned",
            )
        return left_open(
            outcome, lost, "a DNS failure prevented an identifier that could be aligned"
        )
    if outcome.missing is not None:
        return left_open(
            outcome,
            outcome.missing,
            "a DNS failure left open whether the author domain exists, and so its policy",
        )
    testing = any(
        candidate.kind == "testing" and judged_so.identifier.aligned
        for candidate, judged_so in judgements.items()
    )
    reason = "no identifier that passed is aligned" if judgements else "no identifier passed"
    return replace(outcome, status=DmarcStatus.FAIL, reason=reason, testing_key_only=testing)


def _sentence(identifier: Identifier) -> str:
    """One identifier for `check` and `why`."""
    name = f"{identifier.method} {identifier.status} for {identifier.domain}"
    verdict = {True: "aligned", False: "not aligned", None: "alignment unknown"}[identifier.aligned]
    return (
        f"{name}: {verdict} ({'strict' if identifier.mode is AlignmentMode.STRICT else 'relaxed'}):"
        f" {identifier.note}"
    )
