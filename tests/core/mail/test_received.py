"""The client that handed a message to one of our relays (docs/design.md, trusted_relays; RFC 5321
4.4)."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.mail.domain import Malformed
from dmarc_milter.core.mail.received import Hop, original_client, parse
from fakes.growth import is_linear

REAL = "192.0.2.1"
VECTORS = Path(__file__).parents[2] / "vectors"
ENTRY = re.compile(rb"^@ ([0-9A-Fa-f:.]+)\n(.*?)\n\n", re.MULTILINE | re.DOTALL)
RECORDED = [
    pytest.param(address.decode(), field, id=f"{file.stem}-{number}")
    for file in sorted(VECTORS.glob("received-*.txt"))
    for number, (address, field) in enumerate(ENTRY.findall(file.read_bytes() + b"\n"), 1)
]
READABLE = [
    (
        (
            "from h.example (r.example [192.0.2.1]) by mx (Postfix) with ESMTPS id 4X for"
            " <v@example.com>; Mon, 1 Jan"
        ),
        REAL,
        "h.example",
    ),
    (
        (
            "from h (unknown [IPv6:2001:db8::1])\r\n\t(using TLSv1.3 with cipher X (256/256"
            " bits))\r\n\tby mx with ESMTP; d"
        ),
        "2001:db8::1",
        "h",
    ),
    (
        "from h (r [192.0.2.1] (may be forged))\r\n\tby mx (8.18.1/8.18.1) with ESMTP id x; d",
        REAL,
        "h",
    ),
    ("from h ([192.0.2.1]) by mx", REAL, "h"),
    ("from h (IDENT:user@r [192.0.2.1]) by mx", REAL, "h"),
    (
        (
            "from r ([192.0.2.1] helo=h) by mx with esmtp (Exim 4.98) (envelope-from <a@b.example>)"
            " id 1 for c; d"
        ),
        REAL,
        "h",
    ),
    ("from r ([192.0.2.1]:4567 helo=h ident=x) by mx", REAL, "h"),
    ("from r ([192.0.2.1]) by mx", REAL, "r"),
    ("from [192.0.2.1] (helo=h) by mx", REAL, "h"),
    (
        (
            "from h (192.0.2.1) by mx (10.0.0.1) with Microsoft SMTP Server (version=TLS1_2,"
            " cipher=X) id 15.1; d"
        ),
        REAL,
        "h",
    ),
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
    ("from x) (unknown [192.0.2.1]) by mx", "x)"),
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
    "from x (unknown [999.0.2.1]) by mx",
    "from x (HELO y) by mx",
    "from x (unknown [192.0.2.1])",
    "(" * 5000,
    "from x (unknown [192.0.2.1]) by " + "m" * 70000,
]


@pytest.mark.parametrize(("value", "address", "helo"), READABLE)
def test_address_and_helo_are_read_from_what_common_servers_write(
    value: str, address: str, helo: str
) -> None:
    """Postfix, Sendmail, Exim, Exchange, qmail, CommuniGate."""
    assert parse(value.encode()) == Hop(ip_address(address), helo)


@pytest.mark.parametrize(("value", "helo"), HELO_DOES_NOT_WIN)
def test_a_crafted_helo_neither_wins_nor_hides_the_address(value: str, helo: str) -> None:
    """HELO, the reverse name and the recipient are the sender's: they must not become the client
    address nor make it unreadable."""
    assert parse(value.encode()) == Hop(ip_address(REAL), helo)


def test_every_field_of_a_real_program_names_its_client() -> None:
    """FWD-10 to FWD-14: Exim, Courier, OpenSMTPD, Postfix and Sendmail, with hostile HELO, ident,
    host name, certificate, login.

    The values are what the programs wrote (tests/live/record_received.py). With folds of CRLF too;
    with other folds, as another relay may have made them, the address is right or there is none.
    """
    assert len(RECORDED) >= 270
    for each in RECORDED:
        address, field = each.values
        assert isinstance(address, str)
        assert isinstance(field, bytes)
        for value in (b" " + field, field.replace(b"\n", b"\r\n")):
            hop = parse(value)
            assert isinstance(hop, Hop), (each.id, hop, field)
            assert hop.address == ip_address(address), (each.id, hop, field)
        for value in (
            field.replace(b"\n", b""),
            re.sub(rb"\s+", b"\n ", field),
            field.replace(b"\n", b"").replace(b" by ", b"\n\tby "),
        ):
            hop = parse(value)
            assert isinstance(hop, Malformed) or hop.address == ip_address(address), (
                each.id,
                hop,
                value,
            )


V = "198.51.100.10"
EXIM = " by mx with esmtp (Exim 4.96) (envelope-from <a@b.example>) id 1 for c@example.com; d"
SENDMAIL = "\n\tby mx (8.17.1/8.17.1) with ESMTP id 1\n\tfor <c@example.com>; d"
COURIER = "\n  by mx with ESMTP\n  id 000000000000000C.000000006B0CE8A0.00000016; d"
CGP = "\n  by mx (CommuniGate Pro SMTP 6.3.6f)\n  with ESMTPS id 1; d"
EXCHANGE = (
    " by\r\n EX1.corp.example (10.0.0.5) with Microsoft SMTP Server (version=TLS1_2,\r\n cipher=X)"
    " id 15.1.2507.6; d"
)
HOSTILE = [
    # FWD-10: Exim
    (f"from [{REAL}] (helo=x@{V})" + EXIM, f"x@{V}"),
    (f"from [{REAL}] (helo=x [{V}])" + EXIM, f"x [{V}]"),
    (f"from [{REAL}] (ident=x@{V})" + EXIM, f"[{REAL}]"),
    (f"from [{REAL}] (helo=x ident=x [{V}])" + EXIM, "x ident=x [198.51.100.10]"),
    (f"from [{REAL}] (port=4444 helo=[{V}])" + EXIM, f"[{V}]"),
    (f"from [{REAL}]:4444 (helo=[{V}])" + EXIM, f"[{V}]"),
    (f"from [{REAL}]" + EXIM, f"[{REAL}]"),
    (f"from [{REAL}] (helo=x@{V}) by mx", f"x@{V}"),
    (f"from [{REAL}] (helo=x (h [{V}])) by mx", f"x (h [{V}])"),
    (f"from [{REAL}] (helo=x( [{V}])\n\tby mx with esmtp (Exim 4.96) id 1; d", f"x( [{V}]"),
    (f"from [{V}]\n\t([{REAL}] helo=x)\n\tby mx with esmtp (Exim 4.96) id 1; d", "x"),
    (f"from p.example ([{REAL}] helo=x [{V}] ident=[{V}])" + EXIM, f"x [{V}]"),
    (
        (
            f"from p.example\n\t([{REAL}] helo=x) by q (8.17.1/8.17.1) with SMTP; (h [{V}])\n\tby"
            " mx with esmtp (Exim 4.96); d"
        ),
        None,
    ),
    # FWD-11: Sendmail and others that write what DNS and ident say
    (f"from [{V}] (x@[{REAL}])" + SENDMAIL, f"[{V}]"),
    (f"from [{V}] (helo=x@[{REAL}])" + SENDMAIL, f"[{V}]"),
    (f"from [{V}] (ident=[{V}] [{REAL}])" + SENDMAIL, f"[{V}]"),
    (f"from h ([{V}]) [{REAL}] (may be forged))" + SENDMAIL, "h"),
    (f"from h (HELO [{V}]) [{REAL}])" + SENDMAIL, "h"),
    (f"from h (@x [{REAL}])\n\t(authenticated bits=0)" + SENDMAIL, "h"),
    (f"from h ([{V}] [::ffff:{REAL}])" + COURIER, "h"),
    (f"from h ([{V}] helo=x [::ffff:{REAL}])\n  (IDENT: [{V}])" + COURIER, "h"),
    (f"from [{V}] (helo=x [::ffff:{REAL}])\n  (AUTH: LOGIN [{V}])" + COURIER, f"[{V}]"),
    (f"from x)_([{V}] ([::ffff:{REAL}])" + COURIER, f"x)_([{V}]"),
    # FWD-12: certificates and logins
    (
        (
            f'from h (r [{REAL}])\n\t(using TLSv1.3)\n\t(Client CN "x[{V}]", Issuer "y" (verified'
            " OK))\n\tby mx (Postfix) with ESMTPS id 1; d"
        ),
        "h",
    ),
    (
        (
            f'from h (r [{REAL}]) (Client CN "x (y [{V}])", Issuer "y" (verified OK)) by mx'
            " (Postfix) with ESMTPS id 1; d"
        ),
        "h",
    ),
    (
        (
            f'from h (r [{REAL}]) (Client CN "[{V}]", Issuer "([{V}])" (not verified)) by mx with'
            " ESMTPS; d"
        ),
        "h",
    ),
    (f"from h (r [{REAL}]) (Authenticated sender: [{V}]) by mx (Postfix); d", "h"),
    (f"from h (r [{REAL}]) (r [{V}]) by mx (Postfix); d", "h"),
    # FWD-13: Exchange, qmail, CommuniGate, MDaemon and what is like them
    (f"from [{V}] ({REAL})" + EXCHANGE, f"[{V}]"),
    (f"from h ({REAL})" + EXCHANGE, "h"),
    (f"from h ([{REAL}] RDNS failed) by mx with Microsoft SMTPSVC(6.0.3790.0); d", "h"),
    ("from h (2001:db8::1%12) by mx with mapi id 15.1; d", "h"),
    (f"from [{V}] (HELO [{V}]) ({REAL})\n  by 0 with SMTP; d", f"[{V}]"),
    (f"from unknown (HELO x) ({V}@{REAL}) by mx with SMTP; d", "x"),
    (f"from unknown (HELO x) (a@b@[{REAL}]) by mx with SMTP; d", "x"),
    (f"from unknown (HELO ) ({REAL}) by mx with SMTP; d", ""),
    (f"from {V} (EHLO {V}) ({REAL}) by mx with SMTP; d", V),
    (f"from unknown (HELO [{V}]) ([{REAL}])\n  by esa with ESMTP/TLS/X; d", f"[{V}]"),
    (f"from [{REAL}] (HELO [{V}])" + CGP, f"[{V}]"),
    (f"from [{REAL}] (account x@{V} HELO [{V}])" + CGP, f"[{V}]"),
    (f"from [{REAL}] (account a [{REAL}] verified)" + CGP, f"[{REAL}]"),
    (f"from h (account [{V}] [{REAL}] verified)" + CGP, "h"),
    (f"from h ([{REAL}] verified)" + CGP, "h"),
    (f"from [{V}] ([{REAL}]) by mx (mx)\n\t(MDaemon PRO v10.1.2) with ESMTP id 1; d", f"[{V}]"),
    (f"from h ([{REAL}]) by mx (10.0.0.1) (MDaemon PRO v26.0.2) \n\twith ESMTPSA id 1; d", "h"),
    (f"from [{V}] (helo=x [{REAL}]) by mx (MDaemon PRO v26.0.2) with ESMTP id 1; d", f"[{V}]"),
    (
        f'from h ([{REAL}]:41621 "EHLO [{V}]" rhost-flags-OK-OK-OK-FAIL) by mx with ESMTP id S1; d',
        "h",
    ),
    (f"from h (<unknown> [{REAL}])\n\tby mx (OpenSMTPD) with ESMTP id 1; d", "h"),
    (f"from h (helo=x. [{REAL}])\n\tby mx (Haraka/3.0.3) with ESMTP id 1; d", "h"),
    (f"from h (r. [{REAL}]) by mx.google.com with ESMTPS id 1; d", "h"),
    (f"from h (r[{REAL}]) by mx (mx) with SMTP id <1>; d", "h"),
    (
        (
            f"from [{V}] (r [{REAL}] (AS64496 Net [{V}], US))\n\t(using TLSv1_3)\n\tby mx (Stalwart"
            " SMTP) with ESMTPS id 1;\n\td"
        ),
        f"[{V}]",
    ),
    (f"from h (r [{REAL}] (US))\n\tby mx (Stalwart SMTP) with ESMTPS id 1;\n\td", "h"),
    (
        (
            f"from [{V}] ([{REAL}:50462] helo=[{V}])\n\tby mx (envelope-from <a@b>)\n\t(ecelerity"
            " 4.2 r(C:4)) with ESMTP\n\tid 1/2; d"
        ),
        f"[{V}]",
    ),
    (f"from h ([{REAL}:5555]) by mx (10.0.0.1) (MDaemon PRO v20.0.3)\n\twith ESMTPS id 1; d", "h"),
    (f"from [{REAL}:4444] (HELO [{V}])" + CGP, f"[{V}]"),
    (f"from [{V}] ([{REAL}] verified)" + CGP, f"[{V}]"),
    (
        (
            f"from h ({REAL}:25) by mx ({V}:25) with [XMail 1.27 ESMTP Server]\n\tid <S1> for <a@b>"
            f" from <([{V}])@d>; d"
        ),
        "h",
    ),
    (f"from [{V}] (LHLO [{V}]) ({REAL}) by mx with LMTP; d", f"[{V}]"),
    (f"from unknown (HELO x) (IPv6:::ffff:{REAL})\n  by mx with SMTP; d", "x"),
    (
        (
            f"from h ([{V}] [{REAL}])\n  by mx (Oracle Communications Messaging Server 7.0.5) with"
            " ESMTP id <1>; d"
        ),
        "h",
    ),
]


@pytest.mark.parametrize(("value", "helo"), HOSTILE)
def test_nothing_that_the_sender_chose_is_read_as_an_address(value: str, helo: str | None) -> None:
    """FWD-10 to FWD-13, FWD-18: HELO, ident, host name, certificate and login neither become the
    client nor hide it."""
    hop = parse(value.replace("\n", "\r\n").replace("\r\r", "\r").encode())
    assert isinstance(hop, Hop), hop
    assert str(hop.address) in (REAL, "2001:db8::1")
    assert helo is None or hop.helo == helo


def test_a_long_helo_does_not_hide_the_client() -> None:
    """FWD-14: Exim takes 16 KiB."""
    helo = "x" * 16_000
    assert parse(
        f"from [{REAL}] (helo={helo})\r\n\tby mx with esmtp (Exim 4.96)\r\n\tid 1; d".encode()
    ) == Hop(ip_address(REAL), helo[:255])
    assert parse(
        f"from {helo} (unknown [{REAL}])\r\n\tby mx (Postfix) with ESMTP id 1; d".encode()
    ) == Hop(ip_address(REAL), helo[:255])


TWO_READINGS = [
    (
        f"from [{V}] (helo=x@[{REAL}]) by mx (8.17.1/8.17.1) with SMTP; (q) by relay with esmtp"
        " (Exim 4.96) id 1; d"
    ),
    f"from [{V}] (helo [{REAL}]) by mx with SMTP; d",
    f"from [{V}] by mx (MDaemon PRO v23.5.1) with ESMTP id 1; d",
    f"from {V} by mx with ESMTP; d",
    "from root (helo=h)\n\tby mx with local-esmtp (Exim 4.96)\n\tid 1; d",
    "from localhost (localhost [127.0.0.1])\n  (uid 1000)\n  by mx with local\n  id 1; d",
    "(from root@localhost)\n\tby mx (8.17.1/8.17.1/Submit) id 1; d",
    "(qmail 123 invoked by uid 89); d",
    f"from h [{REAL}] by mx with SMTP; d",
    f"from unknown (HELO x) ({V}) (y) ([{REAL}]) by esa with ESMTP; d",
    f"from unknown (HELO x) ({V}) by q; ([{REAL}])\n  by esa with ESMTP; d",
    f"from h (unknown [{V}]) by q; (r [{REAL}])\n\tby mx with ESMTP; d",
    f"from h (unknown [{V}] (x)) (r [{REAL}]) by mx with ESMTP; d",
    f"from h (unknown [{V}]) by q for <a> from <x> (r [{REAL}]) by mx with ESMTP; d",
    f"from h ([{V}]) ([::ffff:{REAL}])" + COURIER,
    f"from localhost(mailfrom:x@y fp:SMTPD_1) by smtp.example({V}); d",
    "from h ([unix socket]) by mx (Cyrus 3.0) with LMTPA; d",
    f"from [{V}:25] by mx id 1; d",
]


@pytest.mark.parametrize("value", TWO_READINGS)
def test_what_can_be_read_in_two_ways_or_came_from_a_local_program_is_nobodys(value: str) -> None:
    """FWD-15: a local program may have written all that stands below its field."""
    assert isinstance(parse(value.encode()), Malformed)


@pytest.mark.parametrize("value", UNREADABLE)
def test_what_is_ambiguous_or_no_client_is_malformed(value: str) -> None:
    """UnreadableField means SPF none, never a guess (docs/design.md, trusted_relays)."""
    assert isinstance(parse(value.encode()), Malformed)


INSIDE = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))
OWN = b"from relay.example.com (relay.example.com [10.0.0.2]) by mx"
OUTSIDE = b"from h (r [192.0.2.1]) by relay"
FORGED = b"from h (r [198.51.100.10]) by attacker"


def test_the_topmost_client_outside_the_list_is_the_original_one() -> None:
    """Below it everything is the sender's own writing."""
    assert original_client([OWN, OUTSIDE, FORGED], INSIDE) == Hop(ip_address(REAL), "h")
    assert original_client([OUTSIDE, FORGED], INSIDE) == Hop(ip_address(REAL), "h")


