"""Failure reports (RFC 9991, RFC 6591): when one is asked for, what of the message goes into it,
and the mail itself.

Redacted before anything is stored (RFC 6590): header fields only, local parts of addresses
replaced, display names, Subject and whatever is not known to be harmless left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.policy import SMTP
from email.utils import format_datetime

import msgspec

from dmarc_milter import __version__
from dmarc_milter.core.dkim.result import DkimStatus
from dmarc_milter.core.dmarc.result import DmarcStatus, DomainOutcome
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.message import Headers
from dmarc_milter.core.report.aggregate import Reporter
from dmarc_milter.core.report.failure_sample import (
    HeaderSample,
    Kind,
    failed_signature,
    in_organization,
)
from dmarc_milter.core.report.mail import ADDRESS, REPORT_ID, counted, from_field
from dmarc_milter.core.report.redaction import MAX_HEADERS, folded, redacted
from dmarc_milter.core.report.redaction_words import token
from dmarc_milter.core.spf.check import SpfStatus
from dmarc_milter.core.stored import DkimFact, Facts
from dmarc_milter.core.text import printable

MAX_BRIEF = 1024
"""Bytes of the header fields where many messages fail at once: most of them only become incidents
of a report that is there already."""


@dataclass(frozen=True, slots=True)
class FailureReport:
    """One failure report. `incidents` are the messages that it stands for; `authserv_id` names us
    in Authentication-Results."""

    reporter: Reporter
    authserv_id: str
    report_id: str
    facts: Facts
    header_sample: HeaderSample
    incidents: int = 1


def wanted(evaluation: Evaluation) -> Kind | None:
    """Which failure report the policy's owner asks for with `fo` (RFC 9989 4.7, 5.3), or None.

    Never for a public suffix's record (RFC 9991 5), and never for what could be an answer to a
    report of ours or somebody else's.
    """
    outcome, facts = evaluation.dmarc.outcome, evaluation.facts
    published = outcome.published if outcome is not None else None
    if outcome is None or published is None or not published.record.ruf:
        return None
    if published.record.psd == "y" or published.policy_domain in outcome.guarded:
        return None
    automatic = facts.is_report or facts.is_dsn or facts.auto_submitted
    if automatic or facts.to_reporting or facts.from_reporting:
        return None
    return _asked_for(evaluation, outcome, set(published.record.fo.split(":")))


def _asked_for(evaluation: Evaluation, outcome: DomainOutcome, options: set[str]) -> Kind | None:
    judged = outcome.status in (DmarcStatus.PASS, DmarcStatus.FAIL)
    if judged and "1" in options and not (outcome.spf_aligned and outcome.dkim_aligned):
        return "dmarc"
    if outcome.status is DmarcStatus.FAIL and "0" in options:
        return "dmarc"
    if "d" in options and any(
        signature.status in (DkimStatus.FAIL, DkimStatus.PERMERROR) for signature in evaluation.dkim
    ):
        return "dkim"
    if "s" in options and evaluation.spf.status not in (SpfStatus.PASS, SpfStatus.TEMPERROR):
        return "spf"
    return None


def header_sample(
    evaluation: Evaluation, headers: Headers, key: bytes, *, brief: bool = False
) -> bytes | None:
    """The stored sample of a message whose policy asks for a failure report; None for all others.
    `key` makes the replacements ours."""
    kind = wanted(evaluation)
    if kind is None:
        return None
    sender = evaluation.envelope.mail_from
    local = sender.local_part.encode("utf-8", "surrogateescape") if sender.local_part else b""
    failed = next(
        (
            signature
            for signature in evaluation.dkim
            if signature.status is not DkimStatus.PASS and signature.domain
        ),
        None,
    )
    found = HeaderSample(
        kind=kind,
        headers=redacted(headers, key, MAX_BRIEF if brief else MAX_HEADERS),
        mail_from=f"{token(local, key)}@{sender.domain}" if sender.domain else "",
        spf_record=printable(evaluation.spf.record, 1000),
        identity=failed.identifier if failed else "",
    )
    return msgspec.msgpack.encode(found)


def compose(report: FailureReport, boundary: str, *, recipient: str, now: datetime) -> bytes:
    """The whole mail for one recipient, 7-bit. `boundary` is unguessable. Raises ValueError for an
    address that is none."""
    sender = report.reporter.email
    if not (
        ADDRESS.fullmatch(sender)
        and ADDRESS.fullmatch(recipient)
        and REPORT_ID.fullmatch(report.report_id)
    ):
        raise ValueError("not an address in plain form")
    parts = (
        ("text/plain; charset=us-ascii", _words(report)),
        ("message/feedback-report", b"".join(_feedback(report))),
        ("text/rfc822-headers", report.header_sample.headers),
    )
    if any(boundary.encode() in content for _, content in parts):
        raise ValueError("the boundary stands in the content")
    top = [
        f"Date: {format_datetime(now)}",
        f"From: {written_from(report.reporter)}",
        f"To: {recipient}",
        f"Subject: DMARC failure report for {report.facts.author_domain}",
        f"Message-ID: <{report.report_id}@{report.reporter.domain}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=feedback-report;\r\n boundary="{boundary}"',
        "",
        "",
    ]
    body = b"".join(
        f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + content + b"\r\n"
        for kind, content in parts
    )
    return "\r\n".join(top).encode("ascii") + body + f"--{boundary}--\r\n".encode()


def written_from(reporter: Reporter) -> str:
    """The From field's text, ASCII, folded."""
    policy = SMTP.clone(max_line_length=76)
    text: str = policy.fold(
        "From", policy.header_factory("From", str(from_field(reporter.org_name, reporter.email)))
    )
    return text.removeprefix("From:").strip()


