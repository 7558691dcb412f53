"""Reports of strangers are read within bounds, or refused in one line."""

from __future__ import annotations

import contextlib
import gzip
import io
import zipfile
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.report import read as module
from dmarc_milter.core.report.aggregate import Feedback, Reporter
from dmarc_milter.core.report.read import MAX_FILE, UnreadableReport, read
from dmarc_milter.core.report.rows import Period, Row
from dmarc_milter.core.report.xml import render
from dmarc_milter.core.stored import DkimFact, SpfFact, StoredPolicy, StoredReason

ROW = Row(
    source_ip="192.0.2.2",
    header_from="a.legit.example",
    disposition="quarantine",
    policy="reject",
    reasons=(StoredReason("local_policy", "list"),),
    envelope_from="",
    envelope_to="mx.example",
    auth_dkim=(DkimFact("fail", "legit.example", "sel", "body hash differs"),),
    auth_spf=SpfFact("softfail", "bounce.example"),
)
FEEDBACK = Feedback(
    Reporter("Björn <&>", "dmarc@mx.example", "mx.example", "https://mx.example/"),
    "a" * 32,
    Period(1779148800, 1779235200),
    StoredPolicy("legit.example", p="reject", errors=("sp: not valid",)),
    ((ROW, 7),),
)
XML = render(FEEDBACK, "rfc9990")


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.xml", content)
    return out.getvalue()


def mailed(content: bytes, subtype: str) -> bytes:
    mail = EmailMessage()
    mail["Subject"] = "Report Domain: legit.example"
    mail.set_content("a report")
    mail.add_attachment(content, maintype="application", subtype=subtype, filename="x")
    return mail.as_bytes()


@pytest.mark.parametrize(
    "data",
    [
        XML,
        b"\xef\xbb\xbf\n" + XML,
        gzip.compress(XML),
        zipped(XML),
        mailed(gzip.compress(XML), "gzip"),
        mailed(zipped(XML), "zip"),
        mailed(XML, "xml"),
    ],
    ids=["xml", "bom", "gz", "zip", "eml gz", "eml zip", "eml xml"],
)
def test_every_way_a_report_travels_is_read(data: bytes) -> None:
    [report] = read(data)
    assert (report.report_id, report.org_name, report.begin, report.end) == (
        "a" * 32,
        "Björn <&>",
        1779148800,
        1779235199,
    )
    assert (report.policy["domain"], report.policy["p"], report.errors, report.messages) == (
        "legit.example",
        "reject",
        ("sp: not valid",),
        7,
    )
    [record] = report.records
    assert (record.source_ip, record.count, record.disposition, record.header_from) == (
        "192.0.2.2",
        7,
        "quarantine",
        "a.legit.example",
    )
    assert record.reasons == ({"type": "local_policy", "comment": "list"},)
    assert record.auth_dkim[0]["selector"] == "sel"
    assert record.auth_spf[0]["result"] == "softfail"


def test_the_old_form_reads_alike() -> None:
    [report] = read(render(FEEDBACK, "rfc7489"))
    assert report.policy["pct"] == "100"
    assert report.messages == 7


BOMB = (
    b"<?xml version='1.0'?><!DOCTYPE a ["
    + b"<!ENTITY a 'aaaaaaaaaa'>"
    + b"".join(b"<!ENTITY %c '%s'>" % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b"]><feedback><report_metadata><org_name>&j;</org_name></report_metadata></feedback>"
)


def test_entities_are_not_followed() -> None:
    """Neither a billion of them nor one that names a file."""
    try:
        [report] = read(BOMB)
        assert len(report.org_name) < 100
    except UnreadableReport:
        pass
    secret = (
        b"<!DOCTYPE f [<!ENTITY x SYSTEM"
        b" 'file:///etc/passwd'>]><feedback><report_metadata><email>&x;</email></report_metadata></feedback>"
    )
    [report] = read(secret)
    assert report.email == ""


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, zipped, lambda data: mailed(gzip.compress(data), "gzip")],
    ids=["gz", "zip", "eml"],
)
def test_a_bomb_is_refused_before_it_goes_off(
    monkeypatch: pytest.MonkeyPatch, pack: object
) -> None:
    monkeypatch.setattr(module, "MAX_XML", 100_000)
    with pytest.raises(UnreadableReport, match="unpacked"):
        read(pack(b"<feedback>" + b" " * 200_000))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no aggregate report"),
        (b"hello", "no aggregate report"),
        (b"<html/>", "another kind"),
        (b"<feedback>", "well-formed"),
        (b"\x1f\x8bnonsense", "damaged gzip"),
        (b"PK\x03\x04nonsense", "damaged zip"),
        (b"x" * (MAX_FILE + 1), "MiB"),
    ],
    ids=["empty", "text", "html", "torn", "gzip", "zip", "large"],
)
def test_what_is_no_report_says_so_in_one_line(data: bytes, why: str) -> None:
    with pytest.raises(UnreadableReport, match=why) as found:
        read(data)
    assert "\n" not in str(found.value)


@given(
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"",
            b"<feedback>",
            b"PK\x03\x04",
            b"\x1f\x8b\x08",
            b"Content-Type: application/gzip\r\n\r\n",
        ]
    ),
)
def test_nothing_else_escapes(data: bytes, start: bytes) -> None:
    with contextlib.suppress(UnreadableReport):
        assert read(start + data)


def test_a_torn_gzip_is_refused() -> None:
    """Half a file is not taken for a whole one."""
    with pytest.raises(UnreadableReport):
        read(gzip.compress(XML)[:-40])
