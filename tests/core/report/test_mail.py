"""The report's mail: names, identifiers and MIME exactly by RFC 9990 3.5."""

import email
import email.policy
import gzip
import re
from dataclasses import replace
from datetime import UTC, datetime

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dmarc_milter.core.dkim.signing import SigningKey, sign
from dmarc_milter.core.mail.domain import Malformed
from dmarc_milter.core.mail.domain import parse as parse_domain
from dmarc_milter.core.report.aggregate import Feedback, Reporter
from dmarc_milter.core.report.mail import (
    Letter,
    encoded_size,
    filename,
    from_verp,
    summary,
    verp,
    write,
)
from dmarc_milter.core.report.rows import Period, Row
from dmarc_milter.core.report.xml import compressed, render
from dmarc_milter.core.stored import StoredPolicy
from dmarc_milter.core.text import printable

NOW = datetime(2026, 5, 20, 3, 4, 5, tzinfo=UTC)
ID = "0123456789abcdef0123456789abcdef"
LONG = ".".join(["a" * 60] * 4)
PASSING = Row(source_ip="192.0.2.1", header_from="a.example", spf_aligned=True)
FAILING = Row(source_ip="192.0.2.2", header_from="a.example", disposition="reject", policy="reject")


def report(domain: str = "legit.example") -> Feedback:
    reporter = Reporter("Björn's Mail", "dmarc@mx.example", "mx.example")
    return Feedback(
        reporter,
        ID,
        Period(1779148800, 1779235200),
        StoredPolicy(domain, p="reject"),
        ((PASSING, 40), (FAILING, 2)),
        folded=1,
    )


def letter(feedback: Feedback, attachment: bytes = b"x") -> Letter:
    """As the report job has it, from what it stored."""
    policy_domain, sender = feedback.published.policy_domain, feedback.reporter.email
    return Letter(
        feedback.report_id, policy_domain, sender, filename(feedback), summary(feedback), attachment
    )


def test_file_name_subject_and_ids_are_one_identity() -> None:
    """RFC 9990 3.1.4, 3.5.2, 3.5.3."""
    assert filename(report()) == f"mx.example!legit.example!1779148800!1779235199!{ID}.xml.gz"
    assert re.fullmatch(
        r"[a-z0-9.-]+![a-z0-9.-]+!\d+!\d+![A-Za-z0-9]+\.xml\.gz", filename(report())
    )
    assert (
        letter(report()).subject
        == f"Report Domain: legit.example Submitter: mx.example Report-ID: {ID}"
    )


@pytest.mark.parametrize("domain", ["legit.example", LONG])
def test_the_mail_reads_back_as_it_was_meant(domain: str) -> None:
    """One text part, one application/gzip attachment whose name is not split or encoded, however
    long."""
    feedback = report(domain)
    document = compressed(render(feedback, "rfc9990"))
    raw = write(letter(feedback, document), "agg@legit.example", now=NOW).as_bytes()
    message = email.message_from_bytes(raw, policy=email.policy.SMTP)
    assert message["Subject"] == letter(feedback).subject
    assert message["Message-ID"] == f"<{ID}@mx.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert f'filename="{filename(feedback)}"'.encode() in raw
    text, attachment = message.iter_parts()
    assert attachment.get_content_type() == "application/gzip"
    assert gzip.decompress(attachment.get_content()).startswith(b"<?xml")
    assert "43 messages claimed to be from this domain; 2 of them failed" in text.get_content()
    assert "192.0.2.2" in text.get_content()
    assert max(map(len, raw.split(b"\r\n"))) <= 998


def test_encoded_lines_are_no_longer_than_mail_allows() -> None:
    """RFC 2045 6.7 (5), 6.8: 76 characters, in the attachment and in a text with an organization's
    name of any length."""
    feedback = replace(report(), reporter=Reporter("Ünï " * 50, "dmarc@mx.example", "mx.example"))
    raw = write(letter(feedback, bytes(range(256)) * 20), "agg@legit.example", now=NOW).as_bytes()
    _, text, attachment, _ = raw.split(f"--=_{ID}".encode())
    for part in (text, attachment):
        assert max(map(len, part.partition(b"\r\n\r\n")[2].split(b"\r\n"))) <= 76
    first, second = email.message_from_bytes(raw, policy=email.policy.SMTP).iter_parts()
    assert first.get_content().replace("\r\n", "\n") == summary(feedback)
    assert second.get_content() == bytes(range(256)) * 20


@pytest.mark.parametrize("octets", [1, 3, 56, 57, 58, 114, 115, 10_000])
def test_rpt_03_the_size_of_a_report_is_what_is_sent(octets: int) -> None:
    """RFC 7489 6.2: after compression and transport encoding, line ends included."""
    raw = write(letter(report(), b"x" * octets), "agg@legit.example", now=NOW).as_bytes()
    encoded = raw.split(f"\r\n--=_{ID}".encode())[2].partition(b"\r\n\r\n")[2]
    assert encoded_size(b"x" * octets) == len(encoded)


