"""The milter protocol served by our own loop: whole messages, and MTAs that behave badly, through a
socket."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dmarc_milter.core.actions.plan import Action, DeleteHeader, InsertHeader, Reply
from dmarc_milter.core.mail.message import Envelope, Headers
from dmarc_milter.process.loop import Loop, TaskEnded
from dmarc_milter.process.shared_memory import SharedMemory
from dmarc_milter.session import native
from dmarc_milter.session.choose_library import ConnectionLimits, Serving
from dmarc_milter.session.handler import Own, SessionOptions
from dmarc_milter.session.native import PATIENCE, NativeServer
from dmarc_milter.session.session import Session
from fakes.daemon import wait_for
from fakes.milter_client import ADDHDRS, Gone, MilterClient

LETTER = [("From", " a@b.example")]
SILENCE = 1.5


@dataclass
class Served:
    """A server in a thread of its own, with a handler that does what X-Script says."""

    loop: Loop
    options: SessionOptions = field(default_factory=SessionOptions)
    slot: object = None
    server: NativeServer | None = None
    address: tuple[str, int] | str = ""
    stop: bool = False
    failures: list[str] = field(default_factory=list)
    logged: list[tuple[str, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    running: int = 0
    clients: list[MilterClient] = field(default_factory=list)

    # What a session asks of its handler.

    def begin(self, envelope: Envelope) -> Scripted:
        return Scripted(self, envelope)

    def pass_through(self, headers: Headers, *, keep_results: bool) -> tuple[Action, ...]:
        return (InsertHeader("X-Answer", " passed"),)

    def unjudged(self, headers: Headers, envelope: Envelope, **_: bool) -> tuple[Action, ...]:
        return ()

    def exempted(self, name: str, envelope: Envelope, why: str) -> None:
        self.logged.append(("exempted", why))

    def overloaded(self, name: str, envelope: Envelope | None, reason: str) -> None:
        self.logged.append(("overloaded", reason))

    def failed(self, name: str, where: str, error: str) -> None:
        self.failures.append(f"{where}: {error}")

    # The log.

    def warning(self, event: str, /, **fields: object) -> None:
        self.logged.append((event, str(fields.get("reason"))))

    def client(self, *, timeout: float = 5.0, negotiated: bool = True) -> MilterClient:
        mta = MilterClient(self.address, timeout=timeout)
        self.clients.append(mta)
        if negotiated:
            mta.negotiate()
            mta.connect("client.example", "192.0.2.1")
            mta.helo("client.example")
        return mta

    def in_loop(self, do: Callable[[], object]) -> None:
        """In the server's thread, and wait until it is done."""
        done = threading.Event()
        self.loop.call_from_thread(lambda: (do(), done.set()))  # type: ignore[func-returns-value,arg-type]
        assert done.wait(5)


@dataclass
class Scripted:
    """One message."""

    served: Served
    envelope: Envelope
    fields: Headers = field(default_factory=lambda: Headers(()))
    size: int = 0

    def headers(self, headers: Headers) -> None:
        self.fields = headers

    def body(self, chunk: bytes) -> bool:
        self.size += len(chunk)
        return True

    def finish(self, envelope: Envelope, own: Own, *, keep_results: bool) -> tuple[Action, ...]:
        script = b"".join(self.fields.values(b"x-script")).decode().split() or [""]
        self.served.running += 1
        try:
            match script[0]:
                case "park":
                    self.served.loop.park(float(script[1]))
                case "large":
                    return tuple(InsertHeader("X", " " + "y" * 900) for _ in range(int(script[1])))
                case "delete":
                    return (DeleteHeader("From", 1),)
                case "refuse":
                    return (Reply(550, "5.7.1", "no"),)
        except TaskEnded:
            self.served.ended.append(envelope.queue_id)
            raise
        finally:
            self.served.running -= 1
        shown = f" fields={len(self.fields)} size={self.size} helo={envelope.helo!a}"
        return (InsertHeader("X-Answer", f"{shown} source={envelope.source_ip}"),)

    def cancel(self) -> None:
        pass


def run(
    served_by: list[Served],
    sock: socket.socket,
    limits: ConnectionLimits,
    options: SessionOptions,
    ready: threading.Event,
    takes_next: Callable[[], bool],
) -> None:
    loop = Loop()
    served = Served(loop, options, SharedMemory(1).slot(0))
    served.address = sock.getsockname()
    served.server = NativeServer(
        Serving(
            loop,
            sock,
            lambda name: Session(served, options, name=name),  # type: ignore[arg-type]
            served.slot,  # type: ignore[arg-type]
            served,  # type: ignore[arg-type]
            limits,
            takes_next,
        )
    )

    def tend() -> None:
        served.server.tend()
        loop.call_later(0.1, tend)

    tend()
    served_by.append(served)
    ready.set()
    loop.run(lambda: served.stop)
    served.server.close()
    loop.close()


