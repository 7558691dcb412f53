"""Failure reports: asked for by fo, never for public suffixes, redacted, and of the form that RFC
6591 and RFC 9991 lay down."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.record import ReportUri
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.mail.message import HeaderField, Headers
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.report.aggregate import Reporter
from dmarc_milter.core.report.failure import (
    MAX_HEADERS,
    FailureReport,
    compose,
    header_sample,
    redacted,
    wanted,
)
from dmarc_milter.core.report.failure_sample import HeaderSample, read_header_sample
from dmarc_milter.core.spf.check import SpfResult, SpfStatus
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from fakes.evaluations import RECORD, evaluation
from fakes.growth import seconds

KEY = b"k" * 32
NOW = datetime(2026, 5, 20, 3, 4, 5, tzinfo=UTC)
ID = "0123456789abcdef0123456789abcdef"
REPORTER = Reporter("Receiver", "dmarc@mx.example", "mx.example")
LEGIT = Domain("legit.example")


def asking(fo: str = "0", **changes: Any) -> Any:
    return replace(RECORD, fo=fo, ruf=(ReportUri("ruf@legit.example"),), **changes)


def judged(
    fo: str = "0",
    *,
    spf: SpfStatus = SpfStatus.FAIL,
    dkim: DkimStatus | None = None,
    aligned: str = "",
    **changes: Any,
) -> Evaluation:
    """A message From legit.example; `aligned` names the methods that gave an aligned pass."""
    one = evaluation(passed=bool(aligned), record=asking(fo, **changes))
    assert one.dmarc.outcome is not None
    outcome = replace(
        one.dmarc.outcome,
        dkim_aligned="dkim" in aligned,
        spf_aligned="spf" in aligned,
        identifiers=(),
    )
    return replace(
        one,
        spf=SpfResult(spf, LEGIT, record='v=spf1 "x" -all'),
        dkim=(
            (
                DkimResult(
                    dkim,
                    LEGIT,
                    "sel",
                    "rsa-sha256",
                    identifier="sub.legit.example",
                    reason="body hash differs",
                ),
            )
            if dkim
            else ()
        ),
        dmarc=DmarcResult(outcome.status, LEGIT, outcome),
    )


@pytest.mark.parametrize(
    ("fo", "spf", "dkim", "aligned", "kind"),
    [
        ("0", SpfStatus.FAIL, None, "", "dmarc"),
        ("0", SpfStatus.FAIL, DkimStatus.PASS, "dkim", None),
        ("1", SpfStatus.FAIL, DkimStatus.PASS, "dkim", "dmarc"),
        ("1", SpfStatus.PASS, DkimStatus.FAIL, "spf", "dmarc"),
        ("1", SpfStatus.PASS, DkimStatus.PASS, "dkim spf", None),
        ("d", SpfStatus.PASS, DkimStatus.FAIL, "spf", "dkim"),
        ("d", SpfStatus.FAIL, DkimStatus.PASS, "dkim", None),
        ("d", SpfStatus.FAIL, None, "", None),
        ("s", SpfStatus.SOFTFAIL, DkimStatus.PASS, "dkim", "spf"),
        ("s", SpfStatus.PASS, DkimStatus.FAIL, "spf", None),
        ("s", SpfStatus.TEMPERROR, DkimStatus.PASS, "dkim", None),
        ("0:d", SpfStatus.FAIL, DkimStatus.FAIL, "", "dmarc"),
        ("d:s", SpfStatus.FAIL, DkimStatus.PASS, "dkim", "spf"),
    ],
)
def test_fo_says_when(
    fo: str, spf: SpfStatus, dkim: DkimStatus | None, aligned: str, kind: str | None
) -> None:
    """RFC 9989 4.7, 5.3."""
    assert wanted(judged(fo, spf=spf, dkim=dkim, aligned=aligned)) == kind


def test_nothing_is_asked_for_without_ruf() -> None:
    assert wanted(evaluation()) is None
    assert header_sample(evaluation(), Headers(()), KEY) is None


def test_rpt_07_never_for_a_public_suffix() -> None:
    """RFC 9991 5: not for psd=y, nor for a record that psl_guard took for one."""
    assert wanted(judged(psd="y")) is None
    one = judged()
    assert one.dmarc.outcome is not None
    guarded = replace(one.dmarc.outcome, guarded=(LEGIT,))
    assert wanted(replace(one, dmarc=replace(one.dmarc, outcome=guarded))) is None


@pytest.mark.parametrize(
    "fact", ["is_report", "is_dsn", "auto_submitted", "to_reporting", "from_reporting"]
)
def test_rpt_09_never_for_what_may_be_an_answer_to_a_report(fact: str) -> None:
    assert wanted(replace(judged(), facts=MessageFacts(**{fact: True}))) is None


def test_a_dns_failure_is_no_failure() -> None:
    one = judged()
    assert one.dmarc.outcome is not None
    unknown = replace(one.dmarc.outcome, status=DmarcStatus.TEMPERROR)
    assert wanted(replace(one, dmarc=replace(one.dmarc, outcome=unknown))) is None


# --- redaction ------------------------------------------------------------------------------------

PRIVATE = Headers(
    (
        HeaderField(
            b"Received",
            b" from pc.example (10.0.0.1) by mx.example\r\n for <victim.name@example.com>; Tue, 19"
            b" May 2026 10:00:00 +0000",
        ),
        HeaderField(b"From", b' "Vera Geheim" <vera.geheim@legit.example>'),
        HeaderField(b"To", b' Otto <otto.privat@example.com>, "o x"@example.com, undisclosed:;'),
        HeaderField(b"Subject", b" =?utf-8?q?Geheim?= Diagnose"),
        HeaderField(b"X-Patient", b" Vera"),
        HeaderField(b"Content-Type", b' multipart/mixed; boundary="x"; name="Vera.pdf"'),
        HeaderField(b"Message-ID", b" <abc.123@legit.example>"),
        HeaderField(
            b"DKIM-Signature",
            b" v=1; d=legit.example; s=sel; i=vera.geheim@legit.example; b=" + b"A" * 400,
        ),
        HeaderField(b"Comments", "Ünïcode Vera".encode()),
        HeaderField("Näme".encode(), b" x"),
    )
)


def test_rpt_08_nothing_personal_is_left() -> None:
    """RFC 6590: headers only; domains stay, the same local part becomes the same token."""
    block = redacted(PRIVATE, KEY)
    text = block.decode("ascii")
    for private in ("era", "eheim", "tto", "rivat", "victim", "Diagnose", "o x", "pdf"):
        assert private not in text, private
    mail = email.message_from_bytes(block, policy=email.policy.default)
    assert mail["Message-ID"].strip() == "<abc.123@legit.example>"
    assert mail["From"].addresses[0].domain == "legit.example"
    assert mail["From"].addresses[0].username in mail["DKIM-Signature"]
    assert [each.domain for each in mail["To"].addresses] == ["example.com", "example.com"]
    assert mail["Content-Type"] == "multipart/mixed"
    assert mail["Subject"] == mail["X-Patient"] == "[redacted]"
    assert "from pc.example (10.0.0.1) by mx.example" in mail["Received"]
    assert max(map(len, block.split(b"\r\n"))) < 998


@pytest.mark.parametrize(
    ("name", "value", "left"),
    [
        (
            "DKIM-Signature",
            "v=1; d=a.example; z=From:vera|Subject:vera=20diagnose; b=A",
            "v=1; d=a.example; b=A",
        ),
        ("ARC-Message-Signature", "i=1;\r\n\tZ = Subject:vera; b=A", "i=1; b=A"),
        ("List-Id", '"vera list" <l.example>', "<l.example>"),
        ("List-Id", "vera", "[redacted]"),
        ("List-Id", "<vera@x", "[redacted]"),
        (
            "Received",
            (
                "from h (n [192.0.2.1]) by mx with ESMTP id 1 for <vera>; Tue, 19 May 2026 10:00:00"
                " +0000 (UTC)"
            ),
            (
                "from h (n [192.0.2.1]) by mx with ESMTP id 1 for <[redacted]>; Tue, 19 May 2026"
                " 10:00:00 +0000 (UTC)"
            ),
        ),
        (
            "Received",
            'from h ([192.0.2.1]) by mx with ESMTP for <"ve\\"ra; vera"@example.com>',
            "from h ([192.0.2.1]) by mx with ESMTP for <[redacted]>; [redacted]",
        ),
        (
            "Received",
            "from h (n [::ffff:192.0.2.1]) (AUTH: LOGIN vera) by mx",
            "from h (n [::ffff:192.0.2.1]) (AUTH:[redacted]) by mx",
        ),
        (
            "Received",
            "from h (n [192.0.2.1]) (authenticated as vera) by mx",
            "from h (n [192.0.2.1]) ([redacted]) by mx",
        ),
        (
            "Received",
            "from h (vera@n [192.0.2.1]) by mx (8.17.1/8.17.1) with ESMTP",
            "from h (n [192.0.2.1]) by mx (8.17.1/8.17.1) with ESMTP",
        ),
        ("Received", "from h (IDENT:vera@[192.0.2.1]) by mx", "from h ([192.0.2.1]) by mx"),
        (
            "Received",
            "from unknown (HELO h.example) (vera@192.0.2.1) by mx with SMTP",
            "from unknown (HELO h.example) (192.0.2.1) by mx with SMTP",
        ),
        (
            "Received",
            (
                "from [192.0.2.1] (helo=h.example ident=vera) by mx with esmtp (Exim 4.96)"
                " (envelope-from <vera>) id 1"
            ),
            (
                "from [192.0.2.1] (helo=h.example) by mx with esmtp (Exim 4.96) (envelope-from"
                " <[redacted]>) id 1"
            ),
        ),
        (
            "Received",
            "from [192.0.2.1] (account vera HELO h) by mx",
            "from [192.0.2.1] ([redacted]) by mx",
        ),
        (
            "Received",
            "from vera (helo=h) by mx with local-esmtp (Exim 4.96) id 1",
            "from [redacted] (helo=h) by mx with local-esmtp (Exim 4.96) id 1",
        ),
        (
            "Received",
            "from vera by mx with local (Exim 4.96) id 1",
            "from [redacted] by mx with local (Exim 4.96) id 1",
        ),
        ("Received", "by mx (Postfix, from userid 1000) id 1", "by mx ([redacted]) id 1"),
        (
            "Received",
            "(from vera@localhost) by mx (8.17.1/8.17.1/Submit) id 1",
            "([redacted]) by mx (8.17.1/8.17.1/Submit) id 1",
        ),
        (
            "Received",
            'from h (n [192.0.2.1]) (Client CN "vera", Issuer "x") by mx',
            "from h (n [192.0.2.1]) ([redacted]) by mx",
        ),
        (
            "Received",
            "from h (n [192.0.2.1]) by mx via vera with vera id vera@x for vera",
            (
                "from h (n [192.0.2.1]) by mx via [redacted] with [redacted] id [redacted] for"
                " <[redacted]>"
            ),
        ),
        (
            "Received",
            "from h (n [192.0.2.1]) by mx; Tue, 19 May 2026 10:00:00 +0000 (vera)",
            "from h (n [192.0.2.1]) by mx; [redacted]",
        ),
        ("Delivered-To", "vera", "[redacted]"),
        ("X-Original-To", "vera (vera@vera)", "[redacted]"),
        ("List-Unsubscribe", "<https://l.example/u/vera>", "[redacted]"),
        ("X-MS-Exchange-Organization-AuthAs", "vera", "[redacted]"),
        ("Auto-Submitted", "auto-replied (by vera); owner=vera", "auto-replied"),
        ("User-Agent", "Mailer/1.2 (vera's pc)", "Mailer/1.2"),
        ("Date", "Tue, 19 May 2026 10:00:00 +0000 (vera)", "Tue, 19 May 2026 10:00:00 +0000"),
        ("Message-ID", "<1@x.example> (for vera)", "<1@x.example>"),
        (
            "DKIM-Signature",
            "v=1; d=a.example; i=@a.example; r=vera; h=from:to; b=A",
            "v=1; d=a.example; i=@a.example; h=from:to; b=A",
        ),
        (
            "DKIM-Signature",
            "v=1; d=a.example; s=<vera>; b=A",
            "v=1; d=a.example; s=[redacted]; b=A",
        ),
        (
            "Authentication-Results",
            (
                "mx; spf=pass (domain of vera designates x) smtp.mailfrom=<vera>; dmarc=pass"
                " header.from=a.example"
            ),
            "mx; spf=pass smtp.mailfrom=[redacted]; dmarc=pass header.from=a.example",
        ),
        (
            "Authentication-Results",
            (
                "mx; dkim=pass reason=vera header.d=a.example header.b=AAAA smtp.rcptto=vera"
                " auth.user=vera"
            ),
            (
                "mx; dkim=pass header.d=a.example header.b=AAAA smtp.rcptto=[redacted]"
                " auth.user=[redacted]"
            ),
        ),
        (
            "ARC-Authentication-Results",
            "i=1; mx.example; auth=pass (LOGIN) smtp.auth=vera",
            "i=1; mx.example; auth=pass smtp.auth=[redacted]",
        ),
        (
            "Received-SPF",
            (
                "pass (mx: domain of vera) client-ip=192.0.2.1; envelope-from=<vera>;"
                " helo=h.example; receiver=vera"
            ),
            "pass client-ip=192.0.2.1; envelope-from=[redacted]; helo=h.example",
        ),
        (
            "Received",
            "from pc (Authenticated\r\n sender: vera) by mx",
            "from pc (Authenticated sender:[redacted]) by mx",
        ),
        (
            "Authentication-Results",
            "mx; auth=pass smtp.auth=vera; auth=pass smtp.auth=vera",
            "mx; " + "auth=pass smtp.auth=[redacted]; " * 2,
        ),
    ],
)
def test_rpt_08_what_names_somebody_without_an_address_goes_too(
    name: str, value: str, left: str
) -> None:
    """Copies of other fields in a signature (RFC 6376 3.5, z=), phrases, login names."""
    block = redacted(Headers((HeaderField(name.encode(), b" " + value.encode()),)), KEY)
    assert block.decode().replace("\r\n", "") == f"{name}: {left.removesuffix('; ')}"


ADDRESS_FORMS = ["To", "Delivered-To", "X-Original-To", "Return-Path", "From"]


@pytest.mark.parametrize("name", ADDRESS_FORMS)
@pytest.mark.parametrize(
    ("value", "count"),
    [
        ('"ve\\"ra vera"@example.com', 1),
        ('"ve\\\\\\"ra"@example.com', 1),
        ('"vera@vera.vera"@example.com', 1),
        ('"vera <vera@vera.vera>" <x@example.com>', 1),
        ("(vera@vera.vera) <x@example.com>", 1),
        ("<vera=40vera@example.com>, vera+vera@example.com, SRS0=x=vera=vera@example.com", 3),
        ("<vera>", 0),
        ('"vera@vera.vera', 0),
        ("=?utf-8?q?vera?= <vera.vera@example.com>", 1),
    ],
)
def test_rpt_61_of_addresses_only_the_domain_is_left(name: str, value: str, count: int) -> None:
    """Quoted local parts with escapes or an @, comments, names, VERP and SRS."""
    block = redacted(Headers((HeaderField(name.encode(), b" " + value.encode()),)), KEY).decode()
    assert "vera" not in block
    assert 've\\"' not in block
    assert block.count("@example.com>") == count
    assert block.count("@") == count


def test_an_identifier_is_not_torn() -> None:
    """The owner finds the message by it: a fold in its midst would leave a space there."""
    name = b"x" * 150 + b"@legit.example"
    block = redacted(Headers((HeaderField(b"Message-ID", b" <" + name + b">"),)), KEY)
    assert b"<" + name + b">" in block


def test_another_key_gives_other_tokens() -> None:
    assert redacted(PRIVATE, KEY) != redacted(PRIVATE, b"j" * 32)


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=300)), max_size=20))
def test_rpt_08_any_octets_become_seven_bit_lines(fields: list[tuple[bytes, bytes]]) -> None:
    """Multi-line, 8-bit and control octets: the block cannot leave its part of the mail."""
    block = redacted(Headers(HeaderField(*each) for each in fields), KEY)
    assert len(block) <= MAX_HEADERS
    assert all(octet in (13, 10) or 0x20 <= octet < 0x7F for octet in block)
    lines = block.split(b"\r\n")
    assert lines[-1] == b""
    assert all(
        line and b"\r" not in line and b"\n" not in line and len(line) < 998 for line in lines[:-1]
    )


@pytest.mark.parametrize(
    "name",
    [
        "To",
        "Received",
        "Received-SPF",
        "DKIM-Signature",
        "Authentication-Results",
        "List-Id",
        "Date",
        "X-Mailer",
    ],
)
@pytest.mark.parametrize(
    "piece",
    [
        b"a",
        b'"',
        b'\\"',
        b"(",
        b"()",
        b"a@",
        b"@",
        b"a ",
        b"(a@b [1.2.3.4]) ",
        b"for ",
        b";",
        b"i=",
        b"helo=",
        b"a=",
    ],
)
def test_redaction_takes_linear_time(name: str, piece: bytes) -> None:
    """Within the bound of a field, and for a block of such fields."""
    field = HeaderField(name.encode(), b" from x (" + piece * 2000)
    assert seconds(lambda: redacted(Headers((field,) * 50), KEY, 1 << 20)) < 2.0


# --- the mail -------------------------------------------------------------------------------------


def report(one: Evaluation, incidents: int = 1) -> FailureReport:
    stored = header_sample(one, PRIVATE, KEY)
    assert stored is not None
    return FailureReport(
        REPORTER, "mx.example", ID, from_evaluation(one), read_header_sample(stored), incidents
    )


def parts(one: FailureReport) -> tuple[EmailMessage, str, EmailMessage, str]:
    raw = compose(one, "=_boundary", recipient="ruf@legit.example", now=NOW)
    assert raw.isascii()
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    assert not mail.defects
    words, feedback, headers = mail.iter_parts()
    payload = feedback.get_payload()
    fields = (
        payload[0]
        if isinstance(payload, list)
        else email.message_from_string(str(payload), policy=email.policy.default)
    )
    return mail, words.get_content(), fields, headers.get_payload()


def test_the_mail_has_every_field_that_is_required() -> None:
    """RFC 6591 3.1, RFC 9991 3."""
    mail, words, fields, headers = parts(report(judged(dkim=DkimStatus.FAIL), incidents=12))
    assert (mail.get_content_type(), mail.get_param("report-type")) == (
        "multipart/report",
        "feedback-report",
    )
    assert (mail["To"], mail["From"], mail["Auto-Submitted"]) == (
        "ruf@legit.example",
        "Receiver <dmarc@mx.example>",
        "auto-generated",
    )
    assert mail["Message-ID"] == f"<{ID}@mx.example>"
    assert [part.get_content_type() for part in mail.iter_parts()] == [
        "text/plain",
        "message/feedback-report",
        "text/rfc822-headers",
    ]
    assert {name: fields[name] for name in fields} | {"User-Agent": ""} == {
        "Feedback-Type": "auth-failure",
        "User-Agent": "",
        "Version": "1",
        "Auth-Failure": "dmarc",
        "Authentication-Results": "mx.example; dmarc=fail header.from=legit.example",
        "Original-Mail-From": fields["Original-Mail-From"],
        "Arrival-Date": "Fri, 20 Nov 2026 12:00:00 +0000",
        "Source-IP": "192.0.2.66",
        "Reported-Domain": "legit.example",
        "Delivery-Result": "reject",
        "Incidents": "12",
        "Identity-Alignment": "dkim, spf",
        "DKIM-Domain": "legit.example",
        "DKIM-Identity": "@sub.legit.example",
        "DKIM-Selector": "sel",
        "SPF-DNS": 'txt : legit.example : "v=spf1 x -all"',
    }
    assert fields["Original-Mail-From"].endswith("@attack.example>")
    assert "<any@" not in fields["Original-Mail-From"]
    assert "12 such messages" in words
    assert "abc.123@legit.example" in headers


@pytest.mark.parametrize(
    ("aligned", "spf", "dkim", "shown"),
    [
        ("dkim", SpfStatus.FAIL, DkimStatus.PASS, "spf"),
        ("spf", SpfStatus.PASS, DkimStatus.FAIL, "dkim"),
    ],
)
def test_identity_alignment_lists_what_failed(
    aligned: str, spf: SpfStatus, dkim: DkimStatus, shown: str
) -> None:
    """RFC 9991 turned RFC 7489's meaning round (7.3)."""
    _, words, fields, _ = parts(report(judged("1", spf=spf, dkim=dkim, aligned=aligned)))
    assert "did not authenticate" not in words, "it passed by the other"
    assert fields["Identity-Alignment"] == shown


