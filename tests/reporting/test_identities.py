"""Hosted domains report as themselves: whose mail it is decides in whose name the report goes."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from dmarc_milter.config import ConfigError, parse
from dmarc_milter.config.identities import bounce_addresses, identify
from dmarc_milter.config.sample import show
from dmarc_milter.config.schema_reporting import ReportingIdentity
from dmarc_milter.config.secrets import identity_keys
from dmarc_milter.core.dkim.signing import SigningKey
from dmarc_milter.core.dmarc.record import ReportUri
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import HeaderField, Headers
from dmarc_milter.core.report.failure import header_sample
from dmarc_milter.core.report.read import read
from dmarc_milter.daemon.wiring import session_options
from dmarc_milter.ledger.store.apply_batch import Batch
from dmarc_milter.ledger.store.daily_caps import StoreOptions
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.reporting import bounce
from dmarc_milter.reporting.smtp import Mailer, Submission
from fakes.dns_zone import Zone
from fakes.evaluations import RECORD, evaluation
from fakes.report_job import Clock, Job
from fakes.smtp_sink import Sink, smtp_sink
from fakes.stores import spool_row, upgraded

HOSTED = ReportingIdentity(
    recipient_domains=["hosted.example"], org_name="Hosted Inc.", email="dmarc@hosted.example"
)
OTHER = ReportingIdentity(
    recipient_domains=["other.example"], org_name="Other Inc.", email="dmarc@Other.Example"
)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with smtp_sink() as found:
        yield found


@pytest.fixture
def job(store_url: str, sink: Sink) -> Iterator[Job]:
    upgraded(store_url)
    clock = Clock()
    store = Store.open(store_url, StoreOptions(identify=identify([HOSTED, OTHER])), clock=clock)
    zone = Zone({"legit.example": {"MX": [(10, "mx.example")]}})
    made = Job(store, zone, clock, sink.port)
    made.set(identities=[HOSTED, OTHER], failure_reports=True)
    yield made
    store.close()


def to(*domains: str, **changes: Any) -> Evaluation:
    base = evaluation(**changes)
    recipients = tuple(map(Domain, domains))
    return replace(base, envelope=replace(base.envelope, rcpt_domains=recipients))


def test_each_identity_sends_its_own_report(job: Job, sink: Sink) -> None:
    """RFC 9990 3.1.1: org_name, email, file name, subject and From are one reporter's; each message
    is counted once."""
    job.see(to("hosted.example"), to("in.hosted.example"), to("other.example"), to("example.com"))
    job.see(to("hosted.example", "other.example"), to("hosted.example", "example.com"))
    job.run(now=True)
    found = {}
    for mail in sink.mails:
        message = email.message_from_bytes(mail.message, policy=email.policy.SMTP)
        [report] = read(mail.message)
        domain = report.email.partition("@")[2]
        assert message["From"].addresses[0].addr_spec == report.email
        assert f"Submitter: {domain} " in message["Subject"]
        assert mail.sender.endswith(f"@{domain}")
        assert message["Message-ID"].endswith(f"@{domain}>")
        found[report.org_name] = (report.email, report.messages)
    assert found == {
        "Hosted Inc.": ("dmarc@hosted.example", 2),
        "Other Inc.": ("dmarc@other.example", 1),
        "Example Receiver": ("dmarc@mx.example", 3),
    }
    assert len({report.id for report in job.store.reports.find()}) == 3


def test_an_identity_that_is_gone_leaves_its_reports_to_the_organization(
    job: Job, sink: Sink
) -> None:
    job.see(to("hosted.example"))
    job.set()
    job.run(now=True)
    assert [read(mail.message)[0].org_name for mail in sink.mails] == ["Example Receiver"]


def test_one_bounce_address_serves_all(job: Job, sink: Sink) -> None:
    job.set(identities=[HOSTED], bounce_address="bounces@mx.example")
    job.see(to("hosted.example"))
    job.run(now=True)
    [mail] = sink.mails
    assert mail.sender.startswith("bounces+")
    assert mail.sender.endswith("@mx.example")
    assert bounce_addresses(job.options) == ["bounces@mx.example"]


def test_a_bounce_finds_its_identity(job: Job, sink: Sink) -> None:
    """Without a bounce_address each identity's own address is the envelope sender."""
    job.see(to("hosted.example"))
    job.run(now=True)
    known = bounce_addresses(job.options)
    assert known == ["dmarc@mx.example", "dmarc@hosted.example", "dmarc@other.example"]
    tag = bounce.tag_of(b"", known, sink.mails[0].sender)
    assert tag.report_id == job.store.reports.find()[0].id
    with pytest.raises(bounce.NotOurs):
        bounce.tag_of(b"", known[:1], sink.mails[0].sender)


