"""The whole of what a domain publishes: policy by a walk, its record, the report addresses and
their permission, SPF."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from dmarc_milter.core.check_finding import LEVELS, Finding, Level
from dmarc_milter.core.dmarc.discovery import Discovery, DmarcOptions, PublicSuffixes
from dmarc_milter.core.dmarc.evaluate import evaluate
from dmarc_milter.core.dmarc.record import Record
from dmarc_milter.core.dmarc.result import DmarcStatus, DomainOutcome, PolicyPublished
from dmarc_milter.core.dmarc.tree_walk import WalkStep
from dmarc_milter.core.lint import near_misses
from dmarc_milter.core.lint import record as tags
from dmarc_milter.core.lint.silence import because
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.report.destination import Permission, host_of, takes_mail, verify
from dmarc_milter.core.resolver import Resolver
from dmarc_milter.core.spf.check import SpfResult, SpfStatus, check

PROBE = IPv4Address("192.0.2.255")
"""Nobody's address (RFC 5737): a record that lets it pass lets anyone pass, and one that does not
is read to its end."""
MANY_LOOKUPS = 8
"""Of the ten that are allowed: one more include at a provider, and the record breaks."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A report address, the host whose permission was asked, and the answer's words."""

    kind: Literal["rua", "ruf"]
    address: str
    permission: Permission
    reason: str


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything about one domain; `published` is None where no policy applies."""

    domain: Domain
    outcome: DomainOutcome
    sentence: str
    tags: tuple[tags.TagMeaning, ...]
    destinations: tuple[Destination, ...]
    spf: SpfResult
    findings: tuple[Finding, ...]

    @property
    def published(self) -> PolicyPublished | None:
        return self.outcome.published

    @property
    def worst(self) -> Level:
        """The most serious finding's level; a note when there is none."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default="note")


def survey(
    domain: Domain,
    resolver: Resolver,
    options: DmarcOptions = DmarcOptions(),
    suffixes: PublicSuffixes | None = None,
) -> Survey:
    """Ask everything that a receiver would ask, and a little more. Never raises."""
    nothing = SpfResult(SpfStatus.NONE, None)
    outcome = evaluate(Author(domain), nothing, (), resolver, options, suffixes).outcome
    assert outcome is not None  # an author with a domain has one
    discovery = Discovery(resolver, options, suffixes)
    published = outcome.published
    spf = check(Envelope(PROBE, domain.name, ReversePath("postmaster", domain)), resolver)
    destinations = tuple(_destinations(published, discovery)) if published else ()
    found = [*_policy(outcome, discovery), *(_of_record(published, discovery) if published else ())]
    found += [*_of_destinations(destinations), *_of_spf(spf, domain, resolver)]
    return Survey(
        domain=domain,
        outcome=outcome,
        sentence=(
            tags.sentence(published.record, published.policy_domain.name)
            if published
            else _no_policy(outcome)
        ),
        tags=tags.tags(published.record) if published else (),
        destinations=destinations,
        spf=spf,
        findings=tuple(found),
    )


def _no_policy(outcome: DomainOutcome) -> str:
    if outcome.status is DmarcStatus.TEMPERROR:
        return f"What {outcome.author_domain} publishes cannot be known now: {outcome.reason}."
    return (
        f"{outcome.author_domain} publishes no policy that applies ({outcome.reason}): receivers"
        " treat its mail as they like."
    )


def _policy(outcome: DomainOutcome, discovery: Discovery) -> Iterator[Finding]:
    """What discovery itself met on its way."""
    if outcome.status is DmarcStatus.TEMPERROR:
        yield Finding("unknown", "walk", outcome.reason)
    elif outcome.published is None:
        text = f"no DMARC policy applies to {outcome.author_domain}: {outcome.reason}"
        yield Finding("error", "record", text)
    author_walk = discovery.walk(outcome.author_domain)
    for step in (*author_walk.steps, *discovery.left_out(author_walk)):
        yield from _of_step(step, discovery.resolver)
        if step.record is not None and outcome.published is None:
            yield from tags.findings(step.record)
        yield from near_misses.at(
            step.name, discovery.resolver, has_policy=outcome.published is not None
        )
    if outcome.published is None:
        yield from near_misses.elsewhere(outcome.author_domain, discovery.resolver)
    if outcome.psl_organizational_domain:
        walk, listed = outcome.organizational_domain, outcome.psl_organizational_domain
        yield Finding(
            "warning",
            "walk",
            f"receivers of RFC 7489 take {listed} for the organization, those of RFC 9989 {walk}",
        )


