"""The milter protocol packet by packet: what an MTA may send, and what we may answer."""

from __future__ import annotations

import ast
import random
import struct
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.actions.plan import DeleteHeader, InsertHeader, Quarantine, Reply
from dmarc_milter.session import packets, protocol
from dmarc_milter.session.packets import (
    Abort,
    Body,
    Connect,
    Data,
    EndOfHeaders,
    EndOfMessage,
    Header,
    Helo,
    Macro,
    Mail,
    OptNeg,
    Packet,
    ProtocolError,
    Quit,
    QuitNewConnection,
    Rcpt,
    Unknown,
    Unrecognized,
)
from dmarc_milter.session.protocol import (
    Agreement,
    Change,
    Decoder,
    MacroTable,
    Step,
    answer,
    negotiate,
)

VECTORS = Path(__file__).parents[1] / "vectors"
OFFER_OF_POSTFIX = OptNeg(6, 0x1FF, 0x1FFFFF)
OFFER_OF_VERSION_2 = OptNeg(2, 0x3F, 0x7F)


def packet(command: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data) + 1) + command + data


OFFER = packet(b"O", struct.pack(">III", *OFFER_OF_POSTFIX))


def decoded(*octets: bytes) -> list[Packet]:
    """Every packet of these pieces, after an offer."""
    decoder = Decoder()
    found: list[Packet] = []
    for piece in (OFFER, *octets):
        decoder.feed(piece)
        while (each := decoder.next_packet()) is not None:
            found.append(each)
    return found[1:]


# -- packets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (packet(b"C", b"a.example\x004\x04\xd2192.0.2.1\0"), Connect(b"a.example", "192.0.2.1")),
        (
            packet(b"C", b"a.example\x006\x04\xd2IPv6:2001:db8::1\0"),
            Connect(b"a.example", "IPv6:2001:db8::1"),
        ),
        (packet(b"C", b"localhost\0L\0\0/run/x\0"), Connect(b"localhost", None)),
        (packet(b"C", b"unknown\0U"), Connect(b"unknown", None)),
        (packet(b"C", b"h\xff\x004\0\x19192.0.2.1\0"), Connect(b"h\xff", "192.0.2.1")),
        (packet(b"H", b"b\xe9.example\0"), Helo("b\udce9.example")),
        (packet(b"H", b"\0"), Helo("")),
        (packet(b"H"), Helo("")),
        (
            packet(b"M", b"<a@b.example>\0SIZE=10\0SMTPUTF8\0"),
            Mail(b"<a@b.example>", (b"SIZE=10", b"SMTPUTF8")),
        ),
        (packet(b"M", b"<>\0"), Mail(b"<>", ())),
        (
            packet(b"R", b"<c@d.example>\0NOTIFY=NEVER\0"),
            Rcpt(b"<c@d.example>", (b"NOTIFY=NEVER",)),
        ),
        (packet(b"T"), Data()),
        (packet(b"L", b"From\0 a@b.example\0"), Header(b"From", b" a@b.example")),
        (packet(b"L", b"Subject\0\0"), Header(b"Subject", b"")),
        (packet(b"L", b"From\0 a\n b\0"), Header(b"From", b" a\n b")),
        (packet(b"N"), EndOfHeaders()),
        (packet(b"B", b"Hello\r\n"), Body(b"Hello\r\n")),
        (packet(b"E"), EndOfMessage(b"")),
        (packet(b"E", b"Hello\r\n"), EndOfMessage(b"Hello\r\n")),
        (packet(b"A"), Abort()),
        (packet(b"Q"), Quit()),
        (packet(b"K"), QuitNewConnection()),
        (packet(b"U", b"XYZZY plugh\0"), Unknown(b"XYZZY plugh")),
        (
            packet(b"D", b"Mi\x004Q1\0{auth_authen}\0bob\0"),
            Macro(b"M", {"i": "4Q1", "{auth_authen}": "bob"}),
        ),
        (packet(b"D", b"M{i}\x004Q1\0"), Macro(b"M", {"i": "4Q1"})),
        (packet(b"D", b"M{auth_authen}\0\xff\0"), Macro(b"M", {"{auth_authen}": "\udcff"})),
    ],
    ids=repr,
)
def test_what_an_mta_sends_is_read(octets: bytes, expected: Packet) -> None:
    """Every command of versions 2 to 6, as Postfix and Sendmail write it."""
    assert decoded(octets) == [expected]


def test_a_nul_within_a_header_value_hides_nothing() -> None:
    """What follows it belongs to the field, whatever a reader of C strings would make of it."""
    assert decoded(packet(b"L", b"From\0 <a@b>\0 <c@d>\0")) == [Header(b"From", b" <a@b>\0 <c@d>")]


