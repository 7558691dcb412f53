"""DMARC for one message (RFC 9989 5.3): an aligned pass, else a DNS failure that could have given one, else fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

from dmarc_milter.address import MAX_CANDIDATES, Author
from dmarc_milter.dkim.result import DkimResult, DkimStatus
from dmarc_milter.dmarc.alignment import align, could_align
from dmarc_milter.dmarc.discovery import Discovery, DmarcOptions, PublicSuffixes
from dmarc_milter.dmarc.record import AlignmentMode, Policy, Record
from dmarc_milter.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome, Identifier, PolicyPublished
from dmarc_milter.domain import Domain
from dmarc_milter.lookup import Kept, LimitExceeded, LookupFailed, NoData, NoSuchName, NoSuchTarget, Resolver, derive
from dmarc_milter.spf import SpfResult, SpfStatus

__all__ = ["DmarcOptions", "PublicSuffixes", "evaluate", "published"]


class _Candidate(NamedTuple):
    """An identifier that passed, could have passed but for the DNS, or passed with a key in testing."""

    method: Literal["spf", "dkim"]
    domain: Domain
    status: str
    kind: Literal["passed", "unanswered", "testing"]
    selector: str = ""


def evaluate(
    author: Author,
    spf: SpfResult,
    dkim: tuple[DkimResult, ...],
    resolver: Resolver,
    options: DmarcOptions = DmarcOptions(),
    suffixes: PublicSuffixes | None = None,
) -> DmarcResult:
    """DMARC for the author of a message. Never raises.

    A malformed author gets permerror, with the outcome of each domain that a lenient reader could see in `candidates`.
    """
    discovery = Discovery(resolver, options, suffixes)
    identifiers = tuple(_candidates(spf, dkim))
    if author.domain is None:
        candidates = tuple(_outcome(domain, identifiers, discovery) for domain in author.candidates[:MAX_CANDIDATES])
        return DmarcResult(DmarcStatus.PERMERROR, None, None, candidates, author.more, author.malformed or "malformed From")
    outcome = _outcome(author.domain, identifiers, discovery)
    return DmarcResult(outcome.status, author.domain, outcome, reason=outcome.reason)


def _candidates(spf: SpfResult, dkim: Iterable[DkimResult]) -> Iterable[_Candidate]:
    if spf.domain and spf.usable:
        yield _Candidate("spf", spf.domain, spf.status, "passed")
    elif spf.domain and spf.status is SpfStatus.TEMPERROR:
        yield _Candidate("spf", spf.domain, spf.status, "unanswered")
    for each in dkim:
        if each.domain and each.usable:
            yield _Candidate("dkim", each.domain, each.status, "passed", each.selector)
        elif each.domain and each.status is DkimStatus.TEMPERROR and not each.hopeless:
            yield _Candidate("dkim", each.domain, each.status, "unanswered", each.selector)
        elif each.domain and each.testing:
            yield _Candidate("dkim", each.domain, each.status, "testing", each.selector)


def published(
    author_domain: Domain, resolver: Resolver, options: DmarcOptions = DmarcOptions(), suffixes: PublicSuffixes | None = None
) -> DomainOutcome:
    """What can be said of an author domain before anything of the message but its From: policy and organization.

    `status` is NONE as long as a policy applies and nothing has been judged. Remembered for other messages while the DNS allows it.
    """
    return _found(author_domain, Discovery(resolver, options, suffixes))


def _found(author_domain: Domain, discovery: Discovery) -> DomainOutcome:
    key = ("published", author_domain, discovery.options, discovery.suffixes)
    found: DomainOutcome = derive(discovery.resolver, key, lambda scope: _published(author_domain, discovery.within(scope)))
    return found


def _published(author_domain: Domain, discovery: Discovery) -> Kept:
    if len(author_domain.labels) == 1:
        return Kept(DomainOutcome(DmarcStatus.NONE, author_domain, reason="single-label domain"), keep=True)
    search = discovery.policy(author_domain)
    outcome = _organization(DomainOutcome(DmarcStatus.NONE, author_domain, trace=search.trace), discovery)
    if search.failed:
        reason = "policy look-up failed" if search.failed == "dns" else "look-up limit reached before the policy was found"
        outcome = replace(outcome, status=DmarcStatus.TEMPERROR, reason=reason, limit_reached=search.failed == "limit")
    elif search.published is None:
        outcome = replace(outcome, reason="no policy record")
    elif not search.published.record.applies:
        note = f"the record of {search.published.policy_domain} has no valid policy and no valid rua: DMARC does not apply"
        outcome = replace(outcome, reason="record without a valid policy", trace=(*outcome.trace, note))
    else:
        outcome = _with_policy(outcome, search.published, discovery)
    return Kept(outcome, keep=not search.failed, size=2000 + sum(map(len, outcome.trace)))


def _outcome(author_domain: Domain, candidates: tuple[_Candidate, ...], discovery: Discovery) -> DomainOutcome:
    """DMARC for one author domain."""
    outcome = _found(author_domain, discovery)
    return outcome if outcome.published is None else _judge(outcome, candidates, discovery)


def _organization(outcome: DomainOutcome, discovery: Discovery) -> DomainOutcome:
    """Fill in the author's organizational domain, and what the public suffix list says where it disagrees with the walk."""
    listed = discovery.listed_organization(outcome.author_domain)
    if discovery.method == "psl":
        return replace(outcome, organizational_domain=listed)
    walk = discovery.walk(outcome.author_domain)
    organization = walk.organizational_domain()
    differs = discovery.suffixes is not None and organization is not None and organization != listed
    trace = outcome.trace
    if organization:
        trace += (f"organizational domain of {outcome.author_domain}: {organization}",)
    if differs:
        trace += (f"by the public suffix list it would be {listed}",)
    return replace(
        outcome,
        organizational_domain=organization,
        psl_organizational_domain=listed if differs else None,
        guarded=tuple(step.name for step in walk.steps if step.guarded),
        trace=trace,
    )


