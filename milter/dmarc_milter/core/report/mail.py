"""The mail that carries an aggregate report: file name, subject, identifiers and MIME by RFC 9990
3.5 (RFC 7489 7.2.1.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

import dkim

from dmarc_milter.core.report.aggregate import Feedback
from dmarc_milter.core.report.rows import Row

WIDE = SMTP.clone(max_line_length=998)
"""No folding inside tokens: subjects and file names stay literal (RFC 9990 3.5.3 forbids
encoded-words)."""
NARROW = SMTP.clone(max_line_length=76)
"""For bodies: base64 and quoted-printable have no longer lines (RFC 2045 6.7, 6.8)."""
ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[a-z0-9_-]+(?:\.[a-z0-9_-]+)+"
)
REPORT_ID = re.compile(r"[0-9a-f]{32}")
TOP_SOURCES = 10


@dataclass(frozen=True, slots=True)
class Letter:
    """What the mail is made of: stored when the report is built, so that a later configuration
    changes nothing of its identity."""

    report_id: str
    policy_domain: str
    sender: str
    filename: str
    text: str
    attachment: bytes

    @property
    def submitter(self) -> str:
        """The generator's domain, as the file name has it."""
        return self.filename.partition("!")[0]

    @property
    def subject(self) -> str:
        """RFC 9990 3.5.3."""
        return (
            f"Report Domain: {self.policy_domain} Submitter: {self.submitter} Report-ID:"
            f" {self.report_id}"
        )


@dataclass(frozen=True, slots=True)
class SigningKey:
    """DKIM key of the report mail. `pem` is an unencrypted RSA private key."""

    domain: str
    selector: str
    pem: bytes


def filename(feedback: Feedback) -> str:
    """receiver!policy-domain!begin!end!id.xml.gz (RFC 9990 3.5.2): from checked names only, so it
    cannot leave a folder."""
    period = feedback.period
    times = f"{period.begin}!{period.end - 1}"
    domains = f"{feedback.reporter.domain}!{feedback.published.policy_domain}"
    return f"{domains}!{times}!{feedback.report_id}.xml.gz"


def encoded_size(attachment: bytes) -> int:
    """Bytes of the attachment as it is sent: base64 in lines of 57 bytes, each with its end (RFC
    7489 7.2.1.1 counts them so)."""
    return (len(attachment) + 2) // 3 * 4 + 2 * ((len(attachment) + 56) // 57)


def verp(bounce_address: str, report_id: str, tag: str) -> str:
    """The envelope sender that tells which delivery of which report bounced: local+ID-TAG@domain.

    Every address that gets the report knows its id; the tag, eight random hexadecimal digits,
    only the one that it was made for. Nobody can therefore let another's address bounce.
    """
    local, _, domain = bounce_address.rpartition("@")
    return f"{local}+{report_id}-{tag:0>8}@{domain}"


def from_verp(address: str) -> tuple[str, str] | None:
    """(report id, tag of the delivery) of such an address, or None."""
    match = re.search(r"\+([0-9a-f]{32})-([0-9a-f]{8})@", address)
    return (match[1], match[2]) if match else None


def write(letter: Letter, recipient: str, *, now: datetime) -> EmailMessage:
    """The mail for one recipient, ASCII throughout. Raises ValueError for an address that is
    none."""
    if not (
        ADDRESS.fullmatch(letter.sender)
        and ADDRESS.fullmatch(recipient)
        and REPORT_ID.fullmatch(letter.report_id)
    ):
        raise ValueError("not an address in plain form")
    message = EmailMessage(NARROW)
    message["Date"] = format_datetime(now)
    message["From"] = letter.sender
    message["To"] = recipient
    message["Subject"] = letter.subject
    message["Message-ID"] = f"<{letter.report_id}@{letter.submitter}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        letter.text, charset="utf-8", cte="7bit" if letter.text.isascii() else "quoted-printable"
    )
    message.add_attachment(
        letter.attachment, maintype="application", subtype="gzip", filename=letter.filename
    )
    message.set_boundary(f"=_{letter.report_id}")
    message.policy = WIDE
    return message


def sign(message: bytes, key: SigningKey) -> bytes:
    """The mail with a DKIM signature on top (RFC 6376; rsa-sha256, relaxed/relaxed). Raises
    ValueError for an unusable key."""
    names = [
        b"From",
        b"To",
        b"Subject",
        b"Date",
        b"Message-ID",
        b"MIME-Version",
        b"Content-Type",
        b"Auto-Submitted",
    ]
    try:
        field = dkim.sign(
            message,
            key.selector.encode("ascii"),
            key.domain.encode("ascii"),
            key.pem,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=names,
        )
    except Exception as error:  # dkimpy raises many kinds for a bad key
        raise ValueError(f"the report mail cannot be signed: {error}") from None
    return bytes(field) + message


def summary(feedback: Feedback) -> str:
    """The human part: what the report says, for somebody who opens the mail. ASCII but for the
    organization's name."""
    begin, end = (
        datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d %H:%M")
        for end in (feedback.period.begin, feedback.period.end)
    )
    failing = _failing(feedback.rows)
    failed = sum(count for _, count in failing)
    lines = [
        f"DMARC aggregate report for {feedback.published.policy_domain}",
        f"from {feedback.reporter.org_name} <{feedback.reporter.email}>",
        f"for {begin} to {end} UTC, id {feedback.report_id}",
        "",
        (
            f"{feedback.messages} messages claimed to be from this domain; {failed} of them failed"
            " DMARC."
        ),
    ]
    if failing:
        lines += ["", "Messages that failed, by client address:"]
        lines += [f"{count:>10}  {source}" for source, count in failing[:TOP_SOURCES]]
        if len(failing) > TOP_SOURCES:
            lines.append(f"            and {len(failing) - TOP_SOURCES} more addresses")
    lines += ["", "All figures are in the attached XML document." if feedback.rows else "", ""]
    return "\n".join(lines)


def _failing(rows: tuple[tuple[Row, int], ...]) -> list[tuple[str, int]]:
    """Sources of mail that failed, most messages first."""
    totals: dict[str, int] = {}
    for row, count in rows:
        if not (row.dkim_aligned or row.spf_aligned):
            totals[row.source_ip] = totals.get(row.source_ip, 0) + count
    return sorted(totals.items(), key=lambda item: (-item[1], item[0]))
