"""External destinations are verified (RFC 9990 4); a DNS failure keeps the report, a
refusal drops the address."""

import pytest

from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.report.destination import Permission, takes_mail, verify
from fakes.dns_zone import Zone

POLICY, HOST = Domain("blue.example.com"), Domain("red.example.net")
NAME = "blue.example.com._report._dmarc.red.example.net"


def organization(name: Domain) -> Domain | None:
    return None if name.name.startswith("unknown") else name.right_most(2)


@pytest.mark.parametrize(
    ("records", "permission", "addresses"),
    [
        (["v=DMARC1"], Permission.GRANTED, ()),
        (["v=DMARC1;"], Permission.GRANTED, ()),
        (["v=DMARC1", "v=DMARC1; p=none"], Permission.GRANTED, ()),
        (
            ["v=DMARC1; rua=mailto:other@red.example.net"],
            Permission.GRANTED,
            ("other@red.example.net",),
        ),
        (["v=DMARC1; rua=mailto:other@sub.red.example.net"], Permission.REFUSED, ()),
        (["v=DMARC1; ruf=mailto:other@elsewhere.example"], Permission.GRANTED, ()),
        (["v=DMARC1; rua=https://red.example.net/reports"], Permission.REFUSED, ()),
        (
            ["v=DMARC1; rua=https://red.example.net/, mailto:other@red.example.net"],
            Permission.GRANTED,
            ("other@red.example.net",),
        ),
        (["v=DMARC1; rua=nonsense"], Permission.GRANTED, ()),
        (["unrelated"], Permission.REFUSED, ()),
        (["v=dmarc1"], Permission.REFUSED, ()),
        ([], Permission.REFUSED, ()),
    ],
)
def test_rpt_05_the_host_must_have_asked(
    records: list[str], permission: Permission, addresses: tuple[str, ...]
) -> None:
    zone = Zone({NAME: {"TXT": records}} if records else {})
    answer = verify(POLICY, HOST, "rua", zone, organization)
    assert (answer.permission, tuple(each.address for each in answer.addresses)) == (
        permission,
        addresses,
    )


def test_rpt_05_servfail_means_later_never_send() -> None:
    assert (
        verify(POLICY, HOST, "rua", Zone({}, failing={NAME}), organization).permission
        is Permission.LATER
    )


def test_the_same_organization_is_not_asked() -> None:
    """Step 1: by organizational domain, for sisters too."""
    zone = Zone({})
    assert (
        verify(POLICY, Domain("reports.example.com"), "rua", zone, organization).permission
        is Permission.GRANTED
    )
    assert not zone.calls


def test_an_unknown_organization_is_not_a_refusal() -> None:
    assert (
        verify(Domain("unknown.example"), HOST, "rua", Zone({}), organization).permission
        is Permission.LATER
    )
    zone = Zone({"unknown.example._report._dmarc.red.example.net": {"TXT": ["v=DMARC1"]}})
    assert (
        verify(Domain("unknown.example"), HOST, "rua", zone, organization).permission
        is Permission.GRANTED
    )


def test_rpt_05_a_name_that_the_dns_cannot_hold_is_not_authorised() -> None:
    """Step 3."""
    long = Domain(".".join(["a" * 60] * 4))
    zone = Zone({})
    assert verify(long, HOST, "rua", zone, organization).permission is Permission.REFUSED
    assert not zone.calls


@pytest.mark.parametrize(
    ("records", "permission"),
    [
        ({"MX": [(10, "mx.red.example.net")]}, Permission.GRANTED),
        ({"MX": [(0, "")]}, Permission.REFUSED),
        ({"MX": [(0, ""), (10, "mx.red.example.net")]}, Permission.GRANTED),
        ({"A": ["192.0.2.1"]}, Permission.GRANTED),
        ({"AAAA": ["2001:db8::1"]}, Permission.GRANTED),
        ({"MX": [(0, "")], "A": ["192.0.2.1"]}, Permission.REFUSED),
        ({"TXT": ["v=spf1 -all"]}, Permission.REFUSED),
        ({"CNAME": ["mail.red.example.net"]}, Permission.GRANTED),
        ({"CNAME": ["gone.red.example.net"]}, Permission.REFUSED),
        ({}, Permission.REFUSED),
    ],
)
def test_hosts_that_take_no_mail_are_skipped(
    records: dict[str, list[object]], permission: Permission
) -> None:
    """RFC 5321 5.1: without an MX the host's own address takes the mail; only a null MX (RFC 7505),
    no address, or a name that does not exist does not."""
    zone = Zone({HOST.name: records, "mail.red.example.net": {"AAAA": ["2001:db8::2"]}})
    assert takes_mail(HOST, zone).permission is permission


def test_an_unanswered_mx_is_later() -> None:
    assert takes_mail(HOST, Zone({}, failing={HOST.name})).permission is Permission.LATER


@pytest.mark.parametrize(
    ("failing", "permission"),
    [
        (("A",), Permission.GRANTED),
        (("A", "AAAA"), Permission.LATER),
        (("MX",), Permission.LATER),
    ],
)
def test_an_unanswered_address_is_later_unless_the_other_kind_is_there(
    failing: tuple[str, ...], permission: Permission
) -> None:
    """A DNS failure is no answer: neither yes nor no."""
    zone = Zone(
        {HOST.name: {"AAAA": ["2001:db8::1"]}}, failing=[(HOST.name, kind) for kind in failing]
    )
    assert takes_mail(HOST, zone).permission is permission