@contextlib.contextmanager
def serving(
    limits: ConnectionLimits = ConnectionLimits(),
    *,
    unix: str = "",
    options: SessionOptions = SessionOptions(),
    takes_next: Callable[[], bool] = lambda: True,
) -> Iterator[Served]:
    if unix:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(unix)
        sock.listen()
    else:
        sock = socket.create_server(("127.0.0.1", 0))
    found: list[Served] = []
    ready = threading.Event()
    thread = threading.Thread(
        target=run, args=(found, sock, limits, options, ready, takes_next), daemon=True
    )
    thread.start()
    assert ready.wait(5)
    (served,) = found
    try:
        yield served
    finally:
        for client in served.clients:
            client.close()
        served.loop.call_from_thread(lambda: setattr(served, "stop", True))
        thread.join(5)
        assert not thread.is_alive()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


# -- whole messages --------------------------------------------------------------------------------


def test_a_message_is_answered_and_another_follows(served: Served) -> None:
    mta = served.client()
    for size in (10, 0, 200_000):
        (value,) = mta.message(LETTER, b"x" * size).values("X-Answer")
        assert value == f" fields=1 size={size} helo='client.example' source=192.0.2.1"
    assert served.failures == []


def test_a_unix_socket_serves_too(tmp_path: Path) -> None:
    with serving(unix=f"{tmp_path}/s") as served:
        assert served.client().message(LETTER).code == 250


@pytest.mark.parametrize("version", [2, 3, 4, 6, 7])
def test_every_version_is_served(served: Served, version: int) -> None:
    """An old MTA gets a reply to every step, and its values keep one space."""
    mta = served.client(negotiated=False)
    mta.negotiate(version=version, steps=0x7F if version < 6 else None)
    mta.connect("client.example", "192.0.2.1")
    answer = mta.message([*LETTER, ("Subject", " x")])
    assert "fields=2" in answer.values("X-Answer")[0]


def test_octet_by_octet_is_a_message(served: Served) -> None:
    mta = served.client()
    packets = [b"M<a@b>\0", b"R<c@d>\0", b"LFrom\0 a@b.example\0", b"N", b"Bxyz", b"E"]
    for octet in b"".join(struct.pack(">I", len(each)) + each for each in packets):
        mta.raw(bytes((octet,)))
    assert mta.reply().command == "c"  # the body's
    assert mta.reply().modifications


def test_all_at_once_is_a_message(served: Served) -> None:
    """And the next message behind it is read when the first is answered."""
    mta = served.client()
    one = [b"M<a@b>\0", b"R<c@d>\0", b"LX-Script\0 park 0.2\0", b"N", b"E"]
    mta.raw(b"".join(struct.pack(">I", len(each)) + each for each in [*one, *one, *one]))
    for _ in range(3):
        assert mta.reply().modifications


def test_a_refusal_and_a_message_after_it(served: Served) -> None:
    mta = served.client()
    answer = mta.message([*LETTER, ("X-Script", " refuse")])
    assert (answer.code, answer.text) == (550, "550 5.7.1 no")
    mta.abort()
    assert mta.message(LETTER).code == 250


def test_a_change_that_the_mta_does_not_allow_is_our_failure(served: Served) -> None:
    """A message half marked must not be accepted."""
    mta = served.client(negotiated=False)
    mta.negotiate(actions=ADDHDRS)
    mta.connect("client.example", "192.0.2.1")
    assert mta.message([*LETTER, ("X-Script", " delete")]).code == 451
    assert any(each.startswith("play:") for each in served.failures)


def test_many_recipients_and_fields_in_one_read(served: Served) -> None:
    """More packets than are handled without a task: all are handled, in their order."""
    mta = served.client()
    fields = [("X-N", f" {number}") for number in range(3000)]
    answer = mta.message([*LETTER, *fields], rcpt=[f"<v{n}@x{n}.example>" for n in range(3000)])
    assert answer.code == 250
    assert served.failures == []


# -- clients ---------------------------------------------------------------------------------------