def _of_step(step: WalkStep, resolver: Resolver) -> Iterator[Finding]:
    """What one name of the walk had."""
    if step.failed:
        place = f"_dmarc.{step.name}"
        why = because(place, resolver)
        yield Finding("unknown", "walk", f"the DNS did not answer for {place}{why}")
    if step.records > 1:
        yield Finding(
            "error",
            "walk",
            f"_dmarc.{step.name} has {step.records} DMARC records: receivers discard them all",
        )
    if step.guarded:
        yield Finding(
            "note",
            "psd",
            f"{step.name} is a public suffix whose record does not say psd=y; it is taken as if"
            " it did",
        )


def _of_record(published: PolicyPublished, discovery: Discovery) -> Iterator[Finding]:
    record = published.record
    yield from tags.findings(record)
    suffixes = discovery.suffixes
    is_suffix = suffixes is not None and suffixes.is_icann_suffix(published.policy_domain)
    if record.psd == "y" and suffixes is not None and not is_suffix:
        text = (
            f"psd=y declares {published.policy_domain} a public suffix: names below it are then"
            " organizations of their own"
        )
        yield Finding("warning", "psd", text)


def _destinations(published: PolicyPublished, discovery: Discovery) -> Iterator[Destination]:
    """Each address with the permission of its host (RFC 9990 4), and whether that host takes
    mail."""
    record: Record = published.record
    both: Iterable[tuple[Literal["rua", "ruf"], str]] = (
        *(("rua", uri.address) for uri in record.rua),
        *(("ruf", uri.address) for uri in record.ruf),
    )
    for kind, address in both:
        host = host_of(address)
        if host is None:
            continue
        answer = verify(
            published.policy_domain,
            host,
            kind,
            discovery.resolver,
            lambda name: _organization(name, discovery),
        )
        mail = takes_mail(host, discovery.resolver)
        worse = (
            mail
            if answer.permission is Permission.GRANTED and mail.permission is not Permission.GRANTED
            else answer
        )
        yield Destination(kind, address, worse.permission, worse.reason)


def _organization(name: Domain, discovery: Discovery) -> Domain | None:
    return (
        discovery.listed_organization(name)
        if discovery.method == "psl"
        else discovery.walk(name).organizational_domain()
    )


def _of_destinations(destinations: Iterable[Destination]) -> Iterator[Finding]:
    levels: dict[Permission, Level] = {Permission.REFUSED: "error", Permission.LATER: "unknown"}
    for destination in destinations:
        if destination.permission in levels:
            yield Finding(
                levels[destination.permission],
                destination.kind,
                f"{destination.address}: {destination.reason}",
            )


def _of_spf(spf: SpfResult, domain: Domain, resolver: Resolver) -> Iterator[Finding]:
    """The record as read to its end by a stranger's address."""
    if spf.permissive:
        yield Finding("error", "SPF", f"the record lets almost any address pass ({spf.mechanism})")
    match spf.status:
        case SpfStatus.NONE:
            yield Finding(
                "warning",
                "SPF",
                "there is no SPF record: only DKIM can make mail of this domain pass",
            )
        case SpfStatus.PERMERROR:
            yield Finding("error", "SPF", f"the record cannot be used: {spf.reason}")
        case SpfStatus.TEMPERROR:
            yield Finding("unknown", "SPF", f"{spf.reason}{because(domain.name, resolver)}")
        case SpfStatus.NEUTRAL:
            yield Finding(
                "warning",
                "SPF",
                "the record does not end in -all or ~all: it says nothing about strangers",
            )
        case _:
            pass
    if spf.status is not SpfStatus.PERMERROR and spf.lookups >= MANY_LOOKUPS:
        yield Finding(
            "warning", "SPF", f"{spf.lookups} of the 10 look-ups that are allowed are used"
        )
