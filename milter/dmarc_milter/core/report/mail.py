"""The mail that carries an aggregate report: file name, subject, identifiers and MIME by RFC 9990
3.5 (RFC 7489 7.2.1.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, EmailPolicy
from email.utils import format_datetime

from dmarc_milter.core.report.aggregate import Feedback, Format
from dmarc_milter.core.report.rows import Row
from dmarc_milter.core.stored import StoredPolicy
from dmarc_milter.core.text import printable


class _Wide(EmailPolicy):
    """Lines as long as they may be, but for From: its encoded-words have 75 characters (RFC 2047
    2)."""

    def fold(self, name: str, value: str) -> str:
        policy = NARROW if name.lower() == "from" else SMTP.clone(max_line_length=998)
        return str(policy.fold(name, value))

    def fold_binary(self, name: str, value: str) -> bytes:
        return self.fold(name, value).encode("ascii", "surrogateescape")


WIDE = _Wide(linesep="\r\n", max_line_length=998)
"""No folding inside tokens: subjects and file names stay literal (RFC 9990 3.5.3 forbids
encoded-words)."""
NARROW = SMTP.clone(max_line_length=76)
"""For bodies: base64 and quoted-printable have no longer lines (RFC 2045 6.7, 6.8)."""
ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[a-z0-9_-]+(?:\.[a-z0-9_-]+)+"
)
REPORT_ID = re.compile(r"[0-9a-f]{32}")
TOP_SOURCES = 10
MAX_NAME = 60
"""Characters of a display name."""


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
    form: Format = "rfc9990"
    name: str = ""
    """Who sends it, for people: the display name of From."""

    @property
    def submitter(self) -> str:
        """The generator's domain, as the file name has it."""
        return self.filename.partition("!")[0]

    @property
    def subject(self) -> str:
        """RFC 9990 3.5.3; RFC 7489 7.2.1.1 wants a msg-id, with brackets and @."""
        identity = (
            f"<{self.report_id}@{self.submitter}>" if self.form == "rfc7489" else self.report_id
        )
        return (
            f"Report Domain: {self.policy_domain} Submitter: {self.submitter} Report-ID: {identity}"
        )


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


def from_field(name: str, address: str) -> Address:
    """The From of report mail. A name that is none, or that an address could hide in, is left
    out."""
    shown = printable(" ".join(name.split()), MAX_NAME, ascii_only=False)
    return Address("" if "@" in shown else shown, addr_spec=address)


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
    message["From"] = from_field(letter.name, letter.sender)
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


def summary(feedback: Feedback) -> str:
    """The human part: what the report says, for somebody who opens the mail. ASCII but for the
    organization's name and contact."""
    begin, end = (
        datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d %H:%M")
        for end in (feedback.period.begin, feedback.period.end)
    )
    reporter, domain = feedback.reporter, feedback.published.policy_domain
    contact = f" or {reporter.extra_contact_info}" if reporter.extra_contact_info else ""
    lines = [
        f"DMARC aggregate report for {domain}",
        f"from {reporter.org_name} <{reporter.email}>",
        f"for {begin} to {end} UTC, id {feedback.report_id}",
        "",
        f"{counted(feedback.messages, 'message')} claimed to be from this domain;"
        f" {_of_them(feedback)} DMARC.",
        f"The policy that we found: {_policy(feedback.published)}.",
        *_done(feedback),
        *_sources(_failing(feedback.rows)),
        "",
        f"You get this because the DMARC record of {domain} asks for it. There is nothing to"
        f" answer; if something looks wrong, a person reads {reporter.email}{contact}.",
        "All figures are in the attached XML document." if feedback.rows else "",
        "",
    ]
    return "\n".join(lines)


def counted(number: int, thing: str) -> str:
    """E.g. "1 message", "2 messages", "1,000 messages"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _of_them(feedback: Feedback) -> str:
    """How many failed, as a part of a sentence."""
    failed = sum(count for _, count in _failing(feedback.rows))
    if feedback.messages == 1:
        return "it failed" if failed else "it passed" if not feedback.folded else "0 of them failed"
    if not failed and not feedback.folded:
        return "all of them passed"
    return f"{failed:,} of them failed"


def _policy(published: StoredPolicy) -> str:
    tags = (("p", published.p or "none"), ("sp", published.sp), ("np", published.np))
    found = " ".join(f"{tag}={value}" for tag, value in tags if value)
    return f"{found}, in test (t=y)" if published.testing else found


def _done(feedback: Feedback) -> Iterator[str]:
    """What became of the messages."""
    totals: dict[str, int] = {}
    for row, count in feedback.rows:
        totals[row.disposition] = totals.get(row.disposition, 0) + count
    delivered = totals.get("none", 0) + totals.get("pass", 0)
    done = [
        (delivered, "delivered"),
        (totals.get("quarantine", 0), "quarantined"),
        (totals.get("reject", 0), "refused"),
    ]
    words = ", ".join(f"{number:,} {what}" for number, what in done if number)
    if words:
        yield f"What was done: {words}."
    if feedback.folded:
        yield f"{counted(feedback.folded, 'message')} had no room in the list."


def _sources(failing: list[tuple[str, int]]) -> Iterator[str]:
    if failing:
        yield ""
        yield "Messages that failed, by client address:"
        yield from (f"{count:>10,}  {source}" for source, count in failing[:TOP_SOURCES])
    if len(failing) > TOP_SOURCES:
        more = len(failing) - TOP_SOURCES
        yield f"            and {more:,} more {'address' if more == 1 else 'addresses'}"


def _failing(rows: tuple[tuple[Row, int], ...]) -> list[tuple[str, int]]:
    """Sources of mail that failed, most messages first."""
    totals: dict[str, int] = {}
    for row, count in rows:
        if not (row.dkim_aligned or row.spf_aligned):
            totals[row.source_ip] = totals.get(row.source_ip, 0) + count
    return sorted(totals.items(), key=lambda item: (-item[1], item[0]))