def test_failure_reports_are_the_recipients_too(job: Job, sink: Sink) -> None:
    record = replace(RECORD, rua=(), ruf=(ReportUri("ruf@legit.example"),))
    one = to("hosted.example", record=record)
    headers = Headers((HeaderField(b"From", b" Vera <vera@legit.example>"),))
    row = spool_row(one, header_sample(one, headers, b"k" * 32))
    job.store.apply(Batch("spool-f", "mx1", [(1, row)]))
    job.run()
    [mail] = sink.mails
    message = email.message_from_bytes(mail.message, policy=email.policy.SMTP)
    assert message["From"].addresses[0].addr_spec == "dmarc@hosted.example"
    assert message["From"].addresses[0].display_name == "Hosted Inc."
    assert mail.sender.endswith("@hosted.example")


def test_an_identitys_own_key_signs_its_mail(sink: Sink) -> None:
    """So that its From aligns; others are signed by the organization's."""
    pem = rsa.generate_private_key(65537, 1024).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    keys = {"hosted.example": SigningKey("hosted.example", "s1", pem)}
    to = Submission("127.0.0.1", sink.port, key=SigningKey("mx.example", "s0", pem), keys=keys)
    mailer = Mailer(to)
    for sender in (
        "Hosted Inc. <dmarc@hosted.example>",
        "=?utf-8?q?H=C3=B6sted?=\r\n <dmarc@hosted.example>",
        "dmarc@mx.example",
        "x <dmarc@evil.example>",
    ):
        mailer.send("a@mx.example", "b@legit.example", f"From: {sender}\r\n\r\nx".encode())
    mailer.close()
    signers = [b"d=hosted.example" in mail.message for mail in sink.mails]
    assert signers == [True, True, False, False]


TEXT = """[reporting]
org_name = "R"
email = "dmarc@mx.example"
[[reporting.identities]]
recipient_domains = ["hosted.example"]
org_name = "Hosted Inc."
email = "dmarc@hosted.example"
"""


def test_mail_between_identities_makes_no_loop() -> None:
    """Every identity's address is one of our reporting addresses."""
    own = session_options(parse(TEXT)).own_addresses
    assert {b"dmarc@mx.example", b"dmarc@hosted.example"} <= own


def test_the_configuration_comes_back_as_it_was() -> None:
    config = parse(TEXT)
    assert parse(show(config)) == config


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ('email = "dmarc@hosted.example"', 'email = "nobody"'),
        ('["hosted.example"]', '["no domain"]'),
        ('org_name = "Hosted Inc."', ""),
        ('org_name = "Hosted Inc."', 'org_name = "x"\nunknown = 1'),
    ],
)
def test_a_mistake_in_an_identity_is_named(line: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match="identities"):
        parse(TEXT.replace(line, wrong))


def test_a_key_that_cannot_sign_is_named(tmp_path: Path) -> None:
    text = f'{TEXT}dkim_domain = "hosted.example"\ndkim_selector = "s"\n'
    text += f'dkim_key_file = "{tmp_path}/no"\n'
    with pytest.raises(ConfigError, match=r"hosted\.example"):
        identity_keys(parse(text))
