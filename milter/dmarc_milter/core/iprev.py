"""Reverse DNS of the client (RFC 8601 3): which of its names resolve back to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Literal

from dmarc_milter.core import budget
from dmarc_milter.core.mail.domain import Domain, is_special_use, parse
from dmarc_milter.core.mail.ip_address import IPAddress, plain_address
from dmarc_milter.core.resolver import (
    LookupFailed,
    Missing,
    NoAnswer,
    Question,
    Resolver,
    gravest,
    missing,
)


class IprevStatus(StrEnum):
    """RFC 8601 2.7.3: never none."""

    PASS = "pass"
    FAIL = "fail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


@dataclass(frozen=True, slots=True)
class IprevResult:
    """What the client's address says of its names."""

    status: IprevStatus
    names: tuple[str, ...] = ()
    """Lower-case A-labels, only with a pass: those whose addresses include the client's."""
    reason: str = ""
    """Fixed vocabulary."""
    missing: Missing | None = None
    """With temperror: an answer that could not be had."""


def iprev(source_ip: IPAddress, resolver: Resolver) -> IprevResult:
    """The names in the PTR records of `source_ip` that have it among their addresses. At most 11
    look-ups. Never raises."""
    client = plain_address(source_ip)
    resolver = resolver.share(queries=budget.IPREV_QUERIES, seconds=budget.IPREV_SECONDS)
    try:
        found = resolver.ptr(client.reverse_pointer)
    except NoAnswer:
        return IprevResult(IprevStatus.PERMERROR, reason="no PTR record")
    except LookupFailed as failure:
        return IprevResult(
            IprevStatus.TEMPERROR, reason="PTR look-up failed", missing=missing(failure)
        )
    names = [
        name
        for name in map(parse, found[: budget.IPREV_NAMES])
        if isinstance(name, Domain) and not is_special_use(name.name)
    ]
    return _forward(client, names, resolver)


def _forward(client: IPAddress, names: list[Domain], resolver: Resolver) -> IprevResult:
    """Whether the names' addresses include the client's; only its own family can (RFC 8601 3)."""
    rdtype: Literal["A", "AAAA"] = "A" if client.version == 4 else "AAAA"
    resolver.prefetch(Question(name.name, rdtype) for name in names)
    proven: list[str] = []
    failed: Missing | None = None
    for name in names:
        try:
            addresses = resolver.addresses(name.name, rdtype)
        except NoAnswer:
            continue
        except LookupFailed as failure:
            failed = gravest((failed, missing(failure)))
            continue
        if client in map(ip_address, addresses):
            proven.append(name.name)
    return _judged(proven, failed)


def _judged(proven: list[str], failed: Missing | None) -> IprevResult:
    if proven:
        return IprevResult(IprevStatus.PASS, tuple(proven))
    if failed:
        return IprevResult(IprevStatus.TEMPERROR, reason="address look-up failed", missing=failed)
    return IprevResult(IprevStatus.FAIL, reason="no name resolves back")