def test_quit_nc_brings_another_client_without_anything_of_the_first(served: Served) -> None:
    """SMFIC_QUIT_NC: CONNECT follows without a negotiation."""
    mta = served.client()
    mta.mail("<a@b.example>", macros={"{auth_authen}": "bob"})
    mta.quit_nc()
    mta.connect("other.example", "192.0.2.9")
    (value,) = mta.message(LETTER).values("X-Answer")
    assert value.endswith("helo='' source=192.0.2.9")
    assert served.logged == []


@pytest.mark.parametrize("how", ["U", "L"])
def test_a_client_without_an_address_has_none_of_the_one_before(served: Served, how: str) -> None:
    """CON-47: its macros are not those of the client before it, whoever gave them."""
    mta = served.client(negotiated=False)
    mta.negotiate()
    mta.connect("first.example", "192.0.2.1", macros={"{client_addr}": "192.0.2.1"})
    mta.message(LETTER)
    mta.quit_nc()
    mta.connect("other.example", None if how == "U" else "/run/x", family=how)
    (value,) = mta.message(LETTER).values("X-Answer")
    assert value.endswith("source=None")


def test_a_login_exempts_its_own_message_alone(served: Served) -> None:
    """CON-47: {auth_authen} is no other message's."""
    mta = served.client()
    first = mta.message(LETTER, macros={"{auth_authen}": "bob"})
    assert first.values("X-Answer") == [" passed"]
    mta.mail("<x@y.example>", macros={"{auth_authen}": "bob"})
    mta.abort()
    assert mta.message(LETTER).values("X-Answer") != [" passed"]


# -- messages that wait ----------------------------------------------------------------------------


def test_a_message_that_waits_holds_nobody_up(served: Served) -> None:
    """Fifty wait at once, and a newcomer is answered meanwhile."""
    waiting = [served.client() for _ in range(50)]
    for mta in waiting:
        mta.mail("<a@b>")
        mta.rcpt("<c@d>")
        mta.header("X-Script", " park 1")
        mta.eoh()
        mta.send("E")
    begin = time.monotonic()
    assert served.client().message(LETTER).code == 250
    assert time.monotonic() - begin < 0.8
    assert all(mta.reply().command == "c" for mta in waiting)


def test_a_message_whose_mta_goes_away_ends_at_once(served: Served) -> None:
    """CON-46: nothing is waited for any more, and nothing is kept."""
    mta = served.client()
    mta.mail("<a@b>")
    mta.rcpt("<c@d>")
    mta.header("X-Script", " park 60")
    mta.eoh(macros={"i": "GONE1"})
    mta.send("E")
    assert wait_for(lambda: served.running == 1)
    mta.close()
    assert wait_for(lambda: served.ended == ["GONE1"], 2)
    assert served.running == 0
    assert served.server is not None
    assert wait_for(lambda: served.server.count == 0, 2)
    assert served.failures == []


def test_what_comes_while_a_message_waits_is_read_later_and_does_not_spin(served: Served) -> None:
    mta = served.client()
    mta.mail("<a@b>")
    mta.header("X-Script", " park 1")
    mta.eoh()
    mta.send("E")
    assert wait_for(lambda: served.running == 1)
    mta.raw(struct.pack(">I", 1) + b"A")
    begin = time.process_time()
    time.sleep(0.7)
    assert time.process_time() - begin < 0.35
    assert mta.reply().command == "c"
    assert mta.message(LETTER).code == 250


# -- slow readers ----------------------------------------------------------------------------------


def test_an_mta_that_does_not_read_is_not_read_from(tmp_path: Path) -> None:
    """CON-44: its answer waits in memory, bounded by the message's own; then all goes on."""
    with serving(unix=f"{tmp_path}/s") as served:
        mta = served.client(timeout=20)
        mta.mail("<a@b>")
        mta.header("X-Script", " large 5000")
        mta.eoh()
        mta.send("E")
        time.sleep(0.3)
        assert served.client().message(LETTER).code == 250
        assert len(mta.reply().modifications) == 5000
        assert mta.message(LETTER).code == 250


def test_replies_that_nobody_reads_do_not_pile_up(tmp_path: Path) -> None:
    """CON-44: what an old MTA sends that never reads stays in the kernel's buffers."""
    with serving(unix=f"{tmp_path}/s") as served:
        mta = served.client(negotiated=False)
        mta.negotiate(version=2)
        mta.sock.settimeout(0.5)
        sent = 0
        part = b"".join(struct.pack(">I", 8) + b"LX\0 yyy\0" for _ in range(5000))
        with contextlib.suppress(TimeoutError):
            while sent < 20_000_000:
                sent += mta.sock.send(part)
        assert sent < 5_000_000
        assert served.client().message(LETTER).code == 250


