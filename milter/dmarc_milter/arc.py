"""ARC chains (RFC 8617) by dkimpy's primitives. Detachable: nothing but authenticate.py and the cli imports this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dmarc_milter.domain import Domain
from dmarc_milter.lookup import Question, Resolver
from dmarc_milter.message import BodyHash, Headers, Message


class ArcStatus(StrEnum):
    """RFC 8617 4.4."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class ArcHop:
    """One set of the chain. The results are what its ARC-Authentication-Results says, read tolerantly; evidence, not truth."""

    instance: int
    sealer: Domain
    selector: str
    aar_dmarc: str = ""
    """The dmarc= word, lower case, or "" """
    aar_header_from: Domain | None = None
    aar_remote_ip: str = ""
    """smtp.remote-ip in canonical text form, or "" """


@dataclass(frozen=True, slots=True)
class ArcResult:
    status: ArcStatus
    hops: tuple[ArcHop, ...] = ()
    """Instance 1 first; only filled when status is pass."""
    oldest_pass: int | None = None
    """RFC 8617 5.2 (5): 0 if every ARC-Message-Signature verifies; None when not determined."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ArcOptions:
    enabled: bool = True
    max_instances: int = 50
    """RFC 8617 4.2.1."""
    max_lookups: int = 20
    """Different keys looked up for one message; a chain that names more is not valid."""


@dataclass(frozen=True, slots=True)
class ArcPlan:
    """What the header asks for, known before the body arrives."""

    body_hashes: frozenset[BodyHash] = frozenset()
    questions: tuple[Question, ...] = ()


def plan(headers: Headers, options: ArcOptions = ArcOptions()) -> ArcPlan:
    """The structure of the chain, judged before any look-up."""
    return ArcPlan()


def validate(message: Message, plan: ArcPlan, resolver: Resolver, options: ArcOptions = ArcOptions(), *, now: datetime) -> ArcResult:
    """RFC 8617 5.2. Never raises."""
    return ArcResult(ArcStatus.NONE)


def trusted_override(arc: ArcResult, author_domain: Domain, trusted_sealers: Sequence[Domain]) -> str | None:
    """The comment of an override (RFC 8617 7.2.2), or None when the chain gives no reason for one."""
    return None
