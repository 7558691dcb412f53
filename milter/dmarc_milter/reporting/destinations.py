"""Where a report goes: each published address allowed, skipped with a reason, or left open until
the DNS answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dmarc_milter.config.checks import name
from dmarc_milter.config.schema_reporting import Reporting
from dmarc_milter.core.dmarc.record import MAX_URIS, ReportUri
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.report.aggregate import Format
from dmarc_milter.core.report.destination import (
    Authorization,
    Permission,
    host_of,
    takes_mail,
    verify,
)
from dmarc_milter.core.report.failing_readers import DATED, reader_at
from dmarc_milter.core.stored import StoredUri
from dmarc_milter.ledger.store.destinations import Authorisation
from dmarc_milter.reporting.context import Asked, ReportContext
from dmarc_milter.reporting.silence import barred

LONGEST_MEMORY = 86400


class ReportRecipient(NamedTuple):
    """An address that gets the report."""

    address: str
    format: Format
    why: str = ""
    """Why it is this form, or ""."""
    max_size: int | None = None


class Skipped(NamedTuple):
    """An address that does not, and why."""

    address: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReportRecipients:
    """`undecided` are addresses about which the DNS has not said yes or no."""

    allowed: tuple[ReportRecipient, ...]
    skipped: tuple[Skipped, ...]
    undecided: tuple[Skipped, ...]

    @property
    def why(self) -> str:
        """Everything that speaks against, in one line."""
        return "; ".join(
            f"{recipient.address}: {recipient.reason}"
            for recipient in (*self.skipped, *self.undecided)
        )


def choose(
    policy_domain: Domain,
    uris: Sequence[StoredUri],
    kind: Literal["rua", "ruf"],
    context: ReportContext,
) -> ReportRecipients:
    """Each address once, in the record's order (RFC 9990 3.5). Raises StoreError."""
    asked = context.ask()
    allowed: dict[str, ReportRecipient] = {}
    skipped: list[Skipped] = []
    undecided: list[Skipped] = []
    for uri in uris[:MAX_URIS]:
        if reason := _barred(uri.address, policy_domain, context):
            skipped.append(Skipped(uri.address, reason))
            continue
        answer = _permission(policy_domain, uri.address, kind, context, asked)
        if answer.permission is Permission.LATER:
            undecided.append(Skipped(uri.address, answer.reason))
        elif answer.permission is Permission.REFUSED:
            skipped.append(Skipped(uri.address, answer.reason))
        else:
            for address, max_size in _addresses(uri, answer):
                if reason := _barred(address, policy_domain, context):
                    skipped.append(Skipped(address, reason))
                    continue
                form = form_for(address, context.options)
                allowed.setdefault(address, ReportRecipient(address, *form, max_size))
    return ReportRecipients(tuple(allowed.values())[:MAX_URIS], tuple(skipped), tuple(undecided))


def _addresses(uri: StoredUri, answer: Authorization) -> list[tuple[str, int | None]]:
    """The address, or those that replace it, each with its size limit."""
    replaced = {address.address: address.max_size for address in answer.addresses}
    return list((replaced or {uri.address: uri.max_size}).items())


def _barred(address: str, policy_domain: Domain, context: ReportContext) -> str:
    return barred(address, policy_domain.name, context.options, context.store)


class FormChoice(NamedTuple):
    """The form of a destination's reports, and why it is not the usual one, or ""."""

    form: Format
    reason: str = ""


def form_for(address: str, options: Reporting) -> FormChoice:
    """The form that an address gets: as the administrator says for its domain, else as the
    installation does; `auto` is RFC 9990's unless its reader is known to fail on it."""
    host = host_of(address)
    if host is None:
        return FormChoice("rfc7489" if options.format == "rfc7489" else "rfc9990")
    lists: tuple[tuple[Format, list[str]], ...] = (
        ("rfc7489", options.rfc7489_destinations),
        ("rfc9990", options.rfc9990_destinations),
    )
    named = [
        (len(domain.name), form)
        for form, domains in lists
        for domain in map(name, domains)
        if host.is_at_or_below(domain)
    ]
    if named:
        form = max(named)[1]
        return FormChoice(form, f"{form}_destinations")
    if options.format != "auto":
        return FormChoice(options.format)
    reader = reader_at(host)
    return (
        FormChoice("rfc7489", f"its reader, {reader}, fails on RFC 9990 (list of {DATED})")
        if reader
        else FormChoice("rfc9990")
    )


def _permission(
    policy_domain: Domain,
    address: str,
    kind: Literal["rua", "ruf"],
    context: ReportContext,
    asked: Asked,
) -> Authorization:
    host = host_of(address)
    if host is None:
        return Authorization(Permission.REFUSED, "not an address")
    answer = _verified(policy_domain, host, kind, context, asked)
    if answer.permission is not Permission.GRANTED:
        return answer
    mail = takes_mail(host, asked.resolver)
    return answer if mail.permission is Permission.GRANTED else mail


def _verified(
    policy_domain: Domain,
    host: Domain,
    kind: Literal["rua", "ruf"],
    context: ReportContext,
    asked: Asked,
) -> Authorization:
    """External verification, remembered as long as the DNS allows (RFC 9990 4). What the DNS did
    not answer is never remembered."""
    known = context.store.destinations.authorisation(policy_domain.name, host.name, kind)
    if known is not None:
        outcome, _, reason = known.outcome.partition(" ")
        return Authorization(
            Permission(outcome), reason, tuple(_uri(address) for address in known.addresses)
        )
    answer = verify(policy_domain, host, kind, asked.resolver, context.organization(asked.resolver))
    holds = min(asked.holds(), LONGEST_MEMORY)
    if answer.permission is not Permission.LATER and holds >= 1:
        spelled = tuple(
            address.address if address.max_size is None else f"{address.address}!{address.max_size}"
            for address in answer.addresses
        )
        found = Authorisation(
            f"{answer.permission} {answer.reason}", spelled, context.now + int(holds)
        )
        context.store.destinations.authorise(policy_domain.name, host.name, kind, found)
    return answer


def _uri(text: str) -> ReportUri:
    """An address as it is remembered: the size, if any, after the last `!` behind the host."""
    local, _, rest = text.rpartition("@")
    host, _, size = rest.partition("!")
    return ReportUri(f"{local}@{host}", int(size) if size else None)