# -- bad packets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        struct.pack(">I", (1 << 20) + 100) + b"L",
        struct.pack(">I", 1) + b"M",
        struct.pack(">I", 13) + b"O" + struct.pack(">III", 6, 0x1FF, 0x1FFFFF),
    ],
    ids=lambda octets: octets[:6].hex(),
)
def test_a_packet_that_cannot_be_meant_ends_that_connection_with_one_line(
    served: Served, octets: bytes
) -> None:
    """CON-43: and nobody else's."""
    neighbour = served.client()
    mta = served.client()
    mta.mail("<a@b>")
    mta.raw(octets)
    with pytest.raises(Gone):
        mta.reply()
    assert [event for event, _ in served.logged] == ["mta_packet"]
    assert served.failures == []
    assert neighbour.message(LETTER).code == 250


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\1N",
        b"\0\0\1\0D" + bytes(255),
        b"\0\0\0\x0dO" + bytes(12),
    ],
)
def test_what_is_no_milter_client_is_hung_up_on(served: Served, octets: bytes) -> None:
    """CON-43: before the negotiation nothing has a meaning."""
    mta = served.client(negotiated=False)
    mta.raw(octets)
    with pytest.raises(Gone):
        mta.receive()
    assert len(served.logged) == 1
    assert served.client().message(LETTER).code == 250


def test_an_unknown_command_is_skipped_and_an_unknown_smtp_command_answered(served: Served) -> None:
    mta = served.client()
    for _ in range(3):
        mta.send("z", b"x")
    mta.send("U", b"XYZZY\0")
    assert mta.reply().command == "c"
    mta.send("T")
    assert mta.reply().command == "c"
    assert mta.message(LETTER).code == 250
    assert [event for event, _ in served.logged] == ["mta_packet"]


# -- limits ----------------------------------------------------------------------------------------


def gone(mta: MilterClient) -> bool:
    mta.sock.setblocking(False)
    try:
        return mta.sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        mta.sock.settimeout(5)


def test_the_longest_silent_goes_for_a_newcomer_and_nobody_in_a_message() -> None:
    with serving(ConnectionLimits(connections=3)) as served:
        busy = served.client()
        busy.mail("<a@b>")
        busy.eoh()
        busy.body(b"x")
        first, second = served.client(), served.client()
        assert first.message(LETTER).code == 250  # so `second` is silent for longer now
        assert served.client().message(LETTER).code == 250
        assert wait_for(lambda: gone(second), 2)
        assert not gone(first)
        assert busy.eom().code == 250


def test_when_all_are_in_messages_a_newcomer_is_answered_451() -> None:
    """An MTA that is hung up on does as its default_action says; this one hears 451 4.3.2, whatever
    it says."""
    with serving(ConnectionLimits(connections=2)) as served:
        busy = [served.client() for _ in range(2)]
        for mta in busy:
            mta.mail("<a@b>")
            mta.eoh()
            mta.body(b"x")
        newcomer = served.client(negotiated=False)
        newcomer.negotiate()
        answer = newcomer.connect("client.example", "192.0.2.1")
        assert answer is not None
        assert answer.text.startswith("451 4.3.2 ")
        for command, data in (("M", b"<a@b>\0"), ("L", b"From\0 a@b\0"), ("E", b"")):
            refused = newcomer.packet(command, data)
            assert refused is not None
            assert refused.code == 451
        assert [mta.eom().code for mta in busy] == [250, 250]
        newcomer.close()
        said = ("connections_refused", "2 connections are served")
        assert wait_for(lambda: said in served.logged)
        assert served.client().message(LETTER).code == 250


