"""Where a domain's policy is and which its organization is: the DNS Tree Walk (RFC 9989 4.10), or
RFC 7489's list and two queries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Protocol

from dmarc_milter.core.dmarc.record import MAX_RECORD, Record, parse
from dmarc_milter.core.dmarc.result import DiscoveryMethod, PolicyPublished
from dmarc_milter.core.dmarc.tree_walk import (
    MAX_LABELS,
    Walk,
    WalkStep,
    as_guarded,
    settled,
    targets,
)
from dmarc_milter.core.mail.domain import Domain, is_special_use
from dmarc_milter.core.resolver import (
    Kept,
    LookupFailed,
    Missing,
    NoAnswer,
    Question,
    Resolver,
    derive,
    gravest,
    missing,
)


@dataclass(frozen=True, slots=True)
class DmarcOptions:
    """The [dmarc] section: how policies are found."""

    discovery: DiscoveryMethod = "treewalk"
    psl_guard: bool = True
    """treewalk: a record without psd at an ICANN public suffix, or above one on the way, counts as
    psd=y; and no psd=y makes an ICANN public suffix the organization of a name below it. A psd=n
    stays what it is."""


class PublicSuffixes(Protocol):
    """The public suffix list. Names are A-labels; a single label that no rule mentions is a public
    suffix (rule `*`)."""

    def __hash__(self) -> int:
        """By identity: what was concluded by one list is no other's."""
        ...

    def is_icann_suffix(self, domain: Domain) -> bool:
        """Whether the name itself is a public suffix by the list's ICANN section."""
        ...

    def organizational_domain(self, domain: Domain) -> Domain | None:
        """The longest public suffix and one label more (RFC 7489 3.2), private section included;
        None for a suffix itself."""
        ...


UNANSWERED = {
    "dns": "the DNS did not answer",
    "limit": "look-up limit of the message reached",
    "time": "no time left for the DNS to answer",
    "shortage": "too busy to ask",
    "failure": "not asked",
}


def questions(
    author_domain: Domain,
    options: DmarcOptions = DmarcOptions(),
    suffixes: PublicSuffixes | None = None,
) -> tuple[Question, ...]:
    """What policy discovery for this author domain may ask: at most 8 questions, all known before
    the first answer; a ninth only below a registry of 7 labels (`Discovery.left_out`)."""
    return _questions(author_domain, options.discovery, suffixes)


@lru_cache(maxsize=1024)
def _questions(
    author_domain: Domain, method: DiscoveryMethod, suffixes: PublicSuffixes | None
) -> tuple[Question, ...]:
    names: Iterable[Domain] = targets(author_domain)
    if is_special_use(author_domain.name):
        names = ()
    elif method == "psl":
        names = dict.fromkeys((author_domain, _listed_organization(author_domain, suffixes)))
    return tuple(Question(f"_dmarc.{name}", "TXT") for name in names)


class PolicySearch(NamedTuple):
    """What policy discovery found: a policy, none, or that it cannot be known."""

    published: PolicyPublished | None = None
    failed: Missing | None = None
    supposed: PolicyPublished | None = None
    """Where an answer is missing: the policy with "no record" in its place."""
    trace: tuple[str, ...] = ()


