"""Whether a report may go to an address: external verification (RFC 9990 4, RFC 9991 5), and
whether the host takes mail at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from dmarc_milter.core.dmarc.record import Record, ReportUri, parse
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain, Malformed
from dmarc_milter.core.resolver import LookupFailed, NoAnswer, NoSuchName, Resolver

MAX_NAME = 253
ADDRESS_TYPES: tuple[Literal["A", "AAAA"], ...] = ("A", "AAAA")


class Permission(StrEnum):
    """LATER: the DNS did not answer, so nothing is sent and nothing is given up."""

    GRANTED = "granted"
    REFUSED = "refused"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Authorization:
    """`addresses` replace the published one when not empty (an override rua or ruf at the same
    host)."""

    permission: Permission
    reason: str = ""
    """Fixed vocabulary, for `report list` and `preview`."""
    addresses: tuple[ReportUri, ...] = ()


def host_of(address: str) -> Domain | None:
    """The host of a mailto address: what is verified, counted and capped by."""
    found = domain.parse(address.rpartition("@")[2])
    return None if isinstance(found, Malformed) else found


def verify(
    policy_domain: Domain,
    host: Domain,
    kind: Literal["rua", "ruf"],
    resolver: Resolver,
    organization: Callable[[Domain], Domain | None],
) -> Authorization:
    """RFC 9990 4. `organization` gives a name's organizational domain, None where the DNS did not
    say. Never raises.

    The question is asked for the name where the policy record stands and the full host of the
    address.
    """
    if domain.is_special_use(host.name):
        return Authorization(
            Permission.REFUSED, "a special-use domain name: no host of the Internet has it"
        )
    ours, theirs = organization(policy_domain), organization(host)
    if policy_domain == host or (ours is not None and ours == theirs):
        return Authorization(Permission.GRANTED, "same organization")
    answer = _asked(f"{policy_domain}._report._dmarc.{host}", resolver)
    if isinstance(answer, Authorization):
        return answer
    if answer:
        return _granted(answer, host, kind)
    if ours is None or theirs is None:
        # Without an organizational domain only a positive answer is an answer: the two may be one
        # organization.
        return Authorization(
            Permission.LATER, "the DNS did not answer for the organizational domain"
        )
    return Authorization(
        Permission.REFUSED, "no authorisation record: the host did not ask for these reports"
    )


def _asked(name: str, resolver: Resolver) -> list[Record] | Authorization:
    """The authorisation records at that name, or why there can be none yet."""
    if len(name) > MAX_NAME:
        return Authorization(Permission.REFUSED, "the name of the authorisation record is too long")
    try:
        return [record for record in map(parse, resolver.txt(name)) if record is not None]
    except NoAnswer:
        return []
    except LookupFailed:
        return Authorization(
            Permission.LATER, "the DNS did not answer for the authorisation record"
        )


def _granted(records: list[Record], host: Domain, kind: Literal["rua", "ruf"]) -> Authorization:
    """Step 7: an override replaces the address; at another host it forbids both."""
    override = tuple(
        uri for record in records for uri in (record.rua if kind == "rua" else record.ruf)
    )
    if any(host_of(uri.address) != host for uri in override):
        return Authorization(Permission.REFUSED, "the authorisation record names another host")
    if not override and any(f"{kind}: scheme not supported" in record.errors for record in records):
        return Authorization(
            Permission.REFUSED, "the authorisation record wants them by other means than mail"
        )
    return Authorization(Permission.GRANTED, "authorised by the host", override)


def takes_mail(host: Domain, resolver: Resolver) -> Authorization:
    """Whether there is anywhere to send to: an MX that is not null (RFC 7505), or without any MX an
    address (RFC 5321 5.1). Never raises."""
    try:
        exchanges = resolver.mx(host.name)
        if all(not exchange for _, exchange in exchanges):
            return Authorization(Permission.REFUSED, "the host has a null MX: it takes no mail")
        return Authorization(Permission.GRANTED)
    except NoSuchName:
        return Authorization(Permission.REFUSED, "the host does not exist")
    except NoAnswer:
        return _has_address(host, resolver)
    except LookupFailed:
        return Authorization(Permission.LATER, "the DNS did not answer for the host's MX")


def _has_address(host: Domain, resolver: Resolver) -> Authorization:
    """The implicit MX: the host itself."""
    failed = False
    for rdtype in ADDRESS_TYPES:
        try:
            resolver.addresses(host.name, rdtype)
            return Authorization(Permission.GRANTED)
        except NoAnswer:
            continue
        except LookupFailed:
            failed = True
    if failed:
        return Authorization(Permission.LATER, "the DNS did not answer for the host's address")
    return Authorization(Permission.REFUSED, "the host has neither MX nor address")