def test_only_macros_that_were_asked_for_are_kept_and_their_values_are_bounded() -> None:
    given = b"".join(b"{x%d}\0y\0" % number for number in range(10_000)) + b"i\0" + b"z" * 5000
    (macro,) = decoded(packet(b"D", b"M" + given + b"\0"))
    assert macro == Macro(b"M", {"i": "z" * packets.MAX_MACRO})


@pytest.mark.parametrize("data", [b"", b"M", b"Mi", b"Mi\0", b"M\0", b"\xff", b"Mi\0x"])
def test_macros_that_are_cut_off_are_left_out(data: bytes) -> None:
    (macro,) = decoded(packet(b"D", data))
    assert isinstance(macro, Macro)
    assert macro.values == {}


def test_a_command_that_the_protocol_does_not_have_is_skipped() -> None:
    """What follows it is read as ever."""
    assert decoded(packet(b"z", b"x") + packet(b"N")) == [Unrecognized(b"z"), EndOfHeaders()]


@pytest.mark.parametrize(
    "octets",
    [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        struct.pack(">I", protocol.MAX_DATA + 2) + b"L",
        packet(b"M"),
        packet(b"M", b"<a@b>"),
        packet(b"R", b"<a@b>"),
        packet(b"L"),
        packet(b"L", b"From"),
        packet(b"L", b"From\0"),
        packet(b"L", b"From\0 <a@b>"),
        packet(b"C", b""),
        packet(b"C", b"h"),
        packet(b"C", b"h\0"),
        packet(b"C", b"h\0004"),
        packet(b"C", b"h\0004\0\x19192.0.2.1"),
        packet(b"C", b"h\0X\0\x19192.0.2.1\0"),
        packet(b"O", b"\0\0\0\6"),
    ],
    ids=lambda octets: octets[:12].hex(),
)
def test_a_packet_that_cannot_be_meant_ends_the_connection(octets: bytes) -> None:
    """Length 0 and lengths over a megabyte, strings without their end, an unknown kind of
    address."""
    with pytest.raises(ProtocolError, match=r"\A[ -~]+\Z"):
        decoded(octets)


def test_a_packet_of_a_megabyte_is_read() -> None:
    value = b"x" * (protocol.MAX_DATA - len(b"From\0\0"))
    assert decoded(packet(b"L", b"From\0" + value + b"\0")) == [Header(b"From", value)]


# -- what real MTAs sent ---------------------------------------------------------------------------

RECORDED = [
    (path.stem, number, [ast.literal_eval(line) for line in connection.splitlines()])
    for path in sorted(VECTORS.glob("milter-*.txt"))
    for number, connection in enumerate(path.read_text().split("\n\n"))
    if connection
]


@pytest.mark.parametrize(("name", "number", "sent"), RECORDED)
def test_what_real_mtas_sent_is_read(name: str, number: int, sent: list[bytes]) -> None:
    """Postfix with versions 2 and 6, and Sendmail: no packet is unknown, and every message's client
    and queue id are known (tests/live/record_milter.py)."""
    assert sent[0][:1] == b"O"
    decoder, table = Decoder(), MacroTable()
    decoder.feed(b"".join(packet(each[:1], each[1:]) for each in sent))
    read = [decoder.next_packet() for _ in sent]
    assert decoder.next_packet() is None
    client = None
    for each in read:
        assert each is not None
        assert not isinstance(each, Unrecognized)
        if isinstance(each, Macro):
            table.add(each)
            continue
        table.follow(each)
        if isinstance(each, Connect):
            client = each.address
        assert isinstance(each, QuitNewConnection | OptNeg | Quit) or (
            table("{client_addr}").removeprefix("IPv6:") == client
        )
        assert isinstance(each, Body | EndOfMessage | EndOfHeaders) <= bool(table("i"))
        assert isinstance(each, Mail) <= (table("{auth_authen}") == "")


def test_both_mtas_were_recorded() -> None:
    assert {"milter-postfix-2", "milter-postfix-6", "milter-sendmail"} == {
        name for name, _, _ in RECORDED
    }
    assert sum(each == b"E" for _, _, sent in RECORDED for each in sent) >= 6


# -- the first packet ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first", [packet(b"C", b"h\0U"), packet(b"z"), packet(b"N"), packet(b"D", b"C")]
)
def test_nothing_is_read_before_an_offer(first: bytes) -> None:
    decoder = Decoder()
    decoder.feed(first)
    with pytest.raises(ProtocolError, match="negotiation"):
        decoder.next_packet()