def _words(report: FailureReport) -> bytes:
    """The part for people."""
    facts = report.facts
    failing = (
        "did not authenticate as such"
        if facts.status == "fail"
        else "failed a check that you want to know of"
    )
    lines = [
        (
            f"A message from {facts.source_ip} that names {facts.author_domain} as its author"
            f" {failing}."
        ),
        f"It arrived {_date(facts.at)}; dmarc={facts.status}, disposition {facts.disposition}.",
        (
            f"{counted(report.incidents, 'such message')} are represented by this report."
            if report.incidents > 1
            else ""
        ),
        "Local parts of addresses, display names and the subject have been removed.",
        "",
    ]
    return "\r\n".join(lines).encode("ascii", "replace")


def _feedback(report: FailureReport) -> Iterator[bytes]:
    """message/feedback-report: RFC 5965 3, RFC 6591 3.1, RFC 9991 3."""
    facts, found = report.facts, report.header_sample
    yield folded("Feedback-Type", "auth-failure")
    yield folded("User-Agent", f"dmarc-milter/{__version__}")
    yield folded("Version", "1")
    yield folded("Auth-Failure", _auth_failure(found.kind, failed_signature(facts)))
    yield folded("Authentication-Results", f"{report.authserv_id}; {_result(report)}")
    yield folded("Original-Mail-From", f"<{found.mail_from}>")
    yield folded("Arrival-Date", _date(facts.at))
    if facts.source_ip:
        yield folded("Source-IP", facts.source_ip)
    yield folded("Reported-Domain", facts.author_domain)
    yield folded(
        "Delivery-Result",
        {"reject": "reject", "quarantine": "spam"}.get(facts.disposition, "delivered"),
    )
    yield folded("Incidents", str(report.incidents))
    if facts.outcome is not None:
        # RFC 9991 3: the mechanisms that did not authenticate an aligned identity (RFC 7489 listed
        # those that did).
        failed = [
            name
            for name, aligned in (
                ("dkim", facts.outcome.dkim_aligned),
                ("spf", facts.outcome.spf_aligned),
            )
            if not aligned
        ]
        yield folded("Identity-Alignment", ", ".join(failed) or "none")
    yield from _dkim(report)
    yield from _spf(report)


def _dkim(report: FailureReport) -> Iterator[bytes]:
    """Required where a signature of an aligned domain failed (RFC 9991 3); also when that is what
    the report is about."""
    signature = failed_signature(report.facts)
    if signature is None or not (
        report.header_sample.kind == "dkim" or in_organization(signature.domain, report.facts)
    ):
        return
    yield folded("DKIM-Domain", signature.domain)
    yield folded("DKIM-Identity", f"@{report.header_sample.identity or signature.domain}")
    yield folded("DKIM-Selector", signature.selector or "none")


def _spf(report: FailureReport) -> Iterator[bytes]:
    """SPF-DNS (RFC 6591 4): required where SPF failed for an aligned domain; also when that is what
    the report is about."""
    spf = report.facts.spf
    if spf is None or not spf.domain or spf.result == "pass":
        return
    if report.header_sample.kind == "spf" or in_organization(spf.domain, report.facts):
        record = report.header_sample.spf_record.replace("\\", "").replace('"', "")
        yield folded("SPF-DNS", f'txt : {spf.domain} : "{record}"')


def _auth_failure(kind: Kind, signature: DkimFact | None) -> str:
    """RFC 6591 3.2.2, RFC 9991 3."""
    if kind != "dkim":
        return kind
    reason = signature.reason if signature is not None else ""
    return (
        "bodyhash" if "body hash" in reason else "revoked" if "revoked" in reason else "signature"
    )


def _result(report: FailureReport) -> str:
    """One method's result as Authentication-Results has it (RFC 6591 3.1: a single method)."""
    facts = report.facts
    if report.header_sample.kind == "dmarc" or facts.spf is None:
        return f"dmarc={facts.status} header.from={facts.author_domain}"
    signature = failed_signature(facts)
    if report.header_sample.kind == "dkim" and signature is not None:
        return f"dkim={signature.result} header.d={signature.domain}" + (
            f" header.s={signature.selector}" if signature.selector else ""
        )
    identity = "helo" if facts.spf.scope == "helo" else "mailfrom"
    return f"spf={facts.spf.result}" + (
        f" smtp.{identity}={facts.spf.domain}" if facts.spf.domain else ""
    )


def _date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(at), UTC))
