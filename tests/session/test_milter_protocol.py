"""The daemon's side of the milter protocol, driven by octets that no decent MTA sends."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.daemon import Daemon, wait_for
from fakes.milter_client import (
    ADDHDRS,
    ADDRCPT,
    CHGHDRS,
    LEADSPC,
    NO_BODY,
    NO_DATA,
    NO_HEADERS,
    NO_UNKNOWN,
    NR_CONNECT,
    NR_EOH,
    NR_HEADER,
    NR_HELO,
    NR_MAIL,
    NR_RCPT,
    QUARANTINE,
    RCPT_REJ,
    SKIP,
    Answer,
    Gone,
    MilterClient,
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all: what one test does must not disturb the next."""
    with Daemon(
        tmp_path_factory.mktemp("daemon"),
        {"milter": {"workers": 1}},
        command=("-m", "fakes.scripted_service"),
    ) as running:
        yield running


@pytest.fixture
def mta(daemon: Daemon) -> Iterator[MilterClient]:
    with daemon.client(timeout=5) as client:
        client.connect("client.example", "192.0.2.1")
        client.helo("client.example")
        yield client
    assert serves(daemon)


def serves(daemon: Daemon) -> bool:
    """I3: the same process answers a good message right after, and nothing was printed that is not
    a log line (I4)."""
    with daemon.client() as client:
        client.connect("client.example", "192.0.2.1")
        client.helo("client.example")
        answer = client.message([("From", " a@b.example")])
    assert daemon.events("worker_died") == []
    assert "Traceback" not in daemon.text()
    assert "untrapped" not in daemon.text()
    return answer.code == 250


def seen(answer: Answer) -> dict[str, str]:
    """What the handler saw: helo, fields, size."""
    return dict(re.findall(r"(\w+)=('[^']*'|\S+)", answer.values("X-Answer")[0]))


# -- negotiation -----------------------------------------------------------------------------------


def test_only_what_is_needed_is_negotiated(mta: MilterClient) -> None:
    """Header changes and quarantine; no replies before the end of message; values with their
    leading space; no DATA, no unknown."""
    assert mta.actions == ADDHDRS | CHGHDRS | QUARANTINE
    silent = NR_CONNECT | NR_HELO | NR_MAIL | NR_RCPT | NR_HEADER | NR_EOH
    assert mta.steps == silent | LEADSPC | SKIP | NO_DATA | NO_UNKNOWN
    assert not mta.steps & (NO_BODY | NO_HEADERS | RCPT_REJ)
    assert all("{auth_authen}" in names for stage, names in mta.symlists.items() if stage == 2)


def test_a_body_that_nobody_needs_is_skipped(mta: MilterClient) -> None:
    """SKIP soon: an exempt or unsigned message's body does not cross the socket."""
    mta.mail("<a@b.example>")
    mta.rcpt("<v@example.com>")
    mta.header("X-Script", " skip")
    mta.eoh()
    # Two or three seconds of small pieces: time enough for a worker that waits for a processor.
    answer = mta.body(b"x" * 2_000_000, chunk=100)
    assert answer is not None
    assert answer.command == "s"
    assert int(seen(mta.eom())["size"]) < 1_000_000


@pytest.mark.parametrize("version", [2, 3, 4, 6, 7])
def test_any_version_is_served(daemon: Daemon, version: int) -> None:
    """FLT-10: an old MTA that offers no silence gets a reply to every step, and values keep one
    space."""
    with daemon.client(negotiated=False) as client:
        client.negotiate(version=version, steps=0x7F if version < 6 else None)
        client.connect("client.example", "192.0.2.1")
        client.helo("client.example")
        answer = client.message([("From", " a@b.example"), ("Subject", " x")], b"x" * 10)
        assert answer.code == 250
        assert seen(answer)["fields"] == "2"
        assert answer.values("X-Answer")[0].startswith(" ")
        assert not answer.values("X-Answer")[0].startswith("  ")


def test_an_mta_that_offers_no_header_changes_gets_no_pass(daemon: Daemon) -> None:
    """Nothing could be removed or marked: the message is not accepted as if it had been."""
    with daemon.client(negotiated=False) as client:
        client.negotiate(actions=ADDRCPT)
        client.connect("client.example", "192.0.2.1")
        client.helo("client.example")
        assert client.message([("From", " a@b.example")]).code == 451


