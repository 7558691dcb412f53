"""The keys of the configuration about reports: who sends them, to whom, in what form and how
many."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dmarc_milter.config.schema_policy import Section, doc


class ReportingIdentity(Section, frozen=True):
    """One [[reporting.identities]] entry: who reports on mail to these recipients' domains, where
    that is not the host's own organization."""

    recipient_domains: Annotated[
        list[str], doc("domains of recipients, and what is below; all of a message's must be here")
    ]
    org_name: Annotated[str, Meta(max_length=200, description="who reports")]
    email: Annotated[str, Meta(max_length=254, description="the reporting address")]
    extra_contact_info: Annotated[
        str, Meta(max_length=254, description="e.g. a URL about these reports")
    ] = ""
    dkim_domain: Annotated[
        str, doc("sign this identity's mail with this d=; empty = as the others are")
    ] = ""
    dkim_selector: Annotated[str, doc("s= of that signature")] = ""
    dkim_key_file: Annotated[str, doc("PEM private key of that signature")] = ""


class Reporting(Section, frozen=True):
    """Reports to the domains whose mail was seen. Nothing is sent until org_name and email are
    set."""

    org_name: Annotated[str, Meta(max_length=200, description="who reports, in every report")] = ""
    email: Annotated[
        str,
        Meta(
            max_length=254,
            description="the reporting address: contact, and From of the report mail",
        ),
    ] = ""
    extra_contact_info: Annotated[
        str, Meta(max_length=254, description="e.g. a URL about these reports")
    ] = ""
    format: Annotated[
        Literal["auto", "rfc9990", "rfc7489"],
        doc(
            "form of aggregate reports: auto = RFC 9990's, but RFC 7489's for destinations whose"
            " reader is known to fail on it (docs/reference/reports.md)"
        ),
    ] = "auto"
    rfc7489_destinations: Annotated[
        list[str], doc("destination domains, and what is below, that get the RFC 7489 form")
    ] = msgspec.field(default_factory=list)
    rfc9990_destinations: Annotated[
        list[str],
        doc(
            "destination domains, and what is below, that get the RFC 9990 form; of both lists the"
            " longest domain counts"
        ),
    ] = msgspec.field(default_factory=list)
    never_report: Annotated[
        list[str],
        doc(
            "addresses and domains that get no reports; a domain stands for what is below it, and"
            " no reports about it are sent either"
        ),
    ] = msgspec.field(default_factory=list)
    report_domains: Annotated[
        Literal["all", "known"], doc("known = only domains that once passed here")
    ] = "all"
    honor_ri: Annotated[
        bool, doc("shorter periods, from one hour, where the record's ri asks for them")
    ] = False
    smtp: Annotated[str, doc('"HOST:PORT" that takes the report mail')] = "127.0.0.1:25"
    smtp_tls: Annotated[
        Literal["none", "opportunistic", "verify"],
        doc(
            "STARTTLS: never, if offered, or required with a valid certificate; at port 465 TLS"
            " begins at once, but not with none"
        ),
    ] = "none"
    smtp_user: Annotated[str, doc("login for the SMTP server; empty = no authentication")] = ""
    smtp_password_file: Annotated[
        str, doc("file holding the password; $CREDENTIALS_DIRECTORY/smtp-password is tried too")
    ] = ""
    bounce_address: Annotated[
        str, doc("envelope sender, made unique by +ID before the @; empty = email")
    ] = ""
    dkim_domain: Annotated[str, doc("sign report mail with this d=; empty = not signed here")] = ""
    dkim_selector: Annotated[str, doc("s= of that signature")] = ""
    dkim_key_file: Annotated[str, doc("PEM private key of that signature")] = ""
    copy_to: Annotated[
        str,
        doc(
            "an address, or a folder (/PATH), that keeps a copy of every report mail that was sent;"
            " empty = none is kept"
        ),
    ] = ""
    max_per_day: Annotated[int, Meta(ge=0, description="report mails a day in all")] = 5000
    max_per_destination: Annotated[
        int, Meta(ge=0, description="report mails a day to one destination domain")
    ] = 100
    max_new_destinations: Annotated[
        int,
        Meta(
            ge=0,
            description=(
                "destination domains a day that never got a report before; half of them are for"
                " domains whose mail passed DMARC here in 30 days. One client /24 or /64 starts at"
                " most 5 % of the others, and half of all by mail that passes"
            ),
        ),
    ] = 200
    max_size: Annotated[int, Meta(ge=10_000, description="bytes of one compressed report")] = (
        10 * 1024 * 1024
    )
    retry_hours: Annotated[
        float, Meta(gt=0, le=720, description="hours after which an undelivered report expires")
    ] = 72.0
    suppress_days: Annotated[
        float,
        Meta(ge=0, le=3650, description="days without reports to an address after hard bounces"),
    ] = 30.0
    spread_minutes: Annotated[
        float,
        Meta(ge=0, le=720, description="minutes over which the reports of a period are spread"),
    ] = 45.0
    failure_reports: Annotated[bool, doc("send failure reports (ruf, RFC 9991)")] = False
    failure_per_destination: Annotated[
        int, Meta(ge=0, description="failure reports a day to one destination domain")
    ] = 10
    failure_per_day: Annotated[int, Meta(ge=0, description="failure reports a day in all")] = 200

    identities: list[ReportingIdentity] = msgspec.field(default_factory=list)

    @property
    def is_on(self) -> bool:
        """Reports are sent once somebody has said in whose name."""
        return bool(self.org_name and self.email)
