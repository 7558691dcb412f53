"""What a day has room for: mails in all, to a destination, and destinations that never got a report
before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address, ip_network
from itertools import islice

from dmarc_milter.core.report.destination import host_of
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store.deliveries import Delivery
from dmarc_milter.ledger.store.destinations import Limit
from dmarc_milter.ledger.store.reports import Report
from dmarc_milter.reporting.context import ReportContext

KNOWN_DAYS = 30
"""Days in which mail of the author's organization passed DMARC here."""
SHARE = 20
"""One of so many parts of the other first-time destinations is what one client network starts."""
OF_NETWORK = "new:net:"
"""Begins the scopes of a client network, of which a report may have several."""
MAX_ROWS = 2000
MAX_NETWORKS = 10
"""Networks of one report that are tried for room, those with most messages first."""


def reserved(delivery: Delivery, context: ReportContext) -> tuple[list[Limit], str]:
    """Take room for one mail: the limits that were taken, or those of the last try and the scope
    that is used up. Raises StoreError."""
    full, limits = "", list[Limit]()
    for limits in _ways(delivery, context):
        full = context.store.destinations.reserve(limits)
        if not full.startswith(OF_NETWORK):
            break
    return limits, full


def _ways(delivery: Delivery, context: ReportContext) -> Iterator[list[Limit]]:
    """The limits of this mail. Half of the first-time destinations are for domains whose mail
    passed here lately; of the others each client network starts a small part, so that nobody who
    invents domains uses them up. Invented domains may pass too: what passes from one network
    starts as many as that half has. A report has room where one of its networks has."""
    options = context.options
    host = host_of(delivery.address)
    limits = [
        Limit("all", options.max_per_day),
        Limit(f"destination:{host or ''}", options.max_per_destination),
    ]
    if not context.store.destinations.is_first(host.name if host else ""):
        yield limits
        return
    limits.append(Limit("new", options.max_new_destinations))
    report = context.store.reports.get(delivery.report_id)
    if report is None:
        yield limits
        return
    known = options.max_new_destinations // 2
    if _is_known(report, context):
        each = f"{OF_NETWORK}passed:", max(1, known)
    else:
        others = options.max_new_destinations - known
        limits.append(Limit("new:others", others))
        each = OF_NETWORK, max(1, others // SHARE)
    for network in _networks(report, context) or ["unknown"]:
        yield [*limits, Limit(f"{each[0]}{network}", each[1])]


def _is_known(report: Report, context: ReportContext) -> bool:
    since = context.now - KNOWN_DAYS * DAY
    return context.store.destinations.has_passed(report.organizational_domain, since)


def _networks(report: Report, context: ReportContext) -> list[str]:
    """The networks of the clients whose mail the report is about: /24 of IPv4, /64 of IPv6."""
    found: Counter[str] = Counter()
    for row, count in islice(context.store.reports.rows(report.id), MAX_ROWS):
        found[network_of(row.source_ip)] += count
    return [network for network, _ in found.most_common(MAX_NETWORKS)]


def network_of(address: str) -> str:
    """The /24 or /64 of an address, e.g. "192.0.2.0/24"; itself where it is none."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((ip, 24 if isinstance(ip, IPv4Address) else 64), strict=False))
