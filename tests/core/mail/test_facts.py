"""What a message says of itself (evaluation.message_facts): evidence for loop protection and `why`,
never printed unvalidated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.mail.facts import MessageFacts, message_facts
from dmarc_milter.core.mail.message import Envelope, HeaderField, Headers
from dmarc_milter.core.mail.path import reverse_path

SENDER = b"<a@legit.example>"


def facts(*fields: tuple[bytes, bytes], sender: bytes = SENDER) -> MessageFacts:
    """The facts of a message with these fields."""
    return message_facts(
        Headers(HeaderField(*field) for field in fields),
        Envelope(None, "h.example", reverse_path(sender)),
    )


def test_a_message_without_fields_says_nothing() -> None:
    """All defaults."""
    assert facts() == MessageFacts()


@pytest.mark.parametrize(
    ("value", "message_id"),
    [
        (b" <1@legit.example>", "1@legit.example"),
        (b"\r\n\t<1@legit.example>", "1@legit.example"),
        (b" 1@legit.example", "1@legit.example"),
        (b" <1 2@legit.example>", ""),
        (b" <1@legit.example> x", ""),
        (b" <<1@legit.example>>", ""),
        (b" <\xc3\xa9@legit.example>", ""),
        (b" <\x1b[31m@legit.example>", ""),
        (b" <" + b"1" * 251 + b">", ""),
        (b" <" + b"1" * 250 + b">", "1" * 250),
    ],
)
def test_a_message_id_is_printable_ascii_or_nothing(value: bytes, message_id: str) -> None:
    """RFC 5322 3.6.4; it is shown in logs and by `why`."""
    assert facts((b"Message-ID", value)).message_id == message_id


@pytest.mark.parametrize(
    ("value", "automatic"),
    [
        (b" auto-replied", True),
        (b" auto-generated; x=y", True),
        (b" no", False),
        (b" No (really)", False),
        (b" no; x=y", False),
        (b" none", True),
    ],
)
def test_automatic_mail_says_so(value: bytes, automatic: bool) -> None:
    """RFC 3834 5: everything but `no`."""
    assert facts((b"Auto-Submitted", value)).auto_submitted is automatic


def test_notifications_are_known_by_sender_or_type() -> None:
    """RFC 3464, RFC 5321 4.5.5; a malformed sender is not the null sender."""
    assert facts(sender=b"<>").is_dsn
    assert facts((b"Content-Type", b" Multipart/Report; report-type=delivery-status")).is_dsn
    assert not facts((b"Content-Type", b" text/plain")).is_dsn
    assert not facts(sender=b"<root>").is_dsn


@pytest.mark.parametrize(
    ("field", "is_report"),
    [
        ((b"Subject", b" Report Domain: a.example Submitter: b.example Report-ID: 1"), True),
        (
            (
                b"Subject",
                b" Report Domain: a.example\r\n\tSubmitter: b.example\r\n\tReport-ID: <1>",
            ),
            True,
        ),
        ((b"Subject", b" Report  Domain: a.example\r\n Submitter: b.example"), True),
        ((b"Subject", b" Report Domain: a.example"), False),
        ((b"Subject", b" Re: Report Domain: a.example Submitter: b.example Report-ID: 1"), False),
        ((b"Subject", b" Report Domain of the month"), False),
        ((b"Content-Type", b' multipart/report; report-type="feedback-report"'), True),
        ((b"Content-Type", b" multipart/report; report-type=delivery-status"), False),
    ],
)
def test_reports_are_known_by_subject_or_type(field: tuple[bytes, bytes], is_report: bool) -> None:
    """RFC 9990 3.5.3, RFC 5965 2."""
    assert facts(field).is_report is is_report


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b' "A list" <dev.lists.example>', "dev.lists.example"),
        (b" <DEV.lists.example>", "dev.lists.example"),
        (b" dev.lists.example", ""),
        (b" <a@lists.example>", ""),
        (b" <\x1b[31m.example>", ""),
    ],
)
def test_a_list_has_a_domain_name(value: bytes, name: str) -> None:
    """RFC 2919 3, validated."""
    assert facts((b"List-Id", value)).list_id == name


def test_own_addresses_are_the_callers_knowledge() -> None:
    """docs/design.md, Reports: mail to or from our reporting address."""
    found = message_facts(
        Headers(()),
        Envelope(None, "h", reverse_path(SENDER)),
        to_reporting=True,
        from_reporting=True,
    )
    assert found.to_reporting
    assert found.from_reporting


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"Message-ID", b"Subject", b"Content-Type", b"List-Id", b"Auto-Submitted"]
            ),
            st.binary(max_size=60),
        ),
        max_size=6,
    )
)
def test_any_octets_give_printable_facts(fields: list[tuple[bytes, bytes]]) -> None:
    """No exception, nothing unprintable."""
    found = facts(*fields)
    assert (found.message_id + found.list_id).isascii()
    assert (found.message_id + found.list_id).isprintable()
