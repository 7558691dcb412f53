"""Reports of every shape that we send, as mails, and what is in them."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

from dmarc_milter.core.report.aggregate import Feedback, Format, Reporter
from dmarc_milter.core.report.mail import Letter, filename, summary, write
from dmarc_milter.core.report.rows import Period, Row
from dmarc_milter.core.report.xml import compressed, render
from dmarc_milter.core.stored import DkimFact, SpfFact, StoredPolicy, StoredReason

FORMS: tuple[Format, ...] = ("rfc9990", "rfc7489")
REPORTER = Reporter(
    "Example Receiver", "dmarc@mx.example", "mx.example", "https://mx.example/dmarc"
)
PLAIN = StoredPolicy("legit.example", p="none")
PERIOD = Period(1_795_132_800, 1_795_219_200)
SIGNED = (DkimFact("pass", "legit.example", "sel"),)
SENT = SpfFact("pass", "legit.example")


def row(**changes: object) -> Row:
    """A message that failed and was refused."""
    values: dict[str, object] = {
        "source_ip": "192.0.2.1",
        "header_from": "legit.example",
        "disposition": "reject",
        "policy": "reject",
        "envelope_from": "attack.example",
        "envelope_to": "example.com",
        "auth_dkim": (DkimFact("fail", "legit.example", "sel", "body hash differs"),),
        "auth_spf": SpfFact("fail", "attack.example"),
    }
    return Row(**(values | changes))  # type: ignore[arg-type]


def null_sender(named: str) -> Row:
    """A bounce: SPF checked HELO, or what stood in its place."""
    return row(envelope_from="", auth_dkim=(), auth_spf=SpfFact("none", named))


PASSED = row(
    disposition="pass", dkim_aligned=True, spf_aligned=True, auth_dkim=SIGNED, auth_spf=SENT,
    envelope_from="legit.example",
)  # fmt: skip
UNENFORCED = row(
    disposition="none", policy="none", dkim_aligned=True, auth_dkim=SIGNED, auth_spf=SENT
)


class Shape(NamedTuple):
    """`rows` are one report's, each with its number of messages."""

    rows: tuple[tuple[Row, int], ...]
    published: StoredPolicy = PLAIN
    folded: int = 0


SHAPES: dict[str, Shape] = {
    "a failure": Shape(((row(), 3),)),
    "a pass under p=none": Shape(((UNENFORCED, 2),)),
    "a pass under p=reject": Shape(((PASSED, 2),), StoredPolicy("legit.example", p="reject")),
    "several rows": Shape(
        ((row(), 3), (row(source_ip="192.0.2.2"), 1), (row(source_ip="192.0.2.3"), 7))
    ),
    "two rows of one address with one count": Shape(
        ((row(), 3), (row(header_from="news.legit.example"), 3))
    ),
    "null sender, HELO a domain": Shape(((null_sender("mx.attack.example"), 1),)),
    "null sender, HELO an IPv4 literal": Shape(((null_sender("[192.0.2.1]"), 1),)),
    "null sender, HELO an IPv6 literal": Shape(((null_sender("[IPv6:2001:db8::1]"), 1),)),
    "null sender, HELO invalid": Shape(((null_sender("invalid"), 1),)),
    "MAIL FROM without a domain name": Shape(
        ((row(envelope_from=None, auth_spf=SpfFact("none", "invalid")), 1),)
    ),
    "no signature": Shape(((row(auth_dkim=()), 1),)),
    "many signatures": Shape(
        ((row(auth_dkim=tuple(DkimFact("fail", f"d{n}.example", f"s{n}") for n in range(20))), 1),)
    ),
    "IPv6 client": Shape(((row(source_ip="2001:db8::25"), 1),)),
    "several recipient domains": Shape(((row(envelope_to=None), 1),)),
    "a reason with a comment": Shape(
        ((row(disposition="none", reasons=(StoredReason("mailing_list", "list.example"),)), 1),)
    ),
    "sampled out by pct": Shape(
        ((row(disposition="none", reasons=(StoredReason("sampled_out", "pct=20"),)), 1),),
        StoredPolicy("legit.example", p="reject", pct=20),
    ),
    "every tag of the policy": Shape(
        ((row(), 1),),
        StoredPolicy(
            "legit.example", p="reject", sp="quarantine", np="reject", testing=True, fo="1:d:s",
            adkim="s", aspf="s",
        ),
    ),
    "an error in the record": Shape(
        ((row(), 1),), StoredPolicy("legit.example", p="none", errors=("sp: unknown value",))
    ),
    "more rows than fit": Shape(((row(), 1),), folded=12),
    "SPF softfail, DKIM temperror": Shape(
        (
            (
                row(
                    auth_spf=SpfFact("softfail", "attack.example"),
                    auth_dkim=(DkimFact("temperror", "legit.example", "sel"),),
                ),
                1,
            ),
        )
    ),
}  # fmt: skip


class Seen(NamedTuple):
    """What a reader makes of one record; None where it does not keep that."""

    source: str | None
    count: int
    disposition: str | None
    dkim: bool | None
    spf: bool | None
    header_from: str
    spf_domain: str | None
    dkim_domain: str | None
    """Of the first signature; "" where there is none."""


def identity(shape: str, form: Format) -> str:
    """The report's id."""
    return sha256(f"{shape} {form}".encode()).hexdigest()[:32]


def feedback(shape: str, form: Format) -> Feedback:
    found = SHAPES[shape]
    return Feedback(
        REPORTER, identity(shape, form), PERIOD, found.published, found.rows, found.folded
    )


def document(shape: str, form: Format) -> bytes:
    """The XML."""
    return render(feedback(shape, form), form)


def mail(shape: str, form: Format) -> bytes:
    """The mail, as the report job writes it."""
    report = feedback(shape, form)
    letter = Letter(
        report.report_id,
        report.published.policy_domain,
        REPORTER.email,
        filename(report),
        summary(report),
        compressed(render(report, form)),
    )
    now = datetime(2026, 11, 21, 1, tzinfo=UTC)
    return write(letter, "agg@legit.example", now=now).as_bytes()


def expected(shape: str, form: Format) -> list[Seen]:
    """What every reader should make of it."""
    return [
        Seen(
            one.source_ip,
            count,
            "none" if form == "rfc7489" and one.disposition == "pass" else one.disposition,
            one.dkim_aligned,
            one.spf_aligned,
            one.header_from,
            one.auth_spf.domain if one.auth_spf else "",
            one.auth_dkim[0].domain if one.auth_dkim else "",
        )
        for one, count in SHAPES[shape].rows
    ]