def _with_policy(outcome: DomainOutcome, published: PolicyPublished, discovery: Discovery) -> DomainOutcome:
    policy, tag, why = _policy(published, outcome.author_domain, discovery.resolver)
    sentence = f"the policy for {outcome.author_domain} is {tag}={policy} of {published.policy_domain}: {why}"
    return replace(outcome, published=published, policy=policy, policy_tag=tag, trace=(*outcome.trace, sentence))


def _policy(published: PolicyPublished, author_domain: Domain, resolver: Resolver) -> tuple[Policy, Literal["p", "sp", "np"], str]:
    """The policy that a record asks for an author domain, its tag, and why that one (RFC 9989 4.7, 4.10.1)."""
    record = published.record
    if record.p is None or record.invalid_policy:
        return Policy.NONE, "p", "the record has no valid policy but a valid rua"
    if published.policy_domain == author_domain:
        return record.p, "p", "the record is the author domain's own"
    below, tag, why = _policy_below(record, record.p)
    if record.np is None:
        return below, tag, why
    try:
        resolver.addresses(author_domain.name, "A")
    except NoSuchTarget:  # the author domain is an alias and so exists; the response code is its target's (RFC 6604 3, RFC 8020 2)
        return below, tag, why
    except NoSuchName:  # RFC 9989 3.2.13: non-existent is NXDOMAIN, not the mere lack of addresses
        return record.np, "np", "the author domain does not exist"
    except NoData:
        return below, tag, why
    except LimitExceeded:  # the message's own doing: never to its advantage
        if record.np.strictness > below.strictness:
            return record.np, "np", "whether the author domain exists was not found out within the look-up limit"
        return below, tag, why
    except LookupFailed:
        return below, tag, f"{why}; whether it exists is unknown"
    return below, tag, why


def _policy_below(record: Record, p: Policy) -> tuple[Policy, Literal["p", "sp"], str]:
    if record.sp is not None:
        return record.sp, "sp", "the author domain is below the record's"
    return p, "p", "the author domain is below the record's, which has no sp"


def _judge(outcome: DomainOutcome, candidates: tuple[_Candidate, ...], discovery: Discovery) -> DomainOutcome:
    """The verdict, given the policy. Identifiers that did not pass are looked at only if none that passed is aligned."""
    record = outcome.published.record if outcome.published else None
    modes = {"spf": record.aspf, "dkim": record.adkim} if record else {}
    _prefetch(outcome.author_domain, candidates, modes, discovery)

    def judged(kind: str) -> dict[_Candidate, Identifier]:
        return {each: _identifier(each, outcome.author_domain, modes[each.method], discovery) for each in candidates if each.kind == kind}

    found = judged("passed")
    aligned = {identifier.method for identifier in found.values() if identifier.aligned}
    if not aligned:
        found |= judged("unanswered") | judged("testing")
    status, reason = _status(found, bool(aligned))
    identifiers = tuple(dict.fromkeys(found[each] for each in candidates if each in found))
    testing = any(each.kind == "testing" and identifier.aligned for each, identifier in found.items())
    return replace(
        outcome,
        status=status,
        reason=reason,
        identifiers=identifiers,
        spf_aligned="spf" in aligned,
        dkim_aligned="dkim" in aligned,
        testing_key_only=status is DmarcStatus.FAIL and testing,
        trace=(*outcome.trace, *map(_sentence, identifiers)),
    )


def _prefetch(author_domain: Domain, candidates: Iterable[_Candidate], modes: dict[str, AlignmentMode], discovery: Discovery) -> None:
    """Start all walks of identifiers that passed and that only a walk can decide."""
    if discovery.method == "treewalk":
        discovery.prefetch(
            each.domain
            for each in candidates
            if each.kind == "passed"
            and each.domain != author_domain
            and modes[each.method] is AlignmentMode.RELAXED
            and could_align(author_domain, each.domain, discovery)
        )


def _identifier(candidate: _Candidate, author_domain: Domain, mode: AlignmentMode, discovery: Discovery) -> Identifier:
    alignment = align(author_domain, candidate.domain, mode, discovery)
    return Identifier(
        method=candidate.method,
        domain=candidate.domain,
        status=candidate.status,
        aligned=alignment.aligned,
        mode=mode,
        organizational_domain=alignment.organizational_domain,
        selector=candidate.selector,
        note=alignment.note,
    )


def _status(found: dict[_Candidate, Identifier], aligned: bool) -> tuple[DmarcStatus, str]:
    """Aligned pass > DNS failure that could have given one > fail (SPEC C.4, C.8)."""
    if aligned:
        return DmarcStatus.PASS, "an aligned identifier passed"
    for candidate, identifier in found.items():
        if candidate.kind == "passed" and identifier.aligned is None:
            return DmarcStatus.TEMPERROR, "a DNS failure left open whether an identifier that passed is aligned"
        if candidate.kind == "unanswered" and identifier.aligned is not False:
            return DmarcStatus.TEMPERROR, "a DNS failure prevented an identifier that could be aligned"
    return DmarcStatus.FAIL, "no identifier that passed is aligned" if found else "no identifier passed"


def _sentence(identifier: Identifier) -> str:
    """One identifier for `check` and `why`."""
    name = f"{identifier.method} {identifier.status} for {identifier.domain}"
    verdict = {True: "aligned", False: "not aligned", None: "alignment unknown"}[identifier.aligned]
    return f"{name}: {verdict} ({'strict' if identifier.mode is AlignmentMode.STRICT else 'relaxed'}): {identifier.note}"
