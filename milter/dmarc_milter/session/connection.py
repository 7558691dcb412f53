"""One connection of the MTA as libmilter has it: pymilter's arguments become a Session's events,
and its actions are played back.

These methods run on libmilter's own threads. They collect and wait, nothing else (libmilter.py). A
message's events are handed to the loop at its end, or earlier where they are many bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from Milter import milter  # the C module: by its own name mypy would find the source root

from dmarc_milter.core.actions.plan import Action, DeleteHeader, InsertHeader, Quarantine, Reply
from dmarc_milter.core.fair_sharing import client_network
from dmarc_milter.mta.macros import parse_address
from dmarc_milter.session.event_queue import Event, EventAnswer, EventQueue
from dmarc_milter.session.handler import TRY_LATER
from dmarc_milter.session.session import OVERLOADED, Session

ACTIONS = milter.ADDHDRS | milter.CHGHDRS | milter.QUARANTINE
# Not P_NR_BODY: for a last piece of the body within the end-of-message packet libmilter would take
# NOREPLY as the answer to the message and send none. With replies SKIP works too, for bodies that
# no signature covers.
NO_REPLY = (
    milter.P_NR_CONN
    | milter.P_NR_HELO
    | milter.P_NR_MAIL
    | milter.P_NR_RCPT
    | milter.P_NR_HDR
    | milter.P_NR_EOH
)
PROTOCOL = NO_REPLY | milter.P_NODATA | milter.P_NOUNKNOWN | milter.P_HDR_LEADSPC | milter.P_SKIP
MACROS = (
    (milter.M_CONNECT, "j v {daemon_name} {client_addr}"),
    (milter.M_ENVFROM, "i {auth_authen} {daemon_name} {client_addr}"),
    (milter.M_EOH, "i"),
    (milter.M_EOM, "i"),
)
CLIENT: Final = ("{client_addr}", "{daemon_name}", "{auth_authen}")
"""Macros about the client, which outlive a QUIT_NC in libmilter."""
HELD: Final = 256 * 1024
"""Bytes of events that are kept before they are handed over."""
EVENT: Final = 200
"""Bytes that an event costs besides what is in it."""
LARGE: Final = 2
"""Pieces of a body after which the loop learns of the message: more of it may not be wanted."""
PATIENCE: Final = 120.0
"""Seconds that the loop has for an answer."""


_setsockopt = ctypes.PyDLL(None).setsockopt
"""The C library's: a socket object would own the descriptor, which is libmilter's."""
_ONE = ctypes.c_int(1)
_ON: Final = (ctypes.byref(_ONE), ctypes.sizeof(_ONE))


class Connection:
    """One connection of the MTA to libmilter."""

    def __init__(
        self,
        queue: EventQueue,
        protocol: int,
        handle: int = -1,
        patience: float = PATIENCE,
        *,
        quick: bool = False,
    ) -> None:
        self._queue = queue
        self._patience = patience
        self.protocol = protocol
        self.handle = handle
        """The descriptor, -1 where it is not known or not ours any more."""
        self._quick = quick
        """Whether what gets no answer is to be acknowledged at once (TCP)."""
        self.heard = time.monotonic()
        """When it last said something outside a message."""
        self.in_message = False
        self.refused = False
        """There is no room for it: it is told so, and nothing more is heard of it."""
        self.hung_up = False
        """It has gone for another; libmilter will close it."""
        self.waits = False
        """Whether libmilter's thread waits for the loop's answer."""
        self._steps = 0
        """How many were heard, but for header fields."""
        self._events: list[Event] = []
        self._held = 0
        self._begin = 0
        """Events that do not belong to the message."""
        self._pieces = 0
        """Pieces of the body so far."""
        self._earlier: EventAnswer | None = None
        """Of a part of the message that the loop has, and may not have obeyed yet."""
        self._connected = False
        self._negotiated = False
        self._stale: dict[str, str] = {}
        """Macros of an earlier client, which libmilter keeps over QUIT_NC until the MTA gives new
        ones."""

    @property
    def progress(self) -> object:
        """Another value after everything that is heard of it."""
        return self._steps, len(self._events), self._held, self.heard

    def _refusal(self, ctx: Any) -> int:
        """451 4.3.2: a bare TEMPFAIL would look like a milter that is down."""
        self._steps += 1
        with contextlib.suppress(milter.error):
            return self._apply(ctx, (OVERLOADED,))
        return int(milter.TEMPFAIL)

    def negotiate(self, ctx: Any, options: list[int]) -> int:
        """Ask for no more than is used: fewer callbacks, no replies where the MTA can do
        without."""
        self._negotiated = True
        actions, self.protocol = options[0] & ACTIONS, options[1] & PROTOCOL
        if self.refused:
            self.protocol &= ~NO_REPLY
        options[:] = [actions, self.protocol, 0, 0]
        if actions != ACTIONS:
            self.failed(
                "negotiate", ConnectionError("the MTA does not allow header changes and quarantine")
            )
        with contextlib.suppress(milter.error):
            for stage, names in MACROS:
                ctx.setsymlist(stage, names)
        return int(milter.CONTINUE)

    def connect(self, ctx: Any, address: object) -> int:
        if self.refused:
            return self._refusal(ctx)
        self._connected = True
        self.heard = time.monotonic()
        text = (
            address[0]
            if isinstance(address, tuple) and address and isinstance(address[0], str)
            else None
        )
        self._stale = {} if self._negotiated else _stale_macros(_macros(ctx), text)
        macros = self._macros(ctx, CLIENT)
        self._queue.network = client_network(parse_address(text or macros("{client_addr}")))
        self._message_over()
        self._add(Session.connect, text, macros)
        return self._continue(milter.P_NR_CONN)

    def helo(self, name: str, ctx: Any = None) -> int:
        self.heard = time.monotonic()
        self._message_over()
        if ctx is None:
            self._add(Session.helo, name)
        else:
            self._add(Session.helo, name, self._macros(ctx, CLIENT))
        return self._continue(milter.P_NR_HELO)

    def mail(self, ctx: Any, argument: bytes, parameters: Sequence[bytes]) -> int:
        if self.refused:
            return self._refusal(ctx)
        self._message_over()
        self._add(Session.mail, argument, parameters, self._macros(ctx, (*CLIENT, "v")))
        self.in_message, self._begin, self._pieces = True, len(self._events), 0
        self._queue.wants_body = True
        return self._continue(milter.P_NR_MAIL)

    def rcpt(self, argument: bytes) -> int:
        self._add(Session.rcpt, argument, size=len(argument))
        return self._continue(milter.P_NR_RCPT)

    def header(self, name: bytes, value: bytes) -> None:
        """The most frequent event."""
        if self._quick:
            self.acknowledge()
        self._events.append((Session.header, (name, value)))
        self._held += EVENT + len(name) + len(value)
        if self._held > HELD:
            self._hand_over()

    def end_of_headers(self, ctx: Any) -> int:
        self._add(Session.end_of_headers, self._macros(ctx, ("i",)))
        return self._continue(milter.P_NR_EOH)

    def body(self, chunk: bytes) -> int:
        self.in_message = True
        self._steps += 1
        if not self._queue.wants_body and self.protocol & milter.P_SKIP:
            return int(milter.SKIP)
        self._add(Session.body, chunk, size=len(chunk))
        self._pieces += 1
        if self._pieces == LARGE and self._earlier is None:
            self._hand_over()
        return int(milter.CONTINUE)

    def end_of_message(self, ctx: Any) -> int:
        if self.refused:
            return self._refusal(ctx)
        answer, events = EventAnswer(), self._taken()
        self._queue.put(events, answer, self._macros(ctx, ("i",)))
        in_time = self._answered(answer)
        self.heard, self.in_message = time.monotonic(), False
        if not in_time:
            self._queue.give_up()
            self.failed("end_of_message", TimeoutError("not done in time"))
            return self._apply(ctx, (TRY_LATER,))
        try:
            return self._apply(ctx, answer.actions)
        except Exception as error:
            # The MTA is gone or refuses a change it had offered: a message half marked must not be
            # accepted.
            self.failed("play", error)
            with contextlib.suppress(Exception):
                return self._apply(ctx, (TRY_LATER,))
            return int(milter.TEMPFAIL)

    def abort(self) -> None:
        """The message ends here. What the loop knows nothing of yet, it need not learn."""
        self.heard = time.monotonic()
        self.acknowledge()
        self._message_over()
        self._add(Session.abort)
        if self._earlier is not None:
            self._hand_over()

    def close(self) -> None:
        """The connection has ended."""
        self._message_over()
        self._add(Session.close)
        self._hand_over()

    def failed(self, where: str, error: BaseException) -> None:
        """Something of ours went wrong (Session.failed)."""
        self._add(Session.failed, where, error)
        if not self.in_message:
            self._hand_over()

    def undecodable(self, octets: bytes) -> None:
        """pymilter turned HELO, a header name or a host name into text as strict UTF-8, failed, and
        called nothing of ours."""
        if not self._connected:
            self._connected = True
            self._add(Session.connect, None, lambda _: "")
        elif self.in_message:
            self._add(Session.header_lost)
        else:
            self._add(Session.helo, octets.decode("utf-8", "surrogateescape"))

    def _add(self, method: Callable[..., Any], *arguments: Any, size: int = 0) -> None:
        self._steps += 1
        self._events.append((method, arguments))
        self._held += EVENT + size
        if self._held > HELD:
            self._hand_over()

    def _message_over(self) -> None:
        """Whatever message there was has ended, not by its end."""
        if self.in_message and self._earlier is None:
            del self._events[self._begin :]
            self._held = EVENT * len(self._events)
        self.in_message = False

    def _taken(self) -> list[Event]:
        """The events to be handed over, once the loop has obeyed what it was given before: it never
        holds more of a connection than that."""
        if self._earlier is not None:
            self._answered(self._earlier)
            self._earlier = None
        self._steps += 1
        events, self._events = self._events, []
        self._held = self._begin = 0
        return events

    def _answered(self, answer: EventAnswer) -> bool:
        """Wait for it; False when it did not come in time."""
        self.waits = True
        try:
            return answer.wait(self._patience)
        finally:
            self.waits = False

    def _hand_over(self) -> None:
        events = self._taken()
        self._earlier = EventAnswer()
        self._queue.put(events, self._earlier)

    def _macros(self, ctx: Any, names: Sequence[str]) -> Callable[[str], str]:
        """What the MTA says of this client and message now."""
        value, stale = _macros(ctx), self._stale
        known = {name: said for name in names if (said := value(name)) != stale.get(name, "")}
        return lambda name: known.get(name, "")

    def acknowledge(self) -> None:
        """An MTA whose packets get no answer holds the next small one back until these are
        acknowledged (Nagle), which the kernel would put off for 40 ms."""
        if self._quick and self.handle >= 0:
            _setsockopt(self.handle, socket.IPPROTO_TCP, socket.TCP_QUICKACK, *_ON)

    def _continue(self, no_reply: int) -> int:
        self.acknowledge()
        return int(milter.NOREPLY if self.protocol & no_reply else milter.CONTINUE)

    def _apply(self, ctx: Any, actions: Sequence[Action]) -> int:
        answer = milter.CONTINUE
        for action in actions:
            match action:
                case DeleteHeader(name, index):
                    ctx.chgheader(name, index, None)
                case InsertHeader(name, value):
                    # Without LEADSPC the MTA puts the space after the colon itself.
                    ctx.addheader(
                        name,
                        value if self.protocol & milter.P_HDR_LEADSPC else value.removeprefix(" "),
                        0,
                    )
                case Quarantine(reason):
                    ctx.quarantine(reason)
                case Reply(code, enhanced, text):
                    ctx.setreply(str(code), enhanced, text.replace("%", "%%"))
                    answer = milter.TEMPFAIL if code < 500 else milter.REJECT
        return int(answer)


def _macros(ctx: Any) -> Callable[[str], str]:
    def value(name: str) -> str:
        try:
            return ctx.getsymval(name) or ""
        except (
            UnicodeDecodeError
        ) as error:  # a login of the submission service, say: it is one all the same
            return error.object.decode("utf-8", "surrogateescape")

    return value


def _stale_macros(macros: Callable[[str], str], address: str | None) -> dict[str, str]:
    """At the CONNECT that follows QUIT_NC: the macros, unless `{client_addr}` shows that they came
    with this client."""
    given = macros("{client_addr}")
    if address is not None and given and parse_address(given) == parse_address(address):
        return {}
    return {name: value for name in CLIENT if (value := macros(name))}
