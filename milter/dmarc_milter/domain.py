"""A domain name as mail authentication compares it: lower-case A-labels, no trailing dot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Malformed:
    """The sender's mistake, as a value. `reason` is from a fixed vocabulary, never the sender's bytes."""

    reason: str


@dataclass(frozen=True, slots=True, order=True)
class Domain:
    """A syntactically valid domain name; build it with `parse`, never from unchecked text.

    `name` is ASCII, lower case, A-labels, LDH and underscore, at most 253 octets, no trailing dot.
    """

    name: str

    def __str__(self) -> str:
        return self.name

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, left-most first."""
        return tuple(self.name.split("."))

    def is_at_or_below(self, other: Domain) -> bool:
        """Whether this name is `other` or a subdomain of it."""
        return self.name == other.name or self.name.endswith("." + other.name)

    def right_most(self, count: int) -> Domain:
        """The name made of the `count` right-most labels (1 <= count <= number of labels)."""
        return Domain(".".join(self.labels[-count:]))