QMAIL = b"(qmail 4711 invoked from network); 30 Nov 2026 12:00:00 -0000"


def test_the_field_of_qmail_s_queue_is_no_hand_over() -> None:
    """FWD-16: qmail writes two fields; only the lower one names the client. One of a local user
    counts as unreadable."""
    below = b"from unknown (HELO x) (192.0.2.1)\n  by 0 with SMTP; d"
    assert original_client([QMAIL, below, FORGED], INSIDE) == Hop(ip_address(REAL), "x")
    assert original_client([OWN, QMAIL, below], INSIDE) == Hop(ip_address(REAL), "x")
    assert original_client([QMAIL, QMAIL], INSIDE) is None
    assert original_client([b"(qmail 4711 invoked by uid 89); d", below], INSIDE) is None
    assert original_client([b"(qmail 4711 invoked from network) by x; d", below], INSIDE) is None


def test_a_relay_that_hands_a_message_to_its_own_filter_is_walked_past() -> None:
    """FWD-17: amavis and others give it back from 127.0.0.1; a local program's own field ends the
    walk."""
    loop = (*INSIDE, ip_network("127.0.0.0/8"))
    back = (
        b"from relay ([127.0.0.1])\n\tby localhost (relay [127.0.0.1]) (amavisd-new, port"
        b" 10024)\n\twith ESMTP id 1; d"
    )
    again = b"from localhost (localhost [127.0.0.1])\n\tby relay (Postfix) with ESMTP id 1; d"
    assert original_client([OWN, again, back, OUTSIDE, FORGED], loop) == Hop(ip_address(REAL), "h")
    local = b"from localhost (localhost [127.0.0.1])\n  (uid 33)\n  by relay with local\n  id 1; d"
    assert original_client([OWN, local, FORGED], loop) is None
    assert (
        original_client([OWN, b"by relay (Postfix, from userid 33)\n\tid 1; d", FORGED], loop)
        is None
    )