# -- strange octets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("helo", "expected"),
    [
        (b"\xff\xfe.example", r"'\udcff\udcfe.example'"),
        ("bücher.example".encode(), r"'b\xfccher.example'"),
        (b"", "''"),
        (b"x" * 300, ""),
    ],
)
def test_helo_of_any_octets(mta: MilterClient, helo: bytes, expected: str) -> None:
    """WL-03: Postfix passes HELO raw; pymilter alone would answer 451 to it for ever."""
    mta.helo(helo)
    answer = mta.message([("From", " a@b.example")])
    assert answer.code == 250
    if expected:
        assert seen(answer)["helo"] == expected


def test_an_8_bit_helo_does_not_leave_the_one_before(mta: MilterClient) -> None:
    """The identity checked is the last one given, whatever its octets."""
    mta.helo("good.example")
    mta.helo(b"bad\xe9.example")
    assert seen(mta.message([("From", " a@b.example")]))["helo"] == r"'bad\udce9.example'"


def test_an_8_bit_host_name_leaves_the_client_known(daemon: Daemon) -> None:
    """The host name is not used; the address comes from {client_addr} then."""
    with daemon.client() as client:
        client.connect(b"h\xff", "192.0.2.1", macros={"{client_addr}": "192.0.2.1"})
        client.helo("x")
        assert client.message([("From", " a@b.example")]).code == 250


@pytest.mark.parametrize("name", [b"X-\xe9", b"X:Y", b"X" * 500, b"From\t", b"\r\n", b"%s"])
def test_header_names_of_any_octets(mta: MilterClient, name: bytes) -> None:
    """HDR-04: pymilter alone would answer 451 to an 8-bit name for ever."""
    assert mta.message([(name, b" <admin@legit.example>"), (b"From", b" <a@b>")]).code == 250


@pytest.mark.parametrize("name", [b"", b"Fr\0om", b"From\0"])
def test_header_names_that_end_early(mta: MilterClient, name: bytes) -> None:
    """libmilter answers or closes the connection; it is never a hang."""
    with contextlib.suppress(Gone):
        assert mta.message([(name, b" <admin@legit.example>"), (b"From", b" <a@b>")]).code == 250


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b" a\0b",
        b" \xff\xfe",
        b" a\r\n b\n\tc",
        b"\r\n",
        b" " + b"x" * 70_000,
        b" " + b"y" * 900_000,
    ],
)
def test_header_values_of_any_octets_and_length(mta: MilterClient, value: bytes) -> None:
    """A field over 64 KiB would make libmilter drop the connection unless its limit is raised."""
    answer = mta.message([(b"From", b" <a@b.example>"), (b"X-V", value)])
    assert answer.code == 250


def test_macros_of_any_octets(mta: MilterClient) -> None:
    """pymilter raises on a value that is not UTF-8: it counts as missing."""
    answer = mta.message(
        [("From", " a@b.example")], macros={"{auth_authen}": "", "i": "x\udcff"}, queue_id="q\udcff"
    )
    assert answer.code == 250
    assert answer.values("X-Answer") != [" passed"]


@pytest.mark.parametrize("family", ["4", "6", "L", "U"])
def test_clients_of_any_kind(daemon: Daemon, family: str) -> None:
    """IPv4, IPv6, local and unknown clients are served alike."""
    address = {"4": "192.0.2.1", "6": "2001:db8::1", "L": "/run/x", "U": None}[family]
    with daemon.client() as client:
        client.connect("client.example", address, family=family)
        client.helo("x")
        assert client.message([("From", " a@b.example")]).code == 250


def test_a_body_in_pieces_of_any_size(mta: MilterClient) -> None:
    """All of it arrives, a last piece in the end-of-message packet included."""
    for chunk in (1, 7, 65535):
        answer = mta.message([("From", " a@b.example")], b"0123456789\r\n" * 20, chunk=chunk)
        assert seen(answer)["size"] == "240"
    mta.mail("<a@b.example>")
    mta.rcpt("<v@example.com>")
    mta.eoh()
    assert seen(mta.eom(b"last"))["size"] == "4"


