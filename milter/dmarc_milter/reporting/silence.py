"""Leaving an address alone after it failed: with reports about one domain, or altogether."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from dmarc_milter.config.checks import destination
from dmarc_milter.config.schema_reporting import Reporting
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.report.destination import host_of
from dmarc_milter.core.report.diagnosis import is_gone
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.resolver import LookupFailed, NoAnswer, Resolver
from dmarc_milter.ledger.store.destinations import ALWAYS, MANY_PAIRS, Suppression
from dmarc_milter.ledger.store.store import Store


class Failed(NamedTuple):
    """A permanent failure of an address with a report about a domain; `days` it is to be left
    alone. `own_mx`: 550 at RCPT, said by an MX of its own domain."""

    address: str
    policy_domain: str
    reason: str
    report_id: str
    days: float
    own_mx: bool = False


def silence(failed: Failed, store: Store) -> str:
    """Leave the address alone; what was done, as a sentence. The pair of address and policy domain
    alone, unless the address surely takes nothing, or failed with several domains lately. Raises
    StoreError."""
    until = int(store.clock() + failed.days * DAY)
    pair = Suppression(
        failed.address, 0, until, failed.reason, failed.report_id, failed.policy_domain
    )
    many = bool(failed.policy_domain) and store.destinations.suppress_pair(pair)
    if not (is_gone(failed.reason) or failed.own_mx or many or not failed.policy_domain):
        return (
            f"{failed.address}: no reports about {failed.policy_domain} for {failed.days:g} days:"
            f" {failed.reason}"
        )
    why = f"failed with {MANY_PAIRS} domains' reports; " if many else ""
    store.destinations.suppress(failed.address, until, why + failed.reason, failed.report_id)
    return f"{failed.address}: not written to for {failed.days:g} days: {why}{failed.reason}"


def subject(report_id: str, store: Store) -> str:
    """The policy domain that a report is about, or "". Raises StoreError."""
    report = store.reports.get(report_id)
    if report is not None:
        return report.policy_domain
    failure = store.failures.get(report_id)
    return failure.facts.policy_domain if failure is not None else ""


def is_own_mx(server: str, address: str, resolver: Resolver) -> bool:
    """Whether a host is one of those that take mail for the address (RFC 5321 5.1); False where the
    DNS does not say so. Never raises."""
    host = host_of(address)
    if host is None:
        return False
    server = server.strip().strip(".").lower()
    try:
        return server in (exchange.lower() for _, exchange in resolver.mx(host.name) if exchange)
    except NoAnswer:
        return server == host.name
    except LookupFailed:
        return False


def barred(address: str, policy_domain: str, options: Reporting, store: Store) -> str:
    """Why an address gets no report about that domain, as the configuration and the store have it;
    "" where it may. Raises StoreError."""
    if entry := _listed(address, policy_domain, options.never_report):
        return f"never_report has {entry}"
    found = store.destinations.suppression(address, policy_domain)
    if found is None:
        return ""
    until = "" if found.until >= ALWAYS else f" until {_day(found.until)}"
    return f"suppressed{until}: {found.reason}"


def _listed(address: str, policy_domain: str, entries: list[str]) -> str:
    """The entry that holds for an address or for the domain that the report is about."""
    host = host_of(address)
    names = [found for found in (host, Domain(policy_domain) if policy_domain else None) if found]
    for entry in map(destination, entries):
        if entry == address or (
            "@" not in entry and any(found.is_at_or_below(Domain(entry)) for found in names)
        ):
            return entry
    return ""


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
