"""The adapter's own decisions, without a connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from Milter import milter

from dmarc_milter.core.actions.plan import Action, DeleteHeader, InsertHeader, Quarantine, Reply
from dmarc_milter.session import libmilter_start
from dmarc_milter.session.connection import Connection
from dmarc_milter.session.event_queue import EventQueue
from dmarc_milter.session.handler import TRY_LATER, SessionOptions
from dmarc_milter.session.libmilter import Callbacks
from dmarc_milter.session.libmilter_start import CannotServe, check_platform
from dmarc_milter.session.session import Session


class Answering(Session):
    """A session whose answer is given."""

    def __init__(self, *actions: Action) -> None:
        super().__init__(self, SessionOptions(), name="c0")  # type: ignore[arg-type]
        self.actions = actions
        self.failures: list[str] = []

    def end_of_message(self, _macros: object) -> tuple[Action, ...]:
        return self.actions

    def failed(self, *about: Any) -> None:
        """As session and as handler."""
        if len(about) == 3:
            self.failures.append(f"{about[1]}: {about[2].partition(': ')[2].partition(' (')[0]}")


class AtOnce:
    """A loop that does at once what it is asked."""

    def call_from_thread(self, callback: Callable[[], None]) -> None:
        callback()

    def spawn(self, function: Callable[[], None], network: object) -> None:
        function()

    def pause(self) -> None:
        pass


def connection_of(session: Session, protocol: int) -> Connection:
    queue = EventQueue(AtOnce(), lambda _name: session, "c0")  # type: ignore[arg-type]
    return Connection(queue, protocol)


@dataclass
class Context:
    """pymilter's context, noting what it is asked; `refuses` names what raises."""

    played: list[tuple[object, ...]] = field(default_factory=list)
    refuses: str = ""

    def _note(self, *what: object) -> None:
        if what[0] == self.refuses:
            raise milter.error(f"cannot {what[0]}")
        self.played.append(what)

    def chgheader(self, name: str, index: int, value: str | None) -> None:
        self._note("chgheader", name, index, value)

    def addheader(self, name: str, value: str, index: int) -> None:
        self._note("addheader", name, value, index)

    def quarantine(self, reason: str) -> None:
        self._note("quarantine", reason)

    def setreply(self, code: str, enhanced: str, text: str) -> None:
        self._note("setreply", code, enhanced, text)

    def getsymval(self, name: str) -> str:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "as an MTA may send")


def played(
    *actions: Action, protocol: int = milter.P_HDR_LEADSPC, refuses: str = ""
) -> tuple[int, Context, Answering]:
    session = Answering(*actions)
    connection = connection_of(session, protocol)
    context = Context(refuses=refuses)
    return connection.end_of_message(context), context, session


def test_actions_are_played_in_their_order() -> None:
    answer, context, _ = played(
        DeleteHeader("Authentication-Results", 2),
        DeleteHeader("Authentication-Results", 1),
        InsertHeader("X", " v\n\tw"),
        Quarantine("DMARC"),
    )
    assert answer == milter.CONTINUE
    assert context.played == [
        ("chgheader", "Authentication-Results", 2, None),
        ("chgheader", "Authentication-Results", 1, None),
        ("addheader", "X", " v\n\tw", 0),
        ("quarantine", "DMARC"),
    ]


def test_the_leading_space_is_left_to_mtas_that_write_it() -> None:
    _, context, _ = played(InsertHeader("X", " v"), protocol=0)
    assert context.played == [("addheader", "X", "v", 0)]


@pytest.mark.parametrize(("code", "expected"), [(451, milter.TEMPFAIL), (550, milter.REJECT)])
def test_replies_match_their_return_code(code: int, expected: int) -> None:
    """libmilter ignores a reply whose class differs from the return code."""
    answer, context, _ = played(Reply(code, f"{code // 100}.7.1", "no"))
    assert answer == expected
    assert context.played == [("setreply", str(code), f"{code // 100}.7.1", "no")]


@pytest.mark.parametrize("refuses", ["chgheader", "addheader", "quarantine"])
def test_a_message_half_marked_is_never_accepted(refuses: str) -> None:
    """The MTA is gone or does not allow a change: 451, noted."""
    answer, context, session = played(
        DeleteHeader("X", 1), InsertHeader("X", " v"), Quarantine("DMARC"), refuses=refuses
    )
    assert answer == milter.TEMPFAIL
    assert context.played[-1] == ("setreply", "451", TRY_LATER.enhanced, TRY_LATER.text)
    assert session.failures == [f"play: cannot {refuses}"]


def test_a_reply_that_cannot_be_set_is_still_a_refusal_for_now() -> None:
    assert played(Reply(550, "5.7.1", "no"), refuses="setreply")[0] == milter.TEMPFAIL


