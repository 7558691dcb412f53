"""What a message says of itself besides its author: for loop protection, `why` and `impact`."""

from __future__ import annotations

from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import Envelope, Headers
from dmarc_milter.core.quick_dataclass import quick_dataclass

IN_MESSAGE_ID = bytes(octet for octet in range(0x21, 0x7F) if octet not in b"<>")
MAX_LOOKED_AT = 4096
"""Bytes of a field's value that are read for facts."""


@quick_dataclass(frozen=True, slots=True)
class MessageFacts:
    """What the message says of itself, kept for loop protection and `why`. Nothing here is printed
    unvalidated."""

    message_id: str = ""
    """Printable ASCII without angle brackets, at most 250 bytes; "" when missing or odd."""
    auto_submitted: bool = False
    """RFC 3834 Auto-Submitted other than "no"."""
    is_dsn: bool = False
    """Null sender, or multipart/report."""
    is_report: bool = False
    """Looks like a DMARC aggregate or failure report (Subject of RFC 9990 3.5.3, or
    feedback-report)."""
    to_reporting: bool = False
    """A recipient is our own reporting or bounce address: such mail is never counted for reports
    (docs/design.md, Reports)."""
    from_reporting: bool = False
    """MAIL FROM is our own reporting or bounce address."""
    list_id: str = ""
    """The List-Id's name, validated as a domain name, for `impact`: evidence of nothing."""


def message_facts(
    headers: Headers,
    envelope: Envelope,
    *,
    to_reporting: bool = False,
    from_reporting: bool = False,
) -> MessageFacts:
    """What the header fields say, bounded and ASCII; whether our own reporting addresses are
    concerned, the caller knows."""
    content_type = _first(headers, b"content-type").lower()
    return MessageFacts(
        message_id=_message_id(_first(headers, b"message-id")),
        auto_submitted=any(_keyword(value) != b"no" for value in headers.values(b"auto-submitted")),
        is_dsn=envelope.mail_from.is_null or content_type.startswith(b"multipart/report"),
        is_report=_is_report(_first(headers, b"subject"), content_type),
        to_reporting=to_reporting,
        from_reporting=from_reporting,
        list_id=_list_name(_first(headers, b"list-id")),
    )


def _first(headers: Headers, name: bytes) -> bytes:
    """The topmost such field on one line, or nothing."""
    positions = headers.by_name.get(name)
    if positions is None:
        return b""
    value = headers.fields[positions[0]].value[:MAX_LOOKED_AT]
    return value.translate(None, b"\r\n").strip(b" \t")


def _message_id(value: bytes) -> str:
    """What stands in angle brackets, or the whole value of those who forget them (RFC 5322
    3.6.4)."""
    bare = value[1:-1] if value.startswith(b"<") and value.endswith(b">") else value
    odd = len(bare) > 250 or bare.translate(None, IN_MESSAGE_ID)
    return "" if odd else bare.decode("ascii")


def _keyword(value: bytes) -> bytes:
    """auto-submitted-type without comments and parameters after it (RFC 3834 5)."""
    return (
        value[:MAX_LOOKED_AT]
        .strip(b" \t\r\n")
        .partition(b";")[0]
        .partition(b"(")[0]
        .strip(b" \t\r\n")
        .lower()
    )


def _is_report(subject: bytes, content_type: bytes) -> bool:
    """An aggregate report's Subject (RFC 7489 7.2.1.1; RFC 9990 3.5.3: Report-ID is optional), or a
    failure report's type (RFC 5965 2)."""
    words = b" ".join(subject.lower().split())
    if words.startswith(b"report domain:") and b" submitter:" in words:
        return True
    return b"feedback-report" in content_type


def _list_name(value: bytes) -> str:
    """list-id: what stands in the last angle brackets (RFC 2919 3), when it is a domain name."""
    _, bracket, rest = value.rpartition(b"<")
    name = domain.parse(rest.partition(b">")[0]) if bracket else None
    return name.name if isinstance(name, Domain) else ""