def test_a_stranger_gets_no_buffer() -> None:
    """Before the offer no packet may be large: the length alone ends the connection."""
    decoder = Decoder()
    decoder.feed(struct.pack(">I", protocol.MAX_FIRST + 2))
    with pytest.raises(ProtocolError):
        decoder.next_packet()


def test_an_mta_may_leave_before_its_offer() -> None:
    decoder = Decoder()
    decoder.feed(packet(b"Q"))
    assert decoder.next_packet() == Quit()


# -- pieces of any size ----------------------------------------------------------------------------

STREAM = (
    packet(b"C", b"a.example\x004\x04\xd2192.0.2.1\0")
    + packet(b"D", b"Mi\x004Q1\0")
    + packet(b"M", b"<a@b.example>\0")
    + packet(b"L", b"From\0 a@b.example\0")
    + packet(b"N")
    + packet(b"B", b"x" * 3000)
    + packet(b"E")
    + packet(b"Q")
)


def test_packets_are_the_same_in_pieces_of_any_size() -> None:
    """All at once, octet by octet, and cut at chance."""
    whole = decoded(STREAM)
    assert len(whole) == 8
    assert decoded(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == whole
    chance = random.Random(13)
    for _ in range(200):
        cuts = sorted(chance.randrange(len(STREAM)) for _ in range(chance.randrange(12)))
        pieces = [STREAM[start:end] for start, end in pairwise((0, *cuts, len(STREAM)))]
        assert decoded(*pieces) == whole


@pytest.mark.parametrize(
    "last",
    [
        packet(b"N"),
        packet(b"L", b"cut off"),
        packet(b"L", b"X\0no end"),
        struct.pack(">I", 0) + b"L",
        struct.pack(">I", 1 << 24) + b"Lx\0y\0",
        packet(b"L", b"X\0y\0")[:-1],
    ],
)
def test_header_fields_taken_together_are_those_taken_one_by_one(last: bytes) -> None:
    """Most packets are header fields. What is wrong with one is said as ever."""
    fields = [packet(b"L", b"X%d\0 a\0b\n c\0" % number) for number in range(5)]
    sent = b"".join((OFFER, *fields, last))
    for size in (1, 7, len(sent)):
        plain, together = Decoder(), Decoder()
        seen: tuple[list[Packet], list[Packet]] = ([], [])
        for start in range(0, len(sent), size):
            for decoder, found in zip((plain, together), seen, strict=True):
                decoder.feed(sent[start : start + size])
                try:
                    while True:
                        if decoder is together:
                            found += [Header(*field) for field in decoder.next_headers(3)[0]]
                        if (one := decoder.next_packet()) is None:
                            break
                        found.append(one)
                except ProtocolError as error:
                    found.append(Body(str(error).encode()))
        assert seen[0] == seen[1]


def test_bytes_that_come_before_the_packets_are_taken_wait() -> None:
    """A message that waits for the DNS is followed by the next one's first packets."""
    decoder = Decoder()
    decoder.feed(OFFER + packet(b"N"))
    decoder.feed(packet(b"A")[:3])
    decoder.feed(packet(b"A")[3:] + packet(b"Q"))
    found = [decoder.next_packet() for _ in range(5)]
    assert found == [OFFER_OF_POSTFIX, EndOfHeaders(), Abort(), Quit(), None]


def test_a_megabyte_that_is_dribbled_costs_linear_time() -> None:
    """Half a packet is not copied at each octet that comes."""
    octets = packet(b"L", b"X\0" + b"y" * 500_000 + b"\0")
    begin = time.process_time()
    (found,) = decoded(*(octets[at : at + 8] for at in range(0, len(octets), 8)))
    assert isinstance(found, Header)
    assert time.process_time() - begin < 2


# -- negotiation -----------------------------------------------------------------------------------


def test_a_new_mta_is_asked_for_silence_and_macros() -> None:
    """No answer before the body; values with their leading space; no DATA, no unknown commands."""
    agreement, octets = negotiate(OFFER_OF_POSTFIX)
    assert agreement.version == 6
    assert agreement.changes == protocol.CHANGES
    assert agreement.steps == protocol.STEPS
    assert {Connect, Helo, Mail, Rcpt, Header, EndOfHeaders} <= agreement.silent
    assert not agreement.silent & {Body, EndOfMessage, Unknown, Data}
    length, command, *fields = struct.unpack(">IcIII", octets[:17])
    assert (length, command, fields) == (len(octets) - 4, b"O", [6, 0x31, protocol.STEPS])
    lists = octets[17:]
    assert lists.startswith(b"\0\0\0\0j v {daemon_name} {client_addr}\0\0\0\0\2i {auth_authen} ")


def test_an_old_mta_gets_its_version_back_and_an_answer_to_every_step() -> None:
    """Version 2 knows neither silence nor skipping nor the leading space nor lists of macros."""
    agreement, octets = negotiate(OFFER_OF_VERSION_2)
    assert octets == packet(b"O", struct.pack(">III", 2, 0x31, 0))
    assert not agreement.silent & {Connect, Helo, Mail, Rcpt, Header, EndOfHeaders, Body}
    assert agreement.silent >= {Macro, Abort, Quit, QuitNewConnection, Unrecognized}
    assert agreement.value(b"x") == b" x"
    assert agreement.value(b" x") == b"  x"
    assert negotiate(OFFER_OF_POSTFIX)[0].value(b" x") == b" x"


@pytest.mark.parametrize(
    ("version", "agreed"), [(2, 2), (3, 3), (4, 4), (6, 6), (7, 6), (1 << 31, 6)]
)
def test_the_lower_version_holds(version: int, agreed: int) -> None:
    assert negotiate(OptNeg(version, 0x1FF, 0x7F))[0].version == agreed


@pytest.mark.parametrize("version", [0, 1])
def test_a_version_that_is_too_old_ends_the_connection(version: int) -> None:
    with pytest.raises(ProtocolError, match=f"version {version}"):
        negotiate(OptNeg(version, 0x1FF, 0x7F))


@pytest.mark.parametrize("step", list(protocol.Step))
def test_nothing_is_taken_that_was_not_offered(step: Step) -> None:
    agreement, _ = negotiate(OptNeg(6, 0x1FF, 0x1FFFFF & ~step))
    assert not agreement.steps & step


# -- macros ----------------------------------------------------------------------------------------

CONNECTED = Connect(b"h", "192.0.2.1")


def macros(*given: Packet) -> MacroTable:
    table = MacroTable()
    for each in given:
        if isinstance(each, Macro):
            table.add(each)
        else:
            table.follow(each)
    return table


def test_a_macro_holds_from_its_step_on() -> None:
    table = macros(Macro(b"C", {"v": "Postfix 3"}), CONNECTED, Helo("x"), Mail(b"<>", ()))
    assert table("v") == "Postfix 3"
    assert table("{auth_authen}") == ""


def test_the_latest_step_counts() -> None:
    """Sendmail gives {daemon_name} at CONNECT and at MAIL."""
    table = macros(Macro(b"M", {"i": "2"}), Mail(b"<>", ()), Macro(b"C", {"i": "1"}))
    assert table("i") == "2"
    table.add(Macro(b"E", {"i": "3"}))
    assert table("i") == "3"


@pytest.mark.parametrize(
    "end", [Mail(b"<>", ()), Abort(), Helo("y"), CONNECTED, QuitNewConnection()]
)
def test_a_login_does_not_outlive_its_message(end: Packet) -> None:
    """{auth_authen} exempts a message: no later one may find it."""
    table = macros(CONNECTED, Macro(b"M", {"{auth_authen}": "bob"}), Mail(b"<>", ()), end)
    assert table("{auth_authen}") == ""


def test_a_login_does_not_outlive_an_answered_message() -> None:
    table = macros(CONNECTED, Macro(b"M", {"{auth_authen}": "bob"}), Mail(b"<>", ()))
    table.end_message()
    assert table("{auth_authen}") == ""


@pytest.mark.parametrize("end", [(QuitNewConnection(), CONNECTED), (CONNECTED,)])
def test_a_client_has_no_macros_of_the_one_before(end: tuple[Packet, ...]) -> None:
    """After QUIT_NC the MTA gives macros anew, or the client has none."""
    given = Macro(b"C", {"{client_addr}": "192.0.2.1", "{daemon_name}": "MSA"})
    table = macros(given, CONNECTED, Helo("x"), *end)
    assert table("{client_addr}") == table("{daemon_name}") == ""
    new = Macro(b"C", {"{client_addr}": "192.0.2.9"})
    assert macros(given, CONNECTED, *end[:-1], new, end[-1])("{client_addr}") == "192.0.2.9"


def test_macros_for_a_step_that_does_not_exist_are_not_kept() -> None:
    assert macros(Macro(b"", {"i": "1"}), Macro(b"x", {"i": "2"}))("i") == ""


# -- the answer ------------------------------------------------------------------------------------

NEW, OLD = negotiate(OFFER_OF_POSTFIX)[0], negotiate(OFFER_OF_VERSION_2)[0]


def test_changes_come_in_their_order_and_then_continue() -> None:
    actions = (
        DeleteHeader("Authentication-Results", 2),
        InsertHeader("X", " v\n\tw"),
        Quarantine("DMARC"),
    )
    assert answer(actions, NEW) == (
        packet(b"m", b"\0\0\0\2Authentication-Results\0\0")
        + packet(b"i", b"\0\0\0\0X\0 v\n\tw\0")
        + packet(b"q", b"DMARC\0")
        + packet(b"c")
    )


def test_nothing_to_do_is_continue() -> None:
    assert answer((), NEW) == packet(b"c")


def test_the_leading_space_is_left_to_mtas_that_write_it() -> None:
    assert answer((InsertHeader("X", " v"),), OLD).startswith(packet(b"i", b"\0\0\0\0X\0v\0"))


def test_a_reply_is_the_last_packet() -> None:
    """(Reply itself refuses `%`, for which Sendmail would take its text for a format.)"""
    found = answer((InsertHeader("X", " v"), Reply(550, "5.7.1", "no")), NEW)
    assert found == packet(b"i", b"\0\0\0\0X\0 v\0") + packet(b"y", b"550 5.7.1 no\0")


@pytest.mark.parametrize(
    "action", [DeleteHeader("X", 1), InsertHeader("X", " v"), Quarantine("DMARC")]
)
def test_a_change_that_was_not_agreed_to_is_never_sent(action: DeleteHeader) -> None:
    """The MTA would drop the connection, or worse ignore it and pass the message."""
    nothing = Agreement(6, 0, 0, frozenset())
    with pytest.raises(ProtocolError):
        answer((action,), nothing)
    every = Agreement(
        6, Change.ADD_HEADERS | Change.CHANGE_HEADERS | Change.QUARANTINE, 0, frozenset()
    )
    assert answer((action,), every)


# -- header fields that come together --------------------------------------------------------------

MIXED = (
    packet(b"L", b"Subject\0 a\0"),
    packet(b"L", b"X-Empty\0\0"),
    packet(b"L", b"X-Long\0" + b"v" * 300 + b"\0"),
    packet(b"D", b"Li\x001\0"),
    packet(b"D", b"Li\x002\0{daemon_name}\0smtpd\0"),
    packet(b"D", b"L"),
    packet(b"D", b"Ni\x003\0"),
    packet(b"N"),
    packet(b"A"),
    packet(b"M", b"<a@a.example>\0"),
    packet(b"B", b"DL"),
)


class Learnt(NamedTuple):
    packet: Packet
    queue_id: str
    daemon: str


def followed(pieces: list[bytes], *, together: bool) -> list[Learnt]:
    """What a connection learns from these pieces: each packet but the macros, and what the macros
    say at that moment."""
    decoder, table = Decoder(), MacroTable()
    learnt: list[Learnt] = []

    def learn(one: Packet) -> None:
        table.follow(one)
        learnt.append(Learnt(one, table("i"), table("{daemon_name}")))

    for piece in (OFFER, *pieces):
        decoder.feed(piece)
        while True:
            fields, macros = decoder.next_headers(3) if together and learnt else ([], None)
            if macros is not None:
                table.add(macros)
            for name, value in fields:
                learn(Header(name, value))
            each = decoder.next_packet()
            if each is None:
                break
            if isinstance(each, Macro):
                table.add(each)
            else:
                learn(each)
    return learnt


@given(st.lists(st.sampled_from(MIXED), max_size=30), st.integers(1, 400))
def test_header_fields_that_are_taken_together_are_those_that_come_one_by_one(
    sent: list[bytes], size: int
) -> None:
    """Where a packet ends, and which macros hold, does not depend on how it is read."""
    stream = b"".join(sent)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    one_by_one = followed(pieces, together=False)
    together = followed(pieces, together=True)
    assert [learnt.packet for learnt in together] == [learnt.packet for learnt in one_by_one]
    # Nobody asks for a macro at a field; the macros of the last field hold after it.
    for ours, expected in zip(together, one_by_one, strict=True):
        assert isinstance(expected.packet, Header) or ours == expected


def test_macros_without_end_cost_linear_time() -> None:
    """Each packet is looked at a few times at most, whatever stands before the next field."""
    decoder = Decoder()
    decoder.feed(OFFER + packet(b"D", b"L") * 20_000)
    begin = time.process_time()
    for _ in range(20_001):
        assert decoder.next_headers(200) == ([], None)
        assert decoder.next_packet() is not None
    assert time.process_time() - begin < 2