def test_a_retry_is_the_same_mail() -> None:
    feedback = report()
    first = write(letter(feedback), "agg@legit.example", now=NOW).as_bytes()
    assert first == write(letter(feedback), "agg@legit.example", now=NOW).as_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/x",
        "a/b",
        "-rf",
        ".hidden",
        "a!b.example",
        "x" * 64 + ".example",
        "a b",
        "a\nb",
        "",
    ],
)
def test_rpt_02_no_such_name_reaches_a_file_name(name: str) -> None:
    """File names are made of a parsed policy domain and numbers; what could leave a folder or split
    the name is no domain name."""
    assert isinstance(parse_domain(name), Malformed)


@pytest.mark.parametrize(
    "address",
    [
        "a@b.example\r\nBcc: x@y.example",
        "a b@c.example",
        "a@b",
        "@b.example",
        "a@[192.0.2.1]",
        "a,b@c.example",
    ],
)
def test_rpt_03_no_recipient_can_inject(address: str) -> None:
    with pytest.raises(ValueError, match="plain form"):
        write(letter(report()), address, now=NOW)


def test_a_bounce_tells_its_delivery() -> None:
    address = verp("bounces@mx.example", ID, "0badcafe")
    assert address == f"bounces+{ID}-0badcafe@mx.example"
    assert from_verp(address) == (ID, "0badcafe")
    assert from_verp(verp("bounces@mx.example", ID, "")) == (
        ID,
        "00000000",
    ), "queued by a version without tags"
    assert from_verp("bounces@mx.example") is None


def test_a_signed_report_verifies() -> None:
    """RFC 9990 3.5: the report mail must itself get an aligned pass."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    spki = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    record = b"v=DKIM1; p=" + b"".join(spki.split(b"\n")[1:-2])
    raw = write(letter(report(), b"x" * 100), "agg@legit.example", now=NOW).as_bytes()
    signed = sign(raw, SigningKey("mx.example", "sel", pem))
    assert dkim.verify(signed, dnsfunc=lambda name, timeout=5: record)
    assert not dkim.verify(
        signed.replace(b"Subject: Report", b"Subject: Xeport"),
        dnsfunc=lambda name, timeout=5: record,
    )


def test_an_unusable_key_says_so() -> None:
    with pytest.raises(ValueError, match="cannot be signed"):
        sign(b"From: a@b.example\r\n\r\n", SigningKey("mx.example", "sel", b"nonsense"))


@pytest.mark.parametrize(
    "name",
    [
        "Example Receiver",
        'Quoted "Receiver", Inc.',
        "Bj\xf6rn's Mail",
        "\u30e1\u30fc\u30eb" * 60,
        "x" * 200,
        "two\r\nBcc: evil@attack.example lines",
        "\u202eevil",
    ],
)
def test_from_has_a_display_name(name: str) -> None:
    """RFC 5322 3.4: who reports is seen in a list of mails; nothing in the name breaks the field,
    and its encoded-words are no longer than RFC 2047 2 allows."""
    raw = write(replace(letter(report()), name=name), "agg@legit.example", now=NOW).as_bytes()
    message = email.message_from_bytes(raw, policy=email.policy.SMTP)
    [address] = message["From"].addresses
    assert address.addr_spec == "dmarc@mx.example"
    assert message["Bcc"] is None
    shown = "" if "@" in name else printable(" ".join(name.split()), 60, ascii_only=False)
    assert address.display_name.replace(" ", "") == shown.replace(" ", "")
    assert max(map(len, raw.partition(b"From:")[2].partition(b"To:")[0].split(b"\r\n"))) <= 78


def test_a_name_with_an_address_in_it_is_left_out() -> None:
    """A From that shows another domain is what forgers write."""
    raw = write(replace(letter(report()), name="ceo@bank.example"), "a@legit.example", now=NOW)
    assert raw["From"] == "dmarc@mx.example"


def test_the_subject_of_the_old_form_has_a_message_id() -> None:
    """RFC 7489 7.2.1.1: msg-id, with brackets and @; the same 32 digits in it."""
    subject = replace(letter(report()), form="rfc7489").subject
    assert subject.endswith(f"Report-ID: <{ID}@mx.example>")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (((FAILING, 1),), "1 message claimed to be from this domain; it failed DMARC."),
        (((PASSING, 1),), "1 message claimed to be from this domain; it passed DMARC."),
        (
            ((FAILING, 1), (PASSING, 1)),
            "2 messages claimed to be from this domain; 1 of them failed",
        ),
        (((PASSING, 4000),), "4,000 messages claimed to be from this domain; all of them passed"),
    ],
)
def test_the_text_counts_as_people_do(rows: tuple[tuple[Row, int], ...], words: str) -> None:
    """One message, two messages."""
    assert words in summary(replace(report(), rows=rows, folded=0))


def test_the_text_says_what_was_asked_for_and_done() -> None:
    """The policy, what became of the messages, and whom to write to."""
    text = summary(report())
    assert "The policy that we found: p=reject." in text
    assert "What was done: 40 delivered, 2 refused." in text
    assert "1 message had no room in the list." in text
    assert "a person reads dmarc@mx.example" in text