def test_dkim_and_spf_fields_are_for_aligned_identifiers_only() -> None:
    """RFC 9991 3: required there; elsewhere they would tell about somebody else."""
    one = judged()
    stranger = Domain("attack.example")
    one = replace(
        one,
        spf=SpfResult(SpfStatus.FAIL, stranger),
        dkim=(DkimResult(DkimStatus.FAIL, stranger, "x"),),
    )
    _, _, fields, _ = parts(report(one))
    assert not {"SPF-DNS", "DKIM-Domain", "DKIM-Identity", "DKIM-Selector"} & set(fields.keys())


@pytest.mark.parametrize(
    ("fo", "dkim", "spf", "failure", "result"),
    [
        (
            "d",
            DkimStatus.FAIL,
            SpfStatus.PASS,
            "bodyhash",
            "dkim=fail header.d=legit.example header.s=sel",
        ),
        ("s", DkimStatus.PASS, SpfStatus.FAIL, "spf", "spf=fail smtp.mailfrom=legit.example"),
    ],
)
def test_d_and_s_report_the_method(
    fo: str, dkim: DkimStatus, spf: SpfStatus, failure: str, result: str
) -> None:
    """RFC 6591 3.1: one method's result."""
    _, _, fields, _ = parts(
        report(judged(fo, dkim=dkim, spf=spf, aligned="dkim" if fo == "s" else "spf"))
    )
    assert (fields["Auth-Failure"], fields["Authentication-Results"]) == (
        failure,
        f"mx.example; {result}",
    )


def test_the_null_sender_stays_null() -> None:
    one = judged()
    one = replace(one, envelope=replace(one.envelope, mail_from=ReversePath("", None)))
    _, _, fields, _ = parts(report(one))
    assert fields["Original-Mail-From"] == "<>"


def test_rpt_08_the_boundary_cannot_be_forged() -> None:
    one = replace(report(judged()), header_sample=HeaderSample("dmarc", b"X: --=_boundary\r\n"))
    with pytest.raises(ValueError, match="boundary"):
        compose(one, "=_boundary", recipient="ruf@legit.example", now=NOW)


@pytest.mark.parametrize("address", ["a@b.example\r\nBcc: x@y.example", "a b@c.example", "a@b"])
def test_no_recipient_can_inject(address: str) -> None:
    with pytest.raises(ValueError, match="plain form"):
        compose(report(judged()), "=_boundary", recipient=address, now=NOW)