# -- strange orders --------------------------------------------------------------------------------


def test_many_messages_on_one_connection(mta: MilterClient) -> None:
    """Nothing of one is seen in the next."""
    for count in (1, 5, 2, 0):
        answer = mta.message([("X-N", " x")] * count, b"y" * count)
        assert (seen(answer)["fields"], seen(answer)["size"]) == (str(count), str(count))


@pytest.mark.parametrize("stage", ["mail", "rcpt", "header", "eoh", "body"])
def test_a_message_given_up_leaves_nothing(mta: MilterClient, stage: str) -> None:
    """ABORT at any point, then another message on the same connection."""
    mta.mail("<first@b.example>")
    if stage != "mail":
        mta.rcpt("<v@example.com>")
    if stage in ("header", "eoh", "body"):
        mta.header("X-First", " 1")
    if stage in ("eoh", "body"):
        mta.eoh()
    if stage == "body":
        mta.body(b"first")
    mta.abort()
    answer = mta.message([("From", " a@b.example")], b"second")
    assert (seen(answer)["fields"], seen(answer)["size"]) == ("1", "6")


def test_abort_without_a_message_and_twice(mta: MilterClient) -> None:
    for _ in range(3):
        mta.abort()
    assert mta.message([("From", " a@b.example")]).code == 250


def test_mail_again_without_abort(mta: MilterClient) -> None:
    mta.mail("<a@b.example>")
    mta.header("X-First", " 1")
    assert seen(mta.message([("From", " a@b.example")]))["fields"] == "1"


def test_helo_again_between_and_within_messages(mta: MilterClient) -> None:
    """After STARTTLS, or at the client's whim."""
    mta.helo("second.example")
    assert seen(mta.message([("From", " a@b.example")]))["helo"] == "'second.example'"
    mta.mail("<a@b.example>")
    mta.abort()
    mta.helo("third.example")
    assert seen(mta.message([("From", " a@b.example")]))["helo"] == "'third.example'"