class Discovery:
    """All discovery for one message; each name is asked once. Raises nothing."""

    def __init__(
        self,
        resolver: Resolver,
        options: DmarcOptions = DmarcOptions(),
        suffixes: PublicSuffixes | None = None,
    ) -> None:
        self.resolver = resolver
        self.options = options
        self.suffixes = suffixes
        self.rules = (options.discovery, options.psl_guard, suffixes)
        """All that a conclusion depends on besides a name and the DNS, for `derive`; the options
        themselves would be hashed anew each time."""
        self._steps: dict[Domain, WalkStep] = {}
        self._walks: dict[Domain, Walk] = {}

    @property
    def method(self) -> DiscoveryMethod:
        return self.options.discovery

    def policy(self, author_domain: Domain) -> PolicySearch:
        """The policy record for an author domain (RFC 9989 4.10.1, RFC 7489 6.6.3)."""
        return (
            self._policy_by_list(author_domain)
            if self.method == "psl"
            else self._policy_by_walk(author_domain)
        )

    def walk(self, start: Domain) -> Walk:
        """The tree walk from `start` (RFC 9989 4.10), as far as its answers lead."""
        walk = self._walks.get(start)
        if walk is None:
            key = ("walk", start.name, self.rules)
            walk = self._walks[start] = derive(
                self.resolver, key, lambda scope: _walked(self.within(scope), start)
            )
        return walk

    def reading(self, start: Domain) -> Walk:
        """The walk, its failing steps at public suffixes read as "no record" where a record there
        would give the same organization: a broken country-code domain must not leave everything
        below it open.

        The name that the walk starts from is no part of this: its record would be its own policy.
        """
        walk = self.walk(start)
        if not walk.open_steps:
            return walk
        labels = self.suffix_labels(start)
        suffixes = {
            step.name for step in walk.steps[1:] if step.failed and len(step.name.labels) <= labels
        }
        return settled(replace(walk, suffix_labels=labels), suffixes) if suffixes else walk

    def left_out(self, walk: Walk) -> tuple[WalkStep, ...]:
        """The organization's record where the author's walk did not ask for it and none is at its
        start: below a psd=y at the first name after the jump (RFC 9989 4.10 step 4). It comes
        before that one's (4.10.1)."""
        organization = walk.organizational_domain(walk.unread)
        names = {step.name for step in walk.steps}
        if walk.steps[0].record or organization is None or organization in names:
            return ()
        return (self.step(organization),)

    def within(self, scope: Resolver) -> Discovery:
        """Discovery that asks this resolver alone, so that it is known what its conclusions rest
        on."""
        return self if scope is self.resolver else Discovery(scope, self.options, self.suffixes)

    def prefetch(self, starts: Iterable[Domain]) -> None:
        """Let all walks from these names be asked side by side."""
        wanted = (start for start in starts if not is_special_use(start.name))
        names = dict.fromkeys(
            name for start in wanted for name in targets(start) if name not in self._steps
        )
        if len(names) > 1:
            self.resolver.prefetch(Question(f"_dmarc.{name}", "TXT") for name in names)

    def step(self, name: Domain) -> WalkStep:
        """The DMARC record at one name."""
        if name not in self._steps:
            self._steps[name] = self._ask(name)
        return self._steps[name]

    def listed_organization(self, domain: Domain) -> Domain:
        """The organizational domain by the public suffix list; a public suffix is its own."""
        return _listed_organization(domain, self.suffixes)

    def _ask(self, name: Domain) -> WalkStep:
        if is_special_use(name.name):
            return WalkStep(name)
        try:
            found = _dmarc_records(self.resolver.txt(f"_dmarc.{name}"))
        except NoAnswer:
            return WalkStep(name)
        except LookupFailed as failure:
            return WalkStep(
                name,
                possible=("", "u", "y", "n"),
                failed=missing(failure)._replace(name=failure.name or f"_dmarc.{name}"),
            )
        if len(found) != 1:
            return WalkStep(name, records=len(found))
        (record,) = found
        return WalkStep(name, record, (record.psd,), records=1)

    def suffix_labels(self, domain: Domain) -> int:
        """How many labels the longest public suffix above the name has."""
        counts = range(min(len(domain.labels) - 1, MAX_LABELS), 0, -1)
        return next(
            (count for count in counts if self.is_public_suffix(domain.right_most(count))), 0
        )

    def is_public_suffix(self, name: Domain) -> bool:
        """Whether the name itself is one, by the list's ICANN section or for having one label."""
        return "." not in name.name or (
            self.suffixes is not None and self.suffixes.is_icann_suffix(name)
        )

    def _policy_by_walk(self, author_domain: Domain) -> PolicySearch:
        """The author domain's record, else the organizational domain's, else the public suffix's
        (RFC 9989 4.10.1)."""
        walk = self.reading(author_domain)
        steps = (*walk.steps, *self.left_out(walk))
        trace = tuple(map(_sentence, steps))
        published = _preferred(walk, steps)
        # Only the author's own record is independent of the rest of the walk: any other step could
        # have been a psd=n or psd=y.
        unanswered = (step.failed for step in steps if not step.settled)
        failed = None if walk.steps[0].record else gravest(unanswered)
        if published is None and failed is None:
            # What the DNS hides at a public suffix is read as "no record"; what we did not ask is
            # no answer.
            failed = gravest(
                step.failed for step in steps if step.failed and step.failed.kind != "dns"
            )
        if failed:
            return PolicySearch(failed=failed, supposed=published, trace=trace)
        return PolicySearch(published, trace=trace)

    def _policy_by_list(self, author_domain: Domain) -> PolicySearch:
        """Two queries at most; several records at a name end discovery (RFC 7489 6.6.3)."""
        trace: list[str] = []
        failed: Missing | None = None
        found: PolicyPublished | None = None
        for name in dict.fromkeys((author_domain, self.listed_organization(author_domain))):
            step = self.step(name)
            trace.append(_sentence(step))
            failed = gravest((failed, step.failed))
            if step.record:
                found = PolicyPublished(name, step.record, "psl")
            if step.records:
                break
        if failed:
            return PolicySearch(failed=failed, supposed=found, trace=tuple(trace))
        return PolicySearch(found, trace=tuple(trace))