def dribble(mta: MilterClient, seconds: float, beside: MilterClient) -> None:
    """One octet after the other, and messages on a connection beside it. Raises Gone."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert beside.message(LETTER).code == 250
        mta.raw(b"x")
        time.sleep(0.1)


@pytest.mark.parametrize("in_message", [False, True])
def test_silence_ends_a_connection(in_message: bool) -> None:
    """CON-45: half a packet is silence; what never becomes a packet keeps no connection."""
    with serving(ConnectionLimits(silence=SILENCE)) as served:
        mta, talking = served.client(), served.client()
        stranger = served.client(negotiated=False)
        if in_message:
            mta.mail("<a@b>")
        mta.raw(struct.pack(">I", 5000) + b"L")
        with pytest.raises(Gone):
            dribble(mta, SILENCE + 1.5, talking)
        assert wait_for(lambda: gone(stranger), 2)
        assert talking.message(LETTER).code == 250


def test_a_message_that_waits_for_us_is_not_silent() -> None:
    with serving(ConnectionLimits(silence=1.0)) as served:
        mta = served.client()
        assert mta.message([*LETTER, ("X-Script", " park 3")]).code == 250


def test_connections_are_counted() -> None:
    """Those that have negotiated, and the silent ones, by themselves."""
    with serving() as served:
        slot = served.slot
        clients = [served.client() for _ in range(3)]
        strangers = [served.client(negotiated=False) for _ in range(2)]
        assert wait_for(lambda: (slot.sessions, slot.silent) == (3, 2))  # type: ignore[attr-defined]
        for each in (*clients, *strangers):
            each.close()
        assert wait_for(lambda: (slot.sessions, slot.silent) == (0, 0))  # type: ignore[attr-defined]


# -- drain -----------------------------------------------------------------------------------------


def test_a_drain_ends_what_has_no_client_and_lets_messages_and_clients_go_on(
    served: Served,
) -> None:
    """An SMTP client in the middle of its session would get 451 for every later message; and so
    would one whose CONNECT is on its way."""
    early = served.client(negotiated=False)
    early.negotiate()
    busy, idle, between = served.client(), served.client(), served.client()
    between.quit_nc()
    busy.mail("<a@b>")
    busy.eoh()
    busy.body(b"x")
    assert served.server is not None
    time.sleep(0.1)
    served.in_loop(served.server.drain)
    assert wait_for(lambda: gone(between), 2)
    with pytest.raises(OSError):
        served.client()
    early.connect("client.example", "192.0.2.1")
    assert early.message(LETTER).code == 250
    early.quit()
    assert busy.eom().code == 250
    assert idle.message(LETTER).code == 250
    idle.quit_nc()
    assert wait_for(lambda: gone(idle), 2)
    busy.quit()
    assert wait_for(lambda: served.server.count == 0, 2)


# -- workers beside this one -----------------------------------------------------------------------


def test_a_connection_that_nobody_else_takes_is_taken() -> None:
    """Whoever it is for, who may be busy or dying."""
    with serving(takes_next=lambda: False) as served:
        clients = [served.client() for _ in range(30)]
        assert [mta.message(LETTER).code for mta in clients] == [250] * 30


def test_a_worker_that_is_needed_looks_soon_again() -> None:
    """Only where there was nothing left, time after time, does it wait longer."""
    with serving(takes_next=lambda: False) as served:
        for _ in range(6):
            served.client()
        assert served.server is not None
        server = served.server
        assert wait_for(lambda: server.count == 6 and server._patience == PATIENCE)


def test_a_worker_that_has_stepped_back_looks_again_when_it_has_one_connection_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who has the fewest changes then: else an MTA would wait beside a worker that is idle."""
    monkeypatch.setattr(native, "PATIENCE", 60.0)
    may_take = [True]
    with serving(takes_next=lambda: may_take[0]) as served:
        first = served.client()
        assert served.server is not None
        may_take[0] = False
        waiting = served.client(negotiated=False)
        server = served.server
        assert wait_for(lambda: server._later is not None)
        may_take[0] = True
        first.quit()
        waiting.negotiate()
        waiting.connect("client.example", "192.0.2.1")
        assert waiting.message(LETTER).code == 250


def test_connections_are_left_to_the_worker_whose_they_are() -> None:
    """MTAs that connect one after the other while nobody has anything to do: else the worker that
    is woken first would have them all, and their messages later."""
    count = [0, 0]
    with serving(takes_next=lambda: count[0] <= count[1]) as one:
        assert one.server is not None
        listening = one.server._listening
        assert listening is not None
        second: list[Served] = []
        ready = threading.Event()
        arguments = (second, listening.dup(), ConnectionLimits(), SessionOptions(), ready)
        thread = threading.Thread(
            target=run, args=(*arguments, lambda: count[1] <= count[0]), daemon=True
        )
        thread.start()
        assert ready.wait(5)
        (other,) = second
        try:
            for _ in range(300):
                one.client()
                count[:] = one.server.count, other.server.count  # type: ignore[union-attr]
                if min(count) >= 5:
                    break
            assert min(count) >= 5
        finally:
            other.loop.call_from_thread(lambda: setattr(other, "stop", True))
            thread.join(5)
