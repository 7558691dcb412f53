"""Reverse DNS of the client: RFC 8601 3 and 2.7.3."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

import pytest

from dmarc_milter.core.iprev import iprev
from fakes.dns_zone import Zone

V4 = "192.0.2.66"
V6 = "2001:db8::66"
ZONE = """
    66.2.0.192.in-addr.arpa  PTR  Mail.Example.COM.
    66.2.0.192.in-addr.arpa  PTR  other.example.com.
    66.2.0.192.in-addr.arpa  PTR  also.example.com.
    mail.example.com         A    192.0.2.66
    also.example.com         A    192.0.2.1
    also.example.com         A    192.0.2.66
    1.2.0.192.in-addr.arpa   PTR  other.example.com.
    2.2.0.192.in-addr.arpa   FAIL
    3.2.0.192.in-addr.arpa   PTR  broken.example.com.
    3.2.0.192.in-addr.arpa   PTR  other.example.com.
    broken.example.com       FAIL
    4.2.0.192.in-addr.arpa   PTR  broken.example.com.
    4.2.0.192.in-addr.arpa   PTR  four.example.com.
    four.example.com         A    192.0.2.4
    5.2.0.192.in-addr.arpa   PTR  "<b>"..
    6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa  PTR  six.example.com
    6.6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa  PTR  six.example.com
    six.example.com          AAAA 2001:db8::66
    six.example.com          A    192.0.2.66
"""


@pytest.mark.parametrize(
    ("address", "status", "names"),
    [
        (V4, "pass", ("mail.example.com", "also.example.com")),
        (f"::ffff:{V4}", "pass", ("mail.example.com", "also.example.com")),
        (V6, "pass", ("six.example.com",)),
        ("2001:db8::6", "fail", ()),
        ("192.0.2.1", "fail", ()),
        ("192.0.2.2", "temperror", ()),
        ("192.0.2.3", "temperror", ()),
        ("192.0.2.4", "pass", ("four.example.com",)),
        ("192.0.2.5", "fail", ()),
        ("192.0.2.9", "permerror", ()),
    ],
)
def test_a_name_is_proven_when_it_resolves_back(
    address: str, status: str, names: tuple[str, ...]
) -> None:
    """RFC 8601 2.7: fail when both look-ups answered and disagree, permerror without PTR, temperror
    when the DNS failed."""
    result = iprev(ip_address(address), Zone.parse(ZONE))
    assert (result.status, result.names) == (status, names)


def test_a_zone_id_is_no_part_of_the_address() -> None:
    """docs/attacks.md SPF-13."""
    assert iprev(IPv6Address(f"{V6}%eth0"), Zone.parse(ZONE)).status == "pass"


@pytest.mark.parametrize(("at", "status"), [(9, "pass"), (10, "fail")])
def test_ten_names_are_looked_at(at: int, status: str) -> None:
    """The client owns its reverse zone: eleven questions, however many names it puts there."""
    zone = Zone({"66.2.0.192.in-addr.arpa": {"PTR": [f"n{n}.example" for n in range(100)]}})
    for n in range(100):
        zone.add(f"n{n}.example", "A", V4 if n == at else "192.0.2.1")
    assert iprev(ip_address(V4), zone).status == status
    assert len(zone.calls) == 11
    assert len(zone.prefetched) == 10


def test_a_slow_reverse_zone_ends_in_time() -> None:
    """A temperror, not a wait of fifty seconds."""
    zone = Zone(
        {"66.2.0.192.in-addr.arpa": {"PTR": [f"n{n}.example" for n in range(10)]}}, latency=4.9
    )
    assert iprev(ip_address(V4), zone).status == "temperror"
    assert zone.now < 15
