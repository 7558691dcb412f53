"""Bounces of real mailers: one reading of reply codes, status fields and text; what is no failure
of our address counts for nothing."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.report.diagnosis import Name, Verdict, of_text, recipients
from dmarc_milter.core.report.mime import parts
from dmarc_milter.core.report.notification import judge
from dmarc_milter.core.report.reply_codes import judged, status
from dmarc_milter.reporting.bounce import NotOurs, read
from fakes.growth import costs_less

VECTORS = Path(__file__).parents[2] / "vectors" / "bounces"
ROWS = list(csv.DictReader((VECTORS / "expected.tsv").read_text().splitlines(), delimiter="\t"))
OURS = "dmarc-bounces@mx.example.com"
TAGGED = "dmarc-bounces+0123456789abcdef0123456789abcdef-0badcafe@mx.example.com"
ADDRESS = "agg@legit.example"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_rpt_24_the_bounces_of_real_mailers_are_understood(row: dict[str, str]) -> None:
    """tests/vectors/bounces: suppress by the fields of RFC 3464, suppress-7 by text alone, ignore
    everything else."""
    found = read((VECTORS / f"{row['file']}.eml").read_bytes(), OURS, address=ADDRESS)
    verdict = "ignore" if not found.hard else "suppress-7" if found.text_only else "suppress"
    assert verdict == row["verdict"], found.reason


def test_the_corpus_is_complete() -> None:
    """Every file stands in the table, and every family of mailers has more than one kind of verdict
    among them all."""
    assert {each["file"] for each in ROWS} == {each.stem for each in VECTORS.glob("*.eml")}
    assert len(ROWS) >= 60


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("550 5.1.1 User unknown", "550"),
        ("550-5.1.1 The account", "550"),
        ("<<< 550 no such user", "550"),
        ("Remote host said: 554 delivery error: dd", "554"),
        ("host mx.legit.example [203.0.113.9]: 550 Message was not accepted", "550"),
        ("(reason: 550 5.1.1 nobody)", "550"),
        ("SMTP error 550", "550"),
        ("failed with 571 not here", "571"),
        ("was: 550 550 5.1.1 <a@b.example>: rejected (state 14).", "550"),
        ("smtp;550 unknown", "550"),
        ("<mx.legit.example #5.1.1 smtp;550 x>", "5.1.1"),
        ("agg@legit.example... 550 User unknown", "550"),
        ("agg@legit.example 550 5.1.1", "550"),
        ("Sorry, no mailbox here by that name. (#5.1.1)", "5.1.1"),
        ("Status:5.1.1", "5.1.1"),
        ("dsn=5.1.10, stat=User unknown", "5.1.10"),
        ("User unknown 5.1.1.", "5.1.1"),
        ("550 4.4.7 expired", "4.4.7"),
        ("452 4.2.2 full", "452"),
        ("Error code: 550", "550"),
        # and what is no code
        ("we got 550 messages", None),
        ("550 messages", None),
        ("550 MB of 600 MB", None),
        ("550 Example Street", None),
        ("551, rue de Paris", None),
        ("500 people", None),
        ("Invoice: 550", None),
        ("Lines: 550", None),
        ("555 0100 100", None),
        ("Tel: 555-0100", None),
        ("550,00 EUR", None),
        ("5500", None),
        ("port 550", None),
        ("<550.123@x.example>", None),
        ("5.1.1.9", None),
        ("10.5.1.1", None),
        ("5.1.0.0/16", None),
        ("on 5.1.27", None),
        ("bis 5.1.27", None),
        ("5.10.2026", None),
        ("5.1.27, 14:30", None),
        ("5.1.27 - 12.1.27", None),
        ("version 5.1.1", None),
        ("Release 5.0.8", None),
        ("OpenThing/5.2.1", None),
        ("v5.1.1", None),
        ("ESMTP Exim 5.1.1", None),
        ("5.1.1-rc1", None),
        ("2001:db8::5.1.1.2", None),
    ],
)
def test_a_code_is_told_from_other_numbers(line: str, code: str | None) -> None:
    """A reply's code stands at its start; three numbers with dots are a status (RFC 3463)."""
    found = judged(line)
    assert (found.text if found else None) == code


@pytest.mark.parametrize(
    "spelling",
    ["AGG@Legit.Example", "<agg@legit.example>", "rfc822; agg@legit.example",
    "RFC822;<agg@legit.example>", "mailto:agg@legit.example",
     "agg@legit.example (Reports)", "Reports <agg@legit.example>", "utf-8;agg@legit.example",
     "agg@legit.example.", "'agg@legit.example'"],
)  # fmt: skip
def test_one_address_has_many_spellings(spelling: str) -> None:
    assert Name(ADDRESS).is_also(spelling)
    assert not Name(ADDRESS).is_also(spelling.lower().replace("agg", "egg"))