ODD = {
    "header before mail": lambda mta: mta.header("X", " 1"),
    "body before mail": lambda mta: mta.body(b"x"),
    "body before header": lambda mta: (
        mta.mail("<a@b>"),
        mta.rcpt("<c@d>"),
        mta.body(b"x"),
        mta.header("X", " 1"),
    ),
    "header after eoh": lambda mta: (
        mta.mail("<a@b>"),
        mta.rcpt("<c@d>"),
        mta.eoh(),
        mta.header("X", " 1"),
    ),
    "rcpt before mail": lambda mta: mta.rcpt("<a@b>"),
    "eoh twice": lambda mta: (mta.mail("<a@b>"), mta.rcpt("<c@d>"), mta.eoh(), mta.eoh()),
    "connect twice": lambda mta: mta.connect("h", "192.0.2.9"),
    "end before mail": lambda mta: mta.send("E"),
    "unknown command": lambda mta: mta.send("U", b"XYZZY\0"),
    "no such command": lambda mta: mta.send("z", b"x"),
    "data": lambda mta: mta.send("T"),
    "negotiation again": lambda mta: mta.send("O", struct.pack(">III", 6, 0x1FF, 0x1FFFFF)),
    "mail without argument": lambda mta: mta.send("M"),
    "header without value": lambda mta: (
        mta.mail("<a@b>"),
        mta.rcpt("<c@d>"),
        mta.send("L", b"From\0"),
    ),
    "header without end": lambda mta: (
        mta.mail("<a@b>"),
        mta.rcpt("<c@d>"),
        mta.send("L", b"From\0 <a@b>"),
    ),
    "header with more parts": lambda mta: (
        mta.mail("<a@b>"),
        mta.rcpt("<c@d>"),
        mta.send("L", b"From\0 <a@b>\0 <c@d>\0"),
    ),
    "connect without address": lambda mta: mta.send("C", b"h\0004"),
    "connect with bad family": lambda mta: mta.send("C", b"h\0X\0\x19junk\0"),
    "macro without value": lambda mta: mta.send("D", b"Mi\0"),
    "macro for no step": lambda mta: mta.send("D", b"\xff"),
    "empty macros": lambda mta: mta.send("D"),
    "progress": lambda mta: mta.send("p"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_orders_and_packets_end_in_an_answer_or_a_closed_connection(
    daemon: Daemon, name: str
) -> None:
    """FLT-10: a reply by the protocol or a clean close; never a hang, a crash or a disturbed
    neighbour."""
    with daemon.client() as mta, daemon.client() as neighbour:
        neighbour.connect("n.example", "192.0.2.2")
        mta.connect("client.example", "192.0.2.1")
        mta.helo("client.example")
        mta.sock.settimeout(0.2)
        try:
            ODD[name](mta)
            mta.eom()
        except (Gone, TimeoutError, AssertionError):
            pass
        assert neighbour.message([("From", " a@b.example")]).code == 250
    assert serves(daemon)


@pytest.mark.parametrize(
    "octets",
    [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xffO",
        b"\0\0",
        b"\0\0\0\x0dO\0\0",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0\0\0\x01O",
        b"\0\0\0\x0dO" + b"\xff" * 12,
        b"\0\0\0\x01Q",
        b"",
    ],
    ids=lambda octets: octets[:8].hex() or "nothing",
)
def test_broken_first_packets_harm_nobody(daemon: Daemon, octets: bytes) -> None:
    """Length 0, 4 GiB, halves, another protocol: the connection may end, the daemon serves on."""
    with daemon.client(negotiated=False) as mta:
        mta.sock.sendall(octets)
        mta.sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError, ConnectionError):
            mta.sock.recv(100)
    assert serves(daemon)


@pytest.mark.parametrize(
    "octets",
    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x20L", struct.pack(">I", (1 << 20) + 100) + b"L"],
)
def test_broken_packets_within_a_message_harm_nobody(mta: MilterClient, octets: bytes) -> None:
    mta.mail("<a@b.example>")
    mta.rcpt("<v@example.com>")
    mta.raw(octets)
    mta.sock.shutdown(socket.SHUT_WR)
    with pytest.raises(Gone):
        mta.reply()


def test_a_packet_dribbled_is_a_packet(mta: MilterClient) -> None:
    """One octet at a time, several packets at once."""
    mta.mail("<a@b.example>")
    mta.rcpt("<v@example.com>")
    packet = b"L" + b"From\0 <a@b.example>\0"
    for octet in struct.pack(">I", len(packet)) + packet:
        mta.raw(bytes((octet,)))
    mta.raw(b"\0\0\0\x01N" + b"\0\0\0\x04Bxyz" + b"\0\0\0\x01E")
    assert mta.reply().command == "c"
    assert mta.reply().modifications


def test_a_vanished_mta_frees_its_session(daemon: Daemon) -> None:
    """FLT-05: RST in the middle of a message; the next connections are served and nothing stays
    open."""
    for _ in range(50):
        mta = daemon.client()
        mta.connect("client.example", "192.0.2.1")
        mta.mail("<a@b.example>")
        mta.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        mta.close()
    (worker,) = daemon.workers()
    assert wait_for(lambda: open_sockets(worker) < 12)
    assert serves(daemon)


def open_sockets(pid: int) -> int:
    return sum(
        "socket:" in str(entry.readlink())
        for entry in Path(f"/proc/{pid}/fd").iterdir()
        if entry.is_symlink()
    )


def test_quit_nc_keeps_the_connection_for_another_client(mta: MilterClient) -> None:
    """SMFIC_QUIT_NC: CONNECT follows without a negotiation; what was agreed holds, nothing else is
    carried over."""
    mta.message([("From", " a@b.example")])
    mta.quit_nc()
    mta.connect("other.example", "192.0.2.9")
    answer = mta.message([("From", " a@b.example")])
    assert seen(answer)["helo"] == "''"
    assert answer.values("X-Answer")[0][:2].strip()


def test_a_failure_of_ours_is_a_451_for_one_message(mta: MilterClient) -> None:
    """I4: the reply is ours and says nothing of the inside."""
    answer = mta.message([("X-Script", " raise")])
    assert answer.code == 451
    assert (
        answer.text
        == "451 4.3.0 DMARC could not be evaluated: the mail filter failed on this message, please"
        " try again later"
    )
    assert mta.message([("From", " a@b.example")]).code == 250
