"""The DNS Tree Walk (RFC 9989 4.10): what each of its queries said, and which organization that
gives (4.10.2), also where answers are missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

from dmarc_milter.core.dmarc.record import Record
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.resolver import Missing

MAX_LABELS = 7
"""A longer name is looked at itself, then from its 7 right-most labels up: 8 queries at most (RFC
9989 4.10 step 4)."""
MAX_OPEN_STEPS = 3
"""Up to here every combination of missing answers is tried (64 at most)."""


def targets(domain: Domain) -> Iterator[Domain]:
    """The names whose `_dmarc` a walk from `domain` asks for, in order, if no psd stops it (RFC
    9989 4.10)."""
    yield domain
    for count in range(min(len(domain.labels) - 1, MAX_LABELS), 0, -1):
        yield domain.right_most(count)


class WalkStep(NamedTuple):
    """What one `_dmarc` query of a walk said."""

    name: Domain
    record: Record | None = None
    possible: tuple[str, ...] = ("",)
    """What psd may be here: "y", "n", "u", or "" for no record. One value, or several where the
    answer is missing."""
    failed: Missing | None = None
    """There was no answer."""
    settled: bool = False
    """There was no answer, and the step is read as "no record", because it is all the same
    (`settled`)."""
    records: int = 0
    """How many DMARC records were there; more than one are all discarded."""
    guarded: bool = False
    """psl_guard made this record count as psd=y."""


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk from `start`: ended by a psd=y or psd=n that is certain; steps without answer are
    passed over and kept as open."""

    start: Domain
    steps: tuple[WalkStep, ...]
    suffix_labels: int = 0
    """How many labels the longest public suffix above the start has; with psl_guard, and in a
    reading (`Discovery.reading`)."""
    guarded: bool = False
    """psl_guard is on."""

    @property
    def open_steps(self) -> tuple[WalkStep, ...]:
        return tuple(step for step in self.steps if step.failed and not step.settled)

    @property
    def unread(self) -> dict[Domain, str]:
        """What `organizational_domain` takes to read each open step as "no record"."""
        return {step.name: "" for step in self.open_steps}

    def organizational_domain(self, assumed: Mapping[Domain, str] | None = None) -> Domain | None:
        """RFC 9989 4.10.2. `assumed` gives psd for the open steps; None if one of them is left
        open."""
        fewest_labels = self.start
        for step in self.steps:
            psd = (
                step.possible[0]
                if not step.failed or step.settled
                else (assumed or {}).get(step.name)
            )
            if psd is None:
                return None
            if psd == "n" or (psd == "y" and step.name == self.start):
                return step.name
            if psd == "y":
                return self._one_below(step)
            if psd == "u":
                fewest_labels = step.name
        return fewest_labels

    def possible_organizational_domains(self) -> frozenset[Domain]:
        """Every organizational domain that some answer to the open steps would give."""
        ends: set[Domain] = set()
        fewest_labels = {self.start}
        for step in self.steps:
            if "n" in step.possible or ("y" in step.possible and step.name == self.start):
                ends.add(step.name)
            if "y" in step.possible and step.name != self.start:
                ends.add(self._one_below(step))
            if "u" in step.possible:
                fewest_labels = fewest_labels | {step.name} if "" in step.possible else {step.name}
            elif "" not in step.possible:
                return frozenset(ends)
        return frozenset(ends | fewest_labels)

    def _one_below(self, step: WalkStep) -> Domain:
        """One label below the step on the path to the start, whether or not it was asked for. No
        public suffix becomes an organization by a psd=y that is only supposed, nor with psl_guard
        by one that is there: `co.uk` is none, whatever `uk` says."""
        labels = len(step.name.labels)
        if step.failed or self.guarded:
            labels = max(labels, self.suffix_labels)
        return self.start.right_most(labels + 1)


def as_guarded(step: WalkStep) -> WalkStep:
    """psl_guard: at a public suffix there is no record without psd."""
    if step.failed:
        return step._replace(possible=("", "y", "n"))
    return step._replace(possible=("y",), guarded=True) if step.possible == ("u",) else step


def settled(walk: Walk, suffixes: set[Domain]) -> Walk:
    """With these steps read as "no record", if by every combination of the other answers a record
    there changes nothing."""
    others = [step for step in walk.open_steps if step.name not in suffixes]
    if len(others) > MAX_OPEN_STEPS:
        return walk
    for answers in product(*(step.possible for step in others)):
        assumed = {step.name: psd for step, psd in zip(others, answers, strict=True)}
        cases = product(("", "y"), repeat=len(suffixes))
        ends = {
            walk.organizational_domain(assumed | dict(zip(suffixes, case, strict=True)))
            for case in cases
        }
        if len(ends) > 1:
            return walk
    steps = (
        step._replace(possible=("",), settled=True) if step.name in suffixes else step
        for step in walk.steps
    )
    return replace(walk, steps=tuple(steps))