@pytest.mark.parametrize(
    "fields",
    [[], [OWN], [b"by relay (Postfix)", OUTSIDE], [OWN, b"junk", OUTSIDE], [OWN] * 60 + [OUTSIDE]],
)
def test_no_client_is_found_when_a_field_above_it_cannot_be_read(fields: list[bytes]) -> None:
    """None: the caller treats SPF as none."""
    assert original_client(fields, INSIDE) is None


PIECES = [
    "\n\tby mx with esmtp (Exim 4) ",
    "\n by mx (8.1/8.1) with",
    "from",
    "by",
    "(",
    ")",
    "[192.0.2.1]",
    "helo=",
    "HELO",
    "x",
    '"',
    "\\",
    ";",
    "192.0.2.1",
    "@",
]


@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from(PIECES), max_size=20).map(lambda words: " ".join(words).encode())
)
def test_nothing_escapes_the_parser(value: bytes) -> None:
    """Any bytes give a Hop or Malformed."""
    assert isinstance(parse(value), Hop | Malformed)


@pytest.mark.parametrize(
    "piece",
    [
        b"(",
        b"()",
        b'"',
        b"\\",
        b"a ",
        b"a@",
        b"[1.2.3.4] ",
        b"helo=x ",
        b" [1.2.3.4] verified",
        b"HELO a)",
        b"@[1.2.3.4] ",
    ],
)
def test_a_field_is_read_in_linear_time(piece: bytes) -> None:
    """Within the bound of one field too."""
    assert is_linear(parse, lambda size: (b"from x (" + piece * size)[:size], 16384)