def test_xtext_and_percent_are_read() -> None:
    """RFC 3461 4; RFC 6068 2. An address that looks like xtext is also itself."""
    assert Name("a+b=c@legit.example").is_also("rfc822;a+2Bb+3Dc@legit.example")
    assert Name("a+b@legit.example").is_in("see <mailto:a%2Bb@legit.example>")
    assert Name("a+2bc@legit.example").is_also("rfc822;a+2Bc@legit.example")


def test_a_domain_may_be_written_in_unicode() -> None:
    """RFC 6533: `Final-Recipient: utf-8; ...`; the report went to the A-labels."""
    name = Name("agg@xn--bcher-kva.example")
    assert name.is_also("utf-8; agg@b\u00fccher.example")
    assert name.is_in("<agg@B\u00fccher.example>: 550 nobody")
    assert name.is_in("<agg@xn--bcher-kva.example>: 550 nobody")
    assert not Name("agg@xn--\u00fc.example").is_in("x")


def test_rpt_27_another_address_is_not_ours() -> None:
    """Neither a longer one nor one that begins with ours."""
    for line in (
        "bigagg@legit.example",
        "agg@legit.example.org",
        "agg@legit.example-x.org",
        "x.agg@legit.example",
    ):
        assert not Name(ADDRESS).is_in(line), line


def test_the_nearest_code_decides() -> None:
    """Within three lines, empty ones not counted; at the same distance the temporary one."""
    name = Name(ADDRESS)
    assert of_text("agg@legit.example\n\n\na\n\nb\n\n550 5.1.1 no\n", name).verdict == "permanent"
    assert of_text("agg@legit.example\na\nb\nc\n550 5.1.1 no\n", name).verdict == "none"
    assert (
        of_text("agg@legit.example: 550 no\nx\nagg@legit.example: 451 later\n", name).verdict
        == "temporary"
    )
    assert of_text("agg@legit.example\n550 no\n451 later\n", name).verdict == "permanent"
    assert of_text("550 5.1.1 no\nagg@legit.example\n", name).verdict == "none", (
        "a code above belongs to somebody else"
    )


def test_fields_of_two_recipients_are_kept_apart() -> None:
    """RFC 3464 2.1 wants an empty line between them; not all write it, and some write one between
    all fields."""
    plain = "Final-Recipient: rfc822;a@x.example\nAction: failed\nStatus: 5.1.1\n"
    other = "Final-Recipient: rfc822;b@x.example\nAction: delayed\nStatus: 4.0.0\n"
    for text in (
        plain + other,
        plain + "\n" + other,
        (plain + other).replace("\n", "\n\n"),
        plain + "\nOriginal-Recipient: rfc822;c@x.example\n" + other,
    ):
        assert [each["action"] for each in recipients(text)] == ["failed", "delayed"], text


@pytest.mark.parametrize(
    ("sender", "first", "counts"),
    [
        (None, "Return-Path: <>\n", True),
        (None, "Return-Path: <MAILER-DAEMON>\n", True),
        (None, "From MAILER-DAEMON  Mon Oct  5 05:05:05 2026\n", True),
        (None, "From admin@legit.example  Mon Oct  5 05:05:05 2026\nReturn-Path: <>\n", False),
        (None, "Return-Path: <admin@legit.example>\nReturn-Path: <>\n", False),
        (None, "", False),
        ("", "", True),
        ("MAILER-DAEMON", "", True),
        ("admin@legit.example", "Return-Path: <>\n", False),
    ],
)
def test_rpt_25_text_counts_only_with_a_null_sender(
    sender: str | None, first: str, counts: bool
) -> None:
    """RFC 5321 4.5.5. The mail system's word comes first, then its own fields; a mail without
    either is somebody's letter."""
    data = (
        f"{first}From: x@legit.example\nTo: {TAGGED}\n\nagg@legit.example\n550 5.1.1 no\n".encode()
    )
    assert read(data, OURS, address=ADDRESS, sender=sender).hard == counts


@pytest.mark.parametrize(
    "fields",
    ["Auto-Submitted: auto-replied", "auto-submitted: Auto-Replied (away)", "X-Autoreply: yes",
    "Precedence: auto_reply",
     "Subject: Automatic reply: x", "Subject: =?utf-8?q?R=C3=A9ponse_automatique?=",
     "Subject: Re: Out of Office", "Subject: Delayed: x",
     "From: Agg <AGG@legit.example>",
     "Content-Type: multipart/report; report-type=feedback-report; boundary=b"],
)  # fmt: skip
def test_rpt_26_answers_for_people_and_notices_of_delay_do_not_count(fields: str) -> None:
    """RFC 3834; RFC 5965."""
    data = f"Return-Path: <>\n{fields}\nTo: {TAGGED}\n\nagg@legit.example\n550 5.1.1 no\n".encode()
    assert not read(data, OURS, address=ADDRESS).hard


