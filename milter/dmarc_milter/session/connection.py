"""One connection of the MTA as libmilter has it: pymilter's arguments become a Session's events,
and its actions are played back.

These methods run on libmilter's own threads. They collect bytes and wait, nothing else (see
libmilter.py).
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from Milter import milter  # the C module: by its own name mypy would find the source root

from dmarc_milter.core.actions.plan import Action, DeleteHeader, InsertHeader, Quarantine, Reply
from dmarc_milter.mta.macros import parse_address
from dmarc_milter.session.handler import TRY_LATER
from dmarc_milter.session.session import Session

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
MakeSession = Callable[[str], Session]
"""Makes the session of a new connection from the connection's name."""


class Connection:
    """One connection of the MTA to libmilter."""

    def __init__(self, make_session: MakeSession, protocol: int, handle: int = -1) -> None:
        self.session = make_session("c" + secrets.token_hex(6))
        self.protocol = protocol
        self.handle = handle
        """The descriptor, -1 where it is not known or not ours any more."""
        self.heard = time.monotonic()
        """When it last said something outside a message."""
        self._connected = False
        self._negotiated = False
        self._stale: dict[str, str] = {}
        """Macros of an earlier client, which libmilter keeps over QUIT_NC until the MTA gives new
        ones."""

    def negotiate(self, ctx: Any, options: list[int]) -> int:
        """Ask for no more than is used: fewer callbacks, no replies where the MTA can do
        without."""
        self._negotiated = True
        actions, self.protocol = options[0] & ACTIONS, options[1] & PROTOCOL
        options[:] = [actions, self.protocol, 0, 0]
        if actions != ACTIONS:
            self.session.failed(
                "negotiate", ConnectionError("the MTA does not allow header changes and quarantine")
            )
        with contextlib.suppress(milter.error):
            for stage, names in MACROS:
                ctx.setsymlist(stage, names)
        return int(milter.CONTINUE)

    def connect(self, ctx: Any, address: object) -> int:
        self._connected = True
        self.heard = time.monotonic()
        text = (
            address[0]
            if isinstance(address, tuple) and address and isinstance(address[0], str)
            else None
        )
        self._stale = {} if self._negotiated else _stale_macros(_macros(ctx), text)
        self.session.connect(text, self._macros(ctx))
        return self._continue(milter.P_NR_CONN)

    def helo(self, name: str, ctx: Any = None) -> int:
        self.heard = time.monotonic()
        if ctx is None:
            self.session.helo(name)
        else:
            self.session.helo(name, self._macros(ctx))
        return self._continue(milter.P_NR_HELO)

    def mail(self, ctx: Any, argument: bytes, parameters: Sequence[bytes]) -> int:
        self.session.mail(argument, parameters, self._macros(ctx))
        return self._continue(milter.P_NR_MAIL)

    def rcpt(self, argument: bytes) -> int:
        self.session.rcpt(argument)
        return self._continue(milter.P_NR_RCPT)

    def end_of_headers(self, ctx: Any) -> int:
        self.session.end_of_headers(_macros(ctx))
        return self._continue(milter.P_NR_EOH)

    def body(self, chunk: bytes) -> int:
        wanted = self.session.body(chunk)
        return int(milter.CONTINUE if wanted or not self.protocol & milter.P_SKIP else milter.SKIP)

    def end_of_message(self, ctx: Any) -> int:
        actions = self.session.end_of_message(_macros(ctx))
        self.heard = time.monotonic()
        try:
            return self._apply(ctx, actions)
        except Exception as error:
            # The MTA is gone or refuses a change it had offered: a message half marked must not be
            # accepted.
            self.session.failed("play", error)
            with contextlib.suppress(Exception):
                return self._apply(ctx, (TRY_LATER,))
            return int(milter.TEMPFAIL)

    def undecodable(self, octets: bytes) -> None:
        """pymilter turned HELO, a header name or a host name into text as strict UTF-8, failed, and
        called nothing of ours."""
        if not self._connected:
            self._connected = True
            self.session.connect(None, lambda _: "")
        elif self.session.in_message:
            self.session.header_lost()
        else:
            self.session.helo(octets.decode("utf-8", "surrogateescape"))

    def _macros(self, ctx: Any) -> Callable[[str], str]:
        """What the MTA says of this client."""
        value = _macros(ctx)
        return (
            value
            if not self._stale
            else lambda name: "" if (found := value(name)) == self._stale.get(name) else found
        )

    def _continue(self, no_reply: int) -> int:
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
    return {
        name: value
        for name in ("{client_addr}", "{daemon_name}", "{auth_authen}")
        if (value := macros(name))
    }
