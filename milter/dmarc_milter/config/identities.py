"""Who reports on a message: the organization, or the identity of its recipients' domains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dmarc_milter.config.checks import in_a_labels, name
from dmarc_milter.config.schema_reporting import Reporting, ReportingIdentity
from dmarc_milter.core.mail.domain import Domain


def identify(identities: Sequence[ReportingIdentity]) -> Callable[[Sequence[str]], str]:
    """From the recipients' domains of a message (as the store spells them) to the reporting address
    of the first identity that all of them belong to; "" for the organization's own."""
    known = [
        (in_a_labels(identity.email), tuple(map(name, identity.recipient_domains)))
        for identity in identities
    ]

    def find(recipients: Sequence[str]) -> str:
        domains = [Domain(recipient) for recipient in recipients]
        return next(
            (
                email
                for email, theirs in known
                if domains and all(any(one.is_at_or_below(of) for of in theirs) for one in domains)
            ),
            "",
        )

    return find


def by_address(options: Reporting, email: str) -> ReportingIdentity | None:
    """The identity of a reporting address; None for the organization's own, or for one that the
    configuration no longer has."""
    return next(
        (identity for identity in options.identities if in_a_labels(identity.email) == email), None
    )


def reporting_addresses(options: Reporting) -> Iterator[str]:
    """Every address that reports come from, or that bounces go to; in A-labels."""
    for address in (
        options.email,
        options.bounce_address,
        *(identity.email for identity in options.identities),
    ):
        if address:
            yield in_a_labels(address)


def bounce_addresses(options: Reporting) -> list[str]:
    """The envelope senders of report mail, without their tags."""
    if options.bounce_address:
        return [in_a_labels(options.bounce_address)]
    return list(dict.fromkeys(reporting_addresses(options)))