def test_a_reply_of_smtp_is_read_by_the_same_classifier() -> None:
    assert [
        status(each)
        for each in (
            "550 5.1.1 x",
            "550 550 5.1.10 x",
            "550-5.1.1 x 5.7.1",
            "550 by 5.1.1.9",
            "550 nobody",
        )
    ] == [
        "5.1.1",
        "5.1.10",
        "5.1.1",
        "",
        "",
    ]


HEAD = f"Return-Path: <>\nTo: {TAGGED}\n".encode()
SIZE = 2 << 20


def nested(levels: int) -> bytes:
    lines = [HEAD, b"Content-Type: multipart/mixed; boundary=b0\n\n"]
    return (
        b"".join(
            lines
            + [
                b"--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n" % (n, n + 1)
                for n in range(levels)
            ]
        )
        + b"x" * SIZE
    )


REPORT = (
    HEAD + b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type:"
    b" message/delivery-status\n\n"
)
HOSTILE = {
    "300 nested multiparts": nested(300),
    "one boundary for ever": (
        HEAD + b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * (SIZE // 5)
    ),
    "fields for ever": HEAD + b"A: b\n" * (SIZE // 5),
    "a field that goes on": HEAD + b"A: b\n" + b" c\n" * (SIZE // 3),
    "the address for ever": HEAD + b"\n" + b"agg@legit.example\n" * (SIZE // 18),
    "near codes": (
        HEAD + b"\n" + (b"agg@legit.example\n" + b"1 550 1 5.1.1-x " * 60 + b"\n") * (SIZE // 1000)
    ),
    "dashes": HEAD + b"\n" + (b"-" * 199 + b"\n") * (SIZE // 200),
    "open tags": HEAD + b"Content-Type: text/html\n\n" + b"<style" * (SIZE // 6),
    "open breaks": HEAD + b"Content-Type: text/html\n\n" + b"<br" * (SIZE // 3),
    "entities": HEAD + b"Content-Type: text/html\n\n" + b"&amp" * (SIZE // 4),
    "recipients for ever": REPORT + b"Final-Recipient: x\nAction: y\n\n" * (SIZE // 30),
    "a diagnosis that goes on": REPORT + b"Diagnostic-Code: x\n" + b"y\n" * (SIZE // 2),
    "empty lines": HEAD + b"\n" * SIZE,
    "words of RFC 2047": HEAD + b"Subject: " + b"=?utf-8?q?a?= " * (SIZE // 14) + b"\n\n",
    "tags for ever": b"To: " + b"+0123456789abcdef0123456789abcdef-" * (SIZE // 34),
    "100 MiB": HEAD + b"\n" + b"550 5.1.1 agg@legit.example\n" * (100 << 16),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_rpt_21_no_mail_costs_more_than_a_moment(data: bytes) -> None:
    """At most 128 KiB are read, nested twelve deep, in linear time: a fifth of a second of one
    processor, whatever was sent."""

    def once() -> None:
        with contextlib.suppress(NotOurs):
            read(data, OURS, address=ADDRESS)

    assert costs_less(0.2, once)


def test_parts_are_those_that_the_standard_library_finds() -> None:
    """RFC 2046 5.1: boundaries, preamble, epilogue, a boundary that begins like another, a part
    without an end."""
    import email

    data = (
        b'Content-Type: multipart/mixed; boundary="a"\n\npreamble\n--a\nContent-Type:'
        b" multipart/alternative; boundary=ab\n\n--ab\n\none\n--ab\nContent-Type:"
        b" text/html\n\ntwo\n--ab--\nepilogue\n--a\nContent-Type: message/rfc822\n\nSubject:"
        b" x\n\nthree\n--a--\n"
    )
    wanted = [
        (each.get_content_type(), each.get_payload())
        for each in email.message_from_bytes(data).walk()
        if not each.is_multipart()
    ][:2]
    found = [(each.type, data[each.start : each.end].decode().rstrip("\n")) for each in parts(data)]
    assert found[:2] == wanted
    assert found[2] == ("message/rfc822", "Subject: x\n\nthree")


@given(
    st.binary(max_size=600),
    st.sampled_from(
        [HEAD, HEAD + b"Content-Type: text/html\n\n", REPORT, HEAD + b"\nagg@legit.example\n"]
    ),
)
def test_any_octets_are_read(data: bytes, start: bytes) -> None:
    assert judge(start + data, ADDRESS).verdict in get_args(Verdict)
