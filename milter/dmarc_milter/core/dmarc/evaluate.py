"""DMARC for one message (RFC 9989 5.3): an aligned pass, else a DNS failure that could have given
one, else fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.alignment import align, could_align
from dmarc_milter.core.dmarc.discovery import Discovery, DmarcOptions, PolicySearch, PublicSuffixes
from dmarc_milter.core.dmarc.record import AlignmentMode, Policy, Record
from dmarc_milter.core.dmarc.result import (
    DmarcResult,
    DmarcStatus,
    DomainOutcome,
    Identifier,
    PolicyPublished,
)
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain, is_special_use
from dmarc_milter.core.resolver import (
    Kept,
    LookupFailed,
    Missing,
    NoData,
    NoSuchName,
    NoSuchTarget,
    Resolver,
    derive,
    gravest,
    missing,
)
from dmarc_milter.core.spf.check import SpfResult, SpfStatus

__all__ = ["DmarcOptions", "PublicSuffixes", "author_names", "evaluate", "published"]

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


def published(
    author_domain: Domain,
    resolver: Resolver,
    options: DmarcOptions = DmarcOptions(),
    suffixes: PublicSuffixes | None = None,
) -> DomainOutcome:
    """What can be said of an author domain before anything of the message but its From: policy and
    organization.

    `status` is NONE as long as a policy applies and nothing has been judged. Remembered for other
    messages while the DNS allows it.
    """
    return _found(author_domain, Discovery(resolver, options, suffixes))


def _found(author_domain: Domain, discovery: Discovery) -> DomainOutcome:
    key = ("published", author_domain, discovery.options, discovery.suffixes)
    found: DomainOutcome = derive(
        discovery.resolver, key, lambda scope: _published(author_domain, discovery.within(scope))
    )
    return found


def _published(author_domain: Domain, discovery: Discovery) -> Kept:
    if is_special_use(author_domain.name):
        return Kept(
            DomainOutcome(
                DmarcStatus.NONE, author_domain, reason="special-use domain name, not in the DNS"
            ),
            keep=True,
        )
    search = discovery.policy(author_domain)
    outcome = _organization(
        DomainOutcome(DmarcStatus.NONE, author_domain, trace=search.trace), discovery
    )
    outcome = _with_policy(outcome, search, discovery)
    if search.failed:
        outcome = _open(outcome, search.failed, POLICY_OPEN[search.failed.kind])
    return Kept(outcome, keep=outcome.missing is None, size=2000 + sum(map(len, outcome.trace)))


POLICY_OPEN = {
    "dns": "policy look-up failed",
    "limit": "look-up limit reached before the policy was found",
    "time": "no time left to look up the policy",
    "shortage": "too busy to look up the policy",
    "failure": "policy not looked up",
}


def _open(outcome: DomainOutcome, missing: Missing | None, reason: str) -> DomainOutcome:
    """Neither pass nor fail, because this answer is missing."""
    return replace(outcome, status=DmarcStatus.TEMPERROR, missing=missing, reason=reason)


def _outcome(
    author_domain: Domain, candidates: tuple[_Candidate, ...], discovery: Discovery
) -> DomainOutcome:
    """DMARC for one author domain."""
    outcome = _found(author_domain, discovery)
    if outcome.supposed is not None and any(
        candidate.kind == "passed" and candidate.domain == author_domain for candidate in candidates
    ):
        # The author domain itself is aligned by any record, whichever the missing answers would
        # have given: there is one.
        outcome = replace(outcome, published=outcome.supposed, supposed=None, missing=None)
    return outcome if outcome.published is None else _judge(outcome, candidates, discovery)


def _organization(outcome: DomainOutcome, discovery: Discovery) -> DomainOutcome:
    """Fill in the author's organizational domain, and what the public suffix list says where it
    disagrees with the walk."""
    listed = discovery.listed_organization(outcome.author_domain)
    if discovery.method == "psl":
        return replace(outcome, organizational_domain=listed)
    walk = discovery.reading(outcome.author_domain)
    organization = walk.organizational_domain()
    differs = discovery.suffixes is not None and organization is not None and organization != listed
    name = outcome.author_domain
    found = [f"organizational domain of {name}: {organization}"] if organization else []
    found += [f"by the public suffix list it would be {listed}"] if differs else []
    return replace(
        outcome,
        organizational_domain=organization,
        psl_organizational_domain=listed if differs else None,
        guarded=tuple(step.name for step in walk.steps if step.guarded),
        trace=(*outcome.trace, *found),
    )


def _with_policy(
    outcome: DomainOutcome, search: PolicySearch, discovery: Discovery
) -> DomainOutcome:
    """What the record that was found asks for; where the search was left open, what it asks for as
    far as is known."""
    found = search.published or search.supposed
    if found is None:
        return replace(outcome, reason="no policy record")
    if not found.record.applies:
        note = (
            f"the record of {found.policy_domain} has no valid policy and no valid rua: DMARC does"
            " not apply"
        )
        return replace(
            outcome, reason="record without a valid policy", trace=(*outcome.trace, note)
        )
    asks = _policy(found, outcome.author_domain, discovery.resolver)
    supposed = ", unless a missing answer says otherwise" if search.failed else ""
    sentence = (
        f"the policy for {outcome.author_domain} is {asks.tag}={asks.policy} of"
        f" {found.policy_domain}: {asks.why}{supposed}"
    )
    return replace(
        outcome,
        published=search.published,
        supposed=search.supposed,
        policy=asks.policy,
        policy_tag=asks.tag,
        unsure=asks.unsure,
        missing=asks.missing,
        trace=(*outcome.trace, sentence),
    )


class _Asked(NamedTuple):
    """The policy that a record asks for an author domain, its tag, and why that one."""

    policy: Policy
    tag: Literal["p", "sp", "np"]
    why: str
    unsure: Policy | None = None
    missing: Missing | None = None
    """The missing answer without which the policy may be `unsure` instead."""


def _policy(published: PolicyPublished, author_domain: Domain, resolver: Resolver) -> _Asked:
    """RFC 9989 4.7, 4.10.1."""
    record = published.record
    if record.p is None or record.invalid_policy:
        return _Asked(Policy.NONE, "p", "the record has no valid policy but a valid rua")
    if published.policy_domain == author_domain:
        return _Asked(record.p, "p", "the record is the author domain's own")
    below = _policy_below(record, record.p)
    return (
        below if record.np is None else _policy_of_name(record.np, below, author_domain, resolver)
    )


def _policy_of_name(np: Policy, below: _Asked, author_domain: Domain, resolver: Resolver) -> _Asked:
    """np for a name that does not exist."""
    try:
        resolver.addresses(author_domain.name, "A")
    except NoSuchTarget:
        # The author domain is an alias and so exists; the response code is its target's
        # (RFC 6604 3, RFC 8020 2).
        return below
    except NoSuchName:  # RFC 9989 3.2.13: non-existent is NXDOMAIN, not the mere lack of addresses
        return _Asked(np, "np", "the author domain does not exist")
    except NoData:
        return below
    except LookupFailed as failure:
        if np.strictness <= below.policy.strictness:
            return below._replace(why=f"{below.why}; whether it exists is unknown")
        if missing(failure).kind == "limit":  # the message's own doing: never to its advantage
            return _Asked(
                np,
                "np",
                "whether the author domain exists was not found out within the look-up limit",
            )
        return below._replace(
            why=f"{below.why}; np={np} if it does not exist, which is unknown",
            unsure=np,
            missing=missing(failure),
        )
    return below


def _policy_below(record: Record, p: Policy) -> _Asked:
    if record.sp is not None:
        return _Asked(record.sp, "sp", "the author domain is below the record's")
    return _Asked(p, "p", "the author domain is below the record's, which has no sp")


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

    found = judged("passed")
    aligned = {
        candidate.method for candidate, judged_so in found.items() if judged_so.identifier.aligned
    }
    if not aligned:
        found |= judged("unanswered") | judged("testing")
    identifiers = tuple(
        dict.fromkeys(found[candidate].identifier for candidate in candidates if candidate in found)
    )
    outcome = replace(
        outcome,
        identifiers=identifiers,
        spf_aligned="spf" in aligned,
        dkim_aligned="dkim" in aligned,
        trace=(*outcome.trace, *map(_sentence, identifiers)),
    )
    if aligned:
        return replace(
            outcome, status=DmarcStatus.PASS, reason="an aligned identifier passed", missing=None
        )
    return _without_pass(outcome, found)


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


def _without_pass(outcome: DomainOutcome, found: dict[_Candidate, _Judged]) -> DomainOutcome:
    """DNS failure that could have given an aligned pass > policy left open > fail (RFC 9989
    5.3)."""
    lost = gravest(judgement.missing for judgement in found.values())
    if lost is not None:
        open_ones = (candidate.kind for candidate, judged_so in found.items() if judged_so.missing)
        if next(open_ones) == "passed":
            return _open(
                outcome,
                lost,
                "a DNS failure left open whether an identifier that passed is aligned",
            )
        return _open(outcome, lost, "a DNS failure prevented an identifier that could be aligned")
    if outcome.missing is not None:
        return _open(
            outcome,
            outcome.missing,
            "a DNS failure left open whether the author domain exists, and so its policy",
        )
    testing = any(
        candidate.kind == "testing" and judged_so.identifier.aligned
        for candidate, judged_so in found.items()
    )
    reason = "no identifier that passed is aligned" if found else "no identifier passed"
    return replace(outcome, status=DmarcStatus.FAIL, reason=reason, testing_key_only=testing)


def _sentence(identifier: Identifier) -> str:
    """One identifier for `check` and `why`."""
    name = f"{identifier.method} {identifier.status} for {identifier.domain}"
    verdict = {True: "aligned", False: "not aligned", None: "alignment unknown"}[identifier.aligned]
    return (
        f"{name}: {verdict} ({'strict' if identifier.mode is AlignmentMode.STRICT else 'relaxed'}):"
        f" {identifier.note}"
    )