def _preferred(walk: Walk, steps: Iterable[WalkStep]) -> PolicyPublished | None:
    """RFC 9989 4.10.1, steps without answer read as "no record". `steps`: all that was asked."""
    preferred = (
        walk.start,
        walk.organizational_domain(walk.unread),
        walk.steps[-1].name if walk.steps[-1].possible == ("y",) else None,
    )
    records = {step.name: step.record for step in steps if step.record}
    for name in preferred:
        if name and (record := records.get(name)):
            return PolicyPublished(name, record, "treewalk", _repeated(steps, name))
    return None


def _walked(discovery: Discovery, start: Domain) -> Kept:
    discovery.prefetch([start])
    guarded = discovery.options.psl_guard
    suffix_labels = discovery.suffix_labels(start) if guarded else 0
    steps: list[WalkStep] = []
    for name in targets(start):
        step = discovery.step(name)
        # Above a public suffix too: there a `*.kawasaki.jp` is, whose names are different people's.
        is_suffix = len(name.labels) <= suffix_labels or (
            name == start and discovery.is_public_suffix(name)
        )
        steps.append(as_guarded(step) if guarded and is_suffix else step)
        if steps[-1].possible in (("y",), ("n",)):
            break
    walk = Walk(start, tuple(steps), suffix_labels, guarded)
    return Kept(
        walk,
        keep=not walk.open_steps,
        size=500 + sum(300 + len(step.record.text) for step in steps if step.record),
    )


def _listed_organization(domain: Domain, suffixes: PublicSuffixes | None) -> Domain:
    return (suffixes.organizational_domain(domain) if suffixes else None) or domain


def _dmarc_records(texts: Iterable[bytes]) -> list[Record]:
    """The DMARC records among all TXT records of a name."""
    likely = (text for text in texts if text[:1] in b"vV" and len(text) <= MAX_RECORD)
    return [record for record in map(parse, likely) if record]


def _repeated(steps: Iterable[WalkStep], policy_domain: Domain) -> tuple[str, ...]:
    names = (
        step.name for step in steps if step.records > 1 and step.name.is_at_or_below(policy_domain)
    )
    return tuple(f"multiple records at _dmarc.{name}" for name in names)


def _sentence(step: WalkStep) -> str:
    """One step of discovery for `check`, `why` and `domain`."""
    where = f"_dmarc.{step.name}"
    if step.failed:
        read = (
            ', read as "no record": the organization is the same either way' if step.settled else ""
        )
        return f"{where}: {UNANSWERED[step.failed.kind]}{read}"
    if step.records > 1:
        return f"{where}: {step.records} DMARC records, all discarded"
    if step.record is None:
        return f"{where}: no DMARC record"
    guard = f" (counts as psd=y: {step.name} is a public suffix)" if step.guarded else ""
    return f"{where}: {step.record.text}{guard}"