@pytest.mark.parametrize("refuses", ["", "setreply"])
def test_a_connection_that_is_not_served_hears_451_4_3_2(refuses: str) -> None:
    """FLT-16: a bare temporary failure would be the MTA's 451 4.7.1, as for a milter that is
    down."""
    connection, context = connection_of(Answering(), 0), Context(refuses=refuses)
    connection.refused = True
    assert connection.connect(context, ("192.0.2.1", 25)) == milter.TEMPFAIL
    assert connection.mail(context, b"<a@b>", ()) == milter.TEMPFAIL
    assert connection.end_of_message(context) == milter.TEMPFAIL
    assert {said[:3] for said in context.played} == (
        set() if refuses else {("setreply", "451", "4.3.2")}
    )


def test_a_connection_without_negotiation_expects_nothing() -> None:
    """Every step is answered then."""
    session = Session(None, SessionOptions(), name="c0")  # type: ignore[arg-type]
    connection = connection_of(session, 0)
    assert connection.connect(Context(), ("192.0.2.1", 25)) == milter.CONTINUE
    assert connection.helo("x.example") == milter.CONTINUE


def test_python_and_a_pooled_libmilter_that_crash_together_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One clear line instead of a crash under the first load."""

    class Pooled:
        mi_pool_controller_init = object()

    monkeypatch.setattr(libmilter_start, "_library", lambda: Pooled)
    check_platform()
    monkeypatch.setattr(libmilter_start, "sys", type("Later", (), {"version_info": _Version()}))
    with pytest.raises(
        CannotServe,
        match=r"^Python 3\.14 crashes with this libmilter \(built with a thread pool\)$",
    ):
        check_platform()
    monkeypatch.setattr(libmilter_start, "_library", object)
    check_platform()


class _Version(tuple[int, ...]):
    """As sys.version_info of Python 3.14."""

    __slots__ = ()
    major, minor = 3, 14

    def __new__(cls) -> _Version:
        return super().__new__(cls, (3, 14, 0))


class Kernel:
    """Each session has one descriptor, which is of one connection."""

    is_tcp = False

    def handle_of(self, context: Any) -> int:
        return int(context.handle)

    def identity(self, handle: int) -> tuple[int, int]:
        return (0, handle)

    def hang_up(self, *_: object) -> bool:
        return False


class Turned:
    """Refusals, counted."""

    most = 4

    def __init__(self) -> None:
        self.noted: list[str] = []

    def note(self, why: str) -> None:
        self.noted.append(why)


class Slot:
    sessions = silent = 0


class Session0:
    """pymilter's context of one connection."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.connection: Any = None

    def getpriv(self) -> Any:
        return self.connection

    def setpriv(self, connection: Any) -> None:
        self.connection = connection

    def setsymlist(self, *_: object) -> None:
        pass

    def getsymval(self, _: str) -> None:
        return None


ALL = [0x1FF, 0x1FFFFF, 0, 0]


def callbacks(most: int) -> tuple[Callbacks, Turned]:
    def queue(_name: str) -> EventQueue:
        return EventQueue(AtOnce(), lambda _: Answering(), "c0")  # type: ignore[arg-type]

    kernel, turned, slot = Kernel(), Turned(), Slot()
    return Callbacks(queue, slot, most, kernel, turned), turned  # type: ignore[arg-type]


def negotiated(of: Callbacks, handle: int) -> Session0:
    context = Session0(handle)
    of._negotiate(context, list(ALL))
    context.connection.in_message = True
    return context


def test_who_is_refused_changes_nothing_for_others() -> None:
    """It is asked to wait for answers; one that follows QUIT_NC on another connection is not."""
    of, turned = callbacks(1)
    served, refused = negotiated(of, 5), negotiated(of, 6)
    assert (served.connection.refused, refused.connection.refused) == (False, True)
    before = served.connection.protocol
    of._close(served)
    assert of._of(served).protocol == before != refused.connection.protocol
    assert len(turned.noted) == 1


def test_who_was_refused_is_not_served_after_quit_nc_unless_there_is_room() -> None:
    of, turned = callbacks(1)
    served, refused = negotiated(of, 5), negotiated(of, 6)
    protocol = refused.connection.protocol
    of._close(refused)
    assert of._of(refused).refused
    assert len(turned.noted) == 2
    of._close(refused)
    of._close(served)
    again = of._of(refused)
    assert (again.refused, again.protocol) == (False, protocol)


def test_every_step_is_progress() -> None:
    """A connection that goes on is never taken for one that libmilter forgot."""
    session = Answering()
    connection = connection_of(session, 0)
    context: Any = Session0(5)
    seen = [connection.progress]
    for step in (
        lambda: connection.connect(context, None),
        lambda: connection.helo("x"),
        lambda: connection.mail(context, b"<a@b.example>", ()),
        lambda: connection.rcpt(b"<c@d.example>"),
        lambda: connection.header(b"A", b" b"),
        lambda: connection.header(b"A", b" b"),
        lambda: connection.end_of_headers(context),
        lambda: connection.body(b"x"),
        lambda: connection.body(b"x"),
        lambda: connection.body(b"x"),
        lambda: connection.end_of_message(Context()),
        connection.abort,
    ):
        step()
        seen.append(connection.progress)
    connection.refused = True
    for _ in range(2):
        connection.mail(Context(), b"<>", ())
        seen.append(connection.progress)
    assert len(set(seen)) == len(seen)
