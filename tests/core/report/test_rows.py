"""Which report and which row counts a message."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from dmarc_milter.core.dmarc.record import Policy, ReportUri
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.path import reverse_path
from dmarc_milter.core.report.rows import (
    configuration,
    decode_row,
    encode_row,
    is_reportable,
    period,
    published_of,
    row_of,
)
from dmarc_milter.core.spf import check as spf
from dmarc_milter.core.stored import Facts, SpfFact, StoredOutcome, StoredReason
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from fakes.dns_zone import Zone
from fakes.evaluations import RECORD, evaluation

MIDNIGHT = 1_700_006_400


def facts(**changes: Any) -> Facts:
    return msgspec.structs.replace(from_evaluation(evaluation(passed=True)), **changes)


@pytest.mark.parametrize(
    ("at", "ri", "honor_ri", "begin", "hours"),
    [
        (MIDNIGHT, None, False, MIDNIGHT, 24),
        (MIDNIGHT + 86399.9, None, False, MIDNIGHT, 24),
        (MIDNIGHT - 0.1, None, False, MIDNIGHT - 86400, 24),
        (MIDNIGHT + 5000, 3600, False, MIDNIGHT, 24),
        (MIDNIGHT + 5000, 3600, True, MIDNIGHT + 3600, 1),
        (MIDNIGHT + 5000, 1, True, MIDNIGHT + 3600, 1),
        (MIDNIGHT + 5000, 5 * 3600, True, MIDNIGHT, 4),
        (MIDNIGHT + 50000, 43200, True, MIDNIGHT + 43200, 12),
        (MIDNIGHT + 50000, 86400, True, MIDNIGHT, 24),
        (MIDNIGHT + 50000, 10**12, True, MIDNIGHT, 24),
        (-1, None, False, -86400, 24),
    ],
)
def test_periods_are_whole_parts_of_the_utc_day(
    at: float, ri: int | None, honor_ri: bool, begin: int, hours: int
) -> None:
    """RFC 7489 Appendix C, RFC 9990 3; RPT-11: UTC days whatever the zone; ri where it is honoured,
    one hour at least."""
    assert period(at, ri, honor_ri=honor_ri) == (begin, begin + hours * 3600)


def test_the_same_policy_in_other_words_is_one_configuration() -> None:
    """RFC 9990: one policy configuration in a report; white space in the record does not make
    another."""

    def name(**changes: Any) -> str:
        found = from_evaluation(evaluation(record=replace(RECORD, **changes))).outcome
        assert found is not None
        assert found.published is not None
        return configuration(found.published)

    assert name() == name(text="v=DMARC1;p=reject") == name(errors=("unknown tag",))
    others = {
        name(),
        name(p=Policy.NONE),
        name(np=Policy.NONE),
        name(testing=True),
        name(pct=50),
        name(rua=(ReportUri("b@c.example"),)),
    }
    assert len(others) == 6


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({}, True),
        ({"counted": False}, False),
        ({"to_reporting": True}, False),
        ({"from_reporting": True}, True),
        ({"is_report": True}, True),
        ({"source_ip": ""}, False),
        ({"outcome": None}, False),
    ],
)
def test_everything_is_counted_but_what_nobody_can_be_told(
    changes: dict[str, Any], counted: bool
) -> None:
    """docs/design.md, Reports; RFC 9989 5.3: no usable From, no policy, 4xx, mail to our own
    reporting address."""
    assert (published_of(facts(**changes)) is not None) is counted


def test_a_policy_without_rua_is_not_counted() -> None:
    """There is no address to send it to, so the store does not grow with it."""
    assert published_of(from_evaluation(evaluation(record=replace(RECORD, rua=())))) is None
    assert published_of(from_evaluation(evaluation(record=None))) is None


@pytest.mark.parametrize(
    ("changes", "reportable"),
    [
        ({}, True),
        ({"is_report": True}, False),
        ({"is_dsn": True}, False),
        ({"auto_submitted": True}, False),
        ({"from_reporting": True}, False),
        ({"is_report": True, "status": "fail"}, True),
        ({"auto_submitted": True, "status": "temperror"}, True),
    ],
)
def test_reports_about_reports_are_no_reason_to_report(
    changes: dict[str, Any], reportable: bool
) -> None:
    """RPT-09: two reporters must reach silence; spoofed mail that looks like a report still tells
    its victim."""
    assert is_reportable(facts(**changes)) is reportable


def test_rows_differ_by_what_a_report_shows_and_by_nothing_else() -> None:
    """Counts are kept per distinct row (docs/design.md, The ledger)."""

    def stored(**changes: Any) -> bytes:
        changed = facts(**changes)
        assert changed.outcome is not None
        return encode_row(row_of(changed, changed.outcome))

    base = stored(id="a", at=1.0)
    assert base == stored(
        id="b",
        at=2.0,
        queue_id="other",
        message_id="other",
        helo="other",
        decided_by="other",
        tags=("t",),
        iprev="fail",
    )
    unnamed = [SpfFact("none"), SpfFact("none", scope="helo", reason="HELO is no domain name")]
    assert stored(spf=unnamed[0]) == stored(spf=unnamed[1]) != base, (
        "no form tells more of a check without a name"
    )
    assert base != stored(source_ip="192.0.2.1")
    assert base != stored(disposition="none")
    assert base != stored(reasons=(StoredReason("local_policy", "x"),))
    assert base != stored(envelope_from="other.example")
    assert base != stored(envelope_from="")
    assert decode_row(base).source_ip == "192.0.2.66"


@pytest.mark.parametrize(
    ("recipients", "shown"),
    [((), None), (("example.com",), "example.com"), (("example.com", "example.net"), None)],
)
def test_envelope_to_is_told_where_all_recipients_share_one_domain(
    recipients: tuple[str, ...], shown: str | None
) -> None:
    """RFC 9989 5.3: a message counts once."""
    changed = facts(envelope_to=recipients)
    assert changed.outcome is not None
    assert row_of(changed, changed.outcome).envelope_to == shown


def test_a_dns_error_is_a_reason() -> None:
    """RFC 9989 5.3: no aligned pass and a DNS error: none, with reason other."""
    base = evaluation(
        dmarc=DmarcResult(
            DmarcStatus.TEMPERROR, Domain("legit.example"), evaluation().dmarc.outcome
        )
    )
    found = from_evaluation(base)
    assert found.outcome is not None
    assert row_of(found, found.outcome).reasons == (StoredReason("other", "dns error"),)


@pytest.mark.parametrize(
    ("helo", "named"),
    [
        ("mx.attack.example", "mx.attack.example"),
        ("MX.Attack.Example.", "mx.attack.example"),
        ("[192.0.2.9]", "[192.0.2.9]"),
        ("[IPv6:2001:DB8:0:0::1]", "[IPv6:2001:db8::1]"),
        ("[ipv6:::FFFF:192.0.2.9]", "[192.0.2.9]"),
        ("[192.0.2.09]", "invalid"),
        ("[2001:db8::1]", "invalid"),
        ("[IPv6:192.0.2.9]", "invalid"),
        ("[IPv6:fe80::1%eth0]", "invalid"),
        ("[IPv6:2001:db8::1%</domain>]", "invalid"),
        ("[tag:content]", "invalid"),
        ("[192.0.2.9", "invalid"),
        ("[[192.0.2.9]]", "invalid"),
        ("[192.0.2.9] ", "invalid"),
        ("192.0.2.9", "invalid"),
        ("", "invalid"),
        ("no such", "invalid"),
        ("<b>&amp;", "invalid"),
        ("\udcff\udcfe.example", "invalid"),
        ("a..example", "invalid"),
        (f"[{'1' * 5000}]", "invalid"),
        (f"{'a' * 64}.example", "invalid"),
    ],
)
def test_rpt_70_what_spf_checked_of_a_null_sender_is_always_named(helo: str, named: str) -> None:
    """RFC 7208 2.4 and 4.3: a domain name, or an address literal in canonical form; for anything
    else `invalid`. HELO is a stranger's text."""
    base = evaluation()
    envelope = replace(base.envelope, mail_from=reverse_path(b"<>"), helo=helo)
    checked = spf.check(envelope, Zone({}))
    row = row_of(*with_outcome(from_evaluation(replace(base, envelope=envelope, spf=checked))))
    assert row.auth_spf is not None
    assert (row.auth_spf.domain, row.auth_spf.result) == (named, "none")
    assert row.envelope_from == ""


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (b"<a@[192.0.2.9]>", "[192.0.2.9]"),
        (b"<a@[IPv6:2001:DB8::0:1]>", "[IPv6:2001:db8::1]"),
        (b"<a@[300.0.2.9]>", "invalid"),
        (b"<a@b..example>", "invalid"),
        (b"<postmaster>", "invalid"),
        (b"<a@\xff>", "invalid"),
        (b"<a@localhost>", "localhost"),
    ],
)
def test_rpt_70_what_spf_checked_of_a_sender_is_always_named(path: bytes, named: str) -> None:
    """RFC 7208 4.3: MAIL FROM's domain, an address literal, or `invalid`; never HELO's text."""
    base = evaluation()
    envelope = replace(base.envelope, mail_from=reverse_path(path), helo="mx.attack.example")
    checked = spf.check(envelope, Zone({}))
    row = row_of(*with_outcome(from_evaluation(replace(base, envelope=envelope, spf=checked))))
    assert row.auth_spf is not None
    assert (row.auth_spf.domain, row.auth_spf.result) == (named, "none")


def with_outcome(found: Facts) -> tuple[Facts, StoredOutcome]:
    assert found.outcome is not None
    return found, found.outcome
