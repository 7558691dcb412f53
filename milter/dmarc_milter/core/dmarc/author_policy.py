"""What the DNS says of an author domain, before anything of the message but its From: its
organization and the policy that a record asks for (RFC 9989 4.7, 4.10.1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

from dmarc_milter.core.dmarc.discovery import Discovery, DmarcOptions, PolicySearch, PublicSuffixes
from dmarc_milter.core.dmarc.record import Policy, Record
from dmarc_milter.core.dmarc.result import DmarcStatus, DomainOutcome, PolicyPublished
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
    missing,
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
    return published_by(author_domain, Discovery(resolver, options, suffixes))


def published_by(author_domain: Domain, discovery: Discovery) -> DomainOutcome:
    key = ("published", author_domain.name, discovery.rules)
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
        outcome = left_open(outcome, search.failed, POLICY_OPEN[search.failed.kind])
    return Kept(outcome, keep=outcome.missing is None, size=2000 + sum(map(len, outcome.trace)))


POLICY_OPEN = {
    "dns": "policy look-up failed",
    "limit": "look-up limit reached before the policy was found",
    "time": "no time left to look up the policy",
    "shortage": "too busy to look up the policy",
    "failure": "policy not looked up",
}


def left_open(outcome: DomainOutcome, missing: Missing | None, reason: str) -> DomainOutcome:
    """Neither pass nor fail, because this answer is missing."""
    return replace(outcome, status=DmarcStatus.TEMPERROR, missing=missing, reason=reason)


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
    sentences = [f"organizational domain of {name}: {organization}"] if organization else []
    sentences += [f"by the public suffix list it would be {listed}"] if differs else []
    return replace(
        outcome,
        organizational_domain=organization,
        psl_organizational_domain=listed if differs else None,
        guarded=tuple(step.name for step in walk.steps if step.guarded),
        trace=(*outcome.trace, *sentences),
    )


def _with_policy(
    outcome: DomainOutcome, search: PolicySearch, discovery: Discovery
) -> DomainOutcome:
    """What the record that was found asks for; where the search was left open, what it asks for as
    far as is known."""
    published = search.published or search.supposed
    if published is None:
        return replace(outcome, reason="no policy record")
    if not published.record.applies:
        note = (
            f"the record of {published.policy_domain} has no valid policy and no valid rua: DMARC"
            " does not apply"
        )
        return replace(
            outcome, reason="record without a valid policy", trace=(*outcome.trace, note)
        )
    asks = _policy(published, outcome.author_domain, discovery.resolver)
    supposed = ", unless a missing answer says otherwise" if search.failed else ""
    sentence = (
        f"the policy for {outcome.author_domain} is {asks.tag}={asks.policy} of"
        f" {published.policy_domain}: {asks.why}{supposed}"
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
