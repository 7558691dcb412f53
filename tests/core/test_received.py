"""The client that handed a message to one of our relays (DESIGN.md, trusted_relays; RFC 5321 4.4)."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.domain import Malformed
from dmarc_milter.received import Hop, original_client, parse
from fakes.growth import is_linear

REAL = "192.0.2.1"
READABLE = [
    ("from h.example (r.example [192.0.2.1]) by mx (Postfix) with ESMTPS id 4X for <v@example.com>; Mon, 1 Jan", REAL, "h.example"),
    ("from h (unknown [IPv6:2001:db8::1])\r\n\t(using TLSv1.3 with cipher X (256/256 bits))\r\n\tby mx with ESMTP; d", "2001:db8::1", "h"),
    ("from h (r [192.0.2.1] (may be forged))\r\n\tby mx (8.18.1/8.18.1) with ESMTP id x; d", REAL, "h"),
    ("from h ([192.0.2.1]) by mx", REAL, "h"),
    ("from h (IDENT:user@r [192.0.2.1]) by mx", REAL, "h"),
    ("from r ([192.0.2.1] helo=h) by mx with esmtp (Exim 4.98) (envelope-from <a@b.example>) id 1 for c; d", REAL, "h"),
    ("from r ([192.0.2.1]:4567 helo=h ident=x) by mx", REAL, "h"),
    ("from r ([192.0.2.1]) by mx", REAL, "r"),
    ("from [192.0.2.1] (helo=h) by mx", REAL, "h"),
    ("from h (192.0.2.1) by mx (10.0.0.1) with Microsoft SMTP Server (version=TLS1_2, cipher=X) id 15.1; d", REAL, "h"),
    ("from h (2001:db8::1) by mx", "2001:db8::1", "h"),
    ("from unknown (HELO h) (192.0.2.1) by mx with SMTP; d", REAL, "h"),
    ("from r (HELO h) (user@192.0.2.1) by 0 with SMTP; d", REAL, "h"),
    ("from r (192.0.2.1) by 0 with SMTP; d", REAL, "r"),
    ("from h (r [::ffff:192.0.2.1]) by mx", REAL, "h"),
    ("from [192.0.2.1] (account user@d HELO h) by mx", REAL, "h"),
    ("FROM h (r [192.0.2.1]) BY mx", REAL, "h"),
]
HELO_DOES_NOT_WIN = [
    ("from [198.51.100.10] (unknown [192.0.2.1]) by mx", "[198.51.100.10]"),
    ("from r ([192.0.2.1] helo=[198.51.100.10]) by mx", "[198.51.100.10]"),
    ("from [192.0.2.1] (helo=[198.51.100.10]) by mx", "[198.51.100.10]"),
    ("from r (HELO [198.51.100.10]) (192.0.2.1) by mx", "[198.51.100.10]"),
    ("from [198.51.100.10] (192.0.2.1) by mx", "[198.51.100.10]"),
    ("from by (unknown [192.0.2.1]) by mx", "by"),
    ("from from (unknown [192.0.2.1]) by mx", "from"),
    ("from a;b (unknown [192.0.2.1]) by mx; d", "a;b"),
    ("from a\\b (unknown [192.0.2.1]) by mx", "a\\b"),
    ("from \xa0 (unknown [192.0.2.1]) by mx", "\xa0"),
    ("from h (helo [192.0.2.1]) by mx", "h"),
    ('from h (unknown [192.0.2.1]) by mx for <"a by ( b"@example.com>; d', "h"),
]
UNREADABLE = [
    "",
    "by mx (Postfix, from userid 0) id x; d",
    "from [192.0.2.1] by mx",
    "from h [198.51.100.10] (unknown [192.0.2.1]) by mx",
    "from x (unknown [198.51.100.10]) (r [192.0.2.1]) by mx",
    "from x (unknown [198.51.100.10]) by y (r [192.0.2.1]) by mx",
    "from [198.51.100.10] (helo [192.0.2.1]) by mx",
    "from x (unknown [192.0.2.1] by mx",
    "from x) (unknown [192.0.2.1]) by mx",
    "from x (unknown [999.0.2.1]) by mx",
    "from x (HELO y) by mx",
    "from x (unknown [192.0.2.1])",
    "(" * 5000,
    "from x (unknown [192.0.2.1]) by " + "m" * 9000,
]


@pytest.mark.parametrize(("value", "address", "helo"), READABLE)
def test_address_and_helo_are_read_from_what_common_servers_write(value: str, address: str, helo: str) -> None:
    """Postfix, Sendmail, Exim, Exchange, qmail, CommuniGate."""
    assert parse(value.encode()) == Hop(ip_address(address), helo)


@pytest.mark.parametrize(("value", "helo"), HELO_DOES_NOT_WIN)
def test_a_crafted_helo_neither_wins_nor_hides_the_address(value: str, helo: str) -> None:
    """HELO, the reverse name and the recipient are the sender's: they must not become the client address nor make it unreadable."""
    assert parse(value.encode()) == Hop(ip_address(REAL), helo)


@pytest.mark.parametrize("value", UNREADABLE)
def test_what_is_ambiguous_or_no_client_is_malformed(value: str) -> None:
    """Unreadable means SPF none, never a guess (DESIGN.md, trusted_relays)."""
    assert isinstance(parse(value.encode()), Malformed)


INSIDE = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))
OWN = b"from relay.example.com (relay.example.com [10.0.0.2]) by mx"
OUTSIDE = b"from h (r [192.0.2.1]) by relay"
FORGED = b"from h (r [198.51.100.10]) by attacker"


def test_the_topmost_client_outside_the_list_is_the_original_one() -> None:
    """Below it everything is the sender's own writing."""
    assert original_client([OWN, OUTSIDE, FORGED], INSIDE) == Hop(ip_address(REAL), "h")
    assert original_client([OUTSIDE, FORGED], INSIDE) == Hop(ip_address(REAL), "h")


@pytest.mark.parametrize("fields", [[], [OWN], [b"by relay (Postfix)", OUTSIDE], [OWN, b"junk", OUTSIDE], [OWN] * 60 + [OUTSIDE]])
def test_no_client_is_found_when_a_field_above_it_cannot_be_read(fields: list[bytes]) -> None:
    """None: the caller treats SPF as none."""
    assert original_client(fields, INSIDE) is None


PIECES = ["from", "by", "(", ")", "[192.0.2.1]", "helo=", "HELO", "x", '"', "\\", ";", "192.0.2.1", "@"]


@given(st.binary(max_size=300) | st.lists(st.sampled_from(PIECES), max_size=20).map(lambda words: " ".join(words).encode()))
def test_nothing_escapes_the_parser(value: bytes) -> None:
    """Any bytes give a Hop or Malformed."""
    assert isinstance(parse(value), Hop | Malformed)


@pytest.mark.parametrize("piece", [b"(", b"()", b'"', b"\\", b"a ", b"a@", b"[1.2.3.4] ", b"helo=x "])
def test_a_field_is_read_in_linear_time(piece: bytes) -> None:
    """Within the bound of one field too."""
    assert is_linear(parse, lambda size: (b"from x (" + piece * size)[:size], 4096)
