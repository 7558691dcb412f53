"""Identifier alignment (RFC 9989 4.4): the one place where it is computed."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from dmarc_milter.core.dmarc.discovery import Discovery
from dmarc_milter.core.dmarc.record import AlignmentMode
from dmarc_milter.core.dmarc.tree_walk import MAX_OPEN_STEPS, Walk, WalkStep
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.resolver import Missing, gravest


class Alignment(NamedTuple):
    aligned: bool | None
    """None: a DNS failure left it open."""
    organizational_domain: Domain | None = None
    """The identifier's, where it was looked for and is known."""
    note: str = ""
    missing: Missing | None = None
    """With None: the answer that could not be had."""


def align(
    author_domain: Domain, identifier: Domain, mode: AlignmentMode, discovery: Discovery
) -> Alignment:
    """Whether the identifier is aligned with the author domain. Asks the DNS only where its answer
    could make a difference."""
    if identifier == author_domain:
        return Alignment(True, note="same name")
    if mode is AlignmentMode.STRICT:
        return Alignment(False, note="another name, and alignment is strict")
    if discovery.method == "psl":
        theirs = discovery.listed_organization(identifier)
        same = theirs == discovery.listed_organization(author_domain)
        return Alignment(
            same, theirs, "same organizational domain" if same else "another organizational domain"
        )
    # An organizational domain is at or above its name, so a name outside the author's organization
    # needs no walk of its own: an attacker whose own DNS fails on purpose gains nothing.
    if not could_align(author_domain, identifier, discovery):
        return Alignment(False, note="not under the author's organizational domain")
    return _by_walks(discovery.reading(author_domain), discovery.reading(identifier))


def could_align(author_domain: Domain, identifier: Domain, discovery: Discovery) -> bool:
    """Whether a walk from the identifier could end where the author's does (relaxed alignment by
    tree walk)."""
    ends = discovery.reading(author_domain).possible_organizational_domains()
    return any(identifier.is_at_or_below(end) for end in ends)


def _by_walks(author: Walk, identifier: Walk) -> Alignment:
    """Compare organizational domains; where answers are missing, what every possible answer would
    give (docs/design.md, Decisions)."""
    missing = {step.name: step for step in (*author.open_steps, *identifier.open_steps)}
    same = _in_every_case(author, identifier, tuple(missing.values()))
    theirs = identifier.organizational_domain()
    if same is not None:
        return Alignment(
            same, theirs, "same organizational domain" if same else "another organizational domain"
        )
    if any(step.failed.kind == "limit" for step in missing.values() if step.failed):
        # The message used up its own look-ups: that never improves its verdict.
        return Alignment(False, theirs, "not decided within the look-up limit of the message")
    why = gravest(step.failed for step in missing.values())
    return Alignment(None, theirs, "a failed look-up leaves the organizational domain open", why)


def _in_every_case(author: Walk, identifier: Walk, missing: tuple[WalkStep, ...]) -> bool | None:
    """True or False if all answers to the missing steps agree on it, else None. Of many the
    possible ends of both walks are compared."""
    if len(missing) > MAX_OPEN_STEPS:
        common = (
            author.possible_organizational_domains() & identifier.possible_organizational_domains()
        )
        return None if common else False
    cases = set()
    for answers in product(*(step.possible for step in missing)):
        assumed = {step.name: psd for step, psd in zip(missing, answers, strict=True)}
        cases.add(
            author.organizational_domain(assumed) == identifier.organizational_domain(assumed)
        )
    return cases.pop() if len(cases) == 1 else None
