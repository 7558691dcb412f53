"""One MTA connection: events in, actions out. Without a protocol and sockets, so tests call it
directly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from dmarc_milter.core.actions.plan import Action, Reply, deferral_reply
from dmarc_milter.core.mail.domain import Domain, Malformed
from dmarc_milter.core.mail.header_collector import Collector
from dmarc_milter.core.mail.ip_address import IPAddress
from dmarc_milter.core.mail.message import Envelope, Headers
from dmarc_milter.core.mail.path import ReversePath, recipient_domain, reverse_path
from dmarc_milter.core.mail.received import original_client
from dmarc_milter.core.policy.decide import Deferral
from dmarc_milter.core.resolver import is_shortage
from dmarc_milter.mta.macros import mta_named, parse_address, queue_id
from dmarc_milter.session.guard import Report, guarded
from dmarc_milter.session.handler import (
    TRY_LATER,
    MailTransaction,
    MessageHandler,
    Networks,
    Own,
    SessionOptions,
)

Macros = Callable[[str], str]
"""The value of an MTA macro, "" when the MTA did not send it."""
MAX_RECIPIENT_DOMAINS = 1000
REPORT_TAG = re.compile(rb"\+[0-9a-f]{32}-[0-9a-f]{1,8}@")
"""What makes the envelope sender of each report mail its own (core/report/mail.py, verp)."""

OVERLOADED = deferral_reply(Deferral("overloaded"))
TOO_MANY_FIELDS = Reply(
    550, "5.6.0", "Too many From, Authentication-Results or X-DMARC-Quarantine header fields"
)


@dataclass(slots=True)
class _CurrentMessage:
    """All that belongs to one message: a new one for each, so that nothing is carried over."""

    collector: Collector
    envelope: Envelope
    exempt: str = ""
    """Why it is not evaluated, or "" """
    relayed: bool = False
    transaction: MailTransaction | None = None
    headers: Headers | None = None
    own: Own = Own()
    broken: str = ""
    short: bool = False
    """It is broken because of others: for want of threads, memory or descriptors."""
    queue_id: str = ""
    recipients: dict[Domain, None] = field(default_factory=dict)
    some_unknown: bool = False
    """Whether a recipient is none of these: no domain of it can be told, or there were too many."""
    any_recipient: bool = False


def _report(session: Session) -> Report:
    return session.failed


class Session:
    """The events of one connection, in any order that an MTA or an attacker may choose."""

    def __init__(self, handler: MessageHandler, options: SessionOptions, *, name: str) -> None:
        self._handler = handler
        self._options = options
        self._name = name
        self._source: IPAddress | None = None
        self._helo = ""
        self._daemon = ""
        self._broken = ""
        """What went wrong before any message: without client or HELO none can be judged."""
        self._message: _CurrentMessage | None = None

    @property
    def name(self) -> str:
        """What the log calls it."""
        return self._name

    @property
    def source(self) -> IPAddress | None:
        """The SMTP client, where the MTA names one."""
        return self._source

    @property
    def in_message(self) -> bool:
        """Whether a MAIL command has been given and its message not yet ended."""
        return self._message is not None

    @guarded(_report, None)
    def connect(self, address: str | None, macros: Macros) -> None:
        """A client connected to the MTA, possibly after another one; `address` is None where there
        is none."""
        self.abort()
        self._helo = self._daemon = self._broken = ""
        self._source = None  # should anything below fail, nothing of an earlier client is left
        self._source = parse_address(address or macros("{client_addr}"))
        self._daemon = macros("{daemon_name}")

    @guarded(_report, None)
    def helo(self, name: str, macros: Macros = lambda _: "") -> None:
        """HELO or EHLO, possibly again; it ends a message like RSET does (RFC 5321 4.1.4)."""
        self.abort()
        self._same_client(macros)
        self._helo = name

    @guarded(_report, None)
    def mail(self, argument: bytes, parameters: Sequence[bytes], macros: Macros) -> None:
        """MAIL FROM: a new message. What the MTA says of the client here is newer than what it said
        at CONNECT."""
        self.abort()
        self._same_client(macros)
        self._daemon = macros("{daemon_name}") or self._daemon
        message = self._message = self._new_message()
        sender = reverse_path(argument)
        eai = any(parameter.upper() == b"SMTPUTF8" for parameter in parameters)
        own = self._options.own_addresses
        message.envelope = Envelope(
            self._source, self._helo, sender, smtputf8=eai, mta=mta_named(macros("v"))
        )
        message.own = Own(sender=bool(own) and _bare(argument) in own)
        message.relayed = within(self._source, self._options.trusted_relays)
        message.exempt = self._exemption(macros, relayed=message.relayed)
        if not message.exempt and not message.relayed:
            message.transaction = self._handler.begin(message.envelope)

    @guarded(_report, None)
    def rcpt(self, argument: bytes) -> None:
        """A recipient that the MTA accepts. Only its domain is kept."""
        message = self._current()
        domain = recipient_domain(argument)
        if isinstance(domain, Malformed) or (
            domain not in message.recipients and len(message.recipients) >= MAX_RECIPIENT_DOMAINS
        ):
            message.some_unknown = True
        else:
            message.recipients[domain] = None
        ours = _bare(argument) in self._options.own_addresses
        ours = ours and (message.own.recipient or not message.any_recipient)
        if ours is not message.own.recipient:
            message.own = replace(message.own, recipient=ours)
        message.any_recipient = True

    def headers(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Many header fields, as `header` takes one."""
        try:
            message = self._message or self._current()
            if message.headers is None:
                add = message.collector.add
                for name, value in fields:
                    add(name, value)
        except Exception as error:
            self.failed("header", error)

    def header(self, name: bytes, value: bytes) -> None:
        """One header field. `value` keeps its leading space; folds are LF or CRLF. (The most
        frequent event: no wrapper.)"""
        try:
            message = self._message or self._current()
            if message.headers is None:
                message.collector.add(name, value)
        except Exception as error:
            self.failed("header", error)

    @guarded(_report, None)
    def header_lost(self) -> None:
        """A header field that the protocol library could not hand over."""
        self._current().collector.lost()

    @guarded(_report, None)
    def end_of_headers(self, macros: Macros) -> None:
        """All header fields are there: what they ask for can be planned and looked up."""
        message = self._current()
        if message.headers is not None:
            return
        message.headers = message.collector.headers()
        message.queue_id = queue_id(macros("i"))
        if message.exempt:
            return
        if message.relayed:
            message.envelope = client_behind_relay(message.envelope, message.headers, self._options)
        if message.transaction is None:
            message.transaction = self._handler.begin(message.envelope)
        message.transaction.headers(message.headers)

    @guarded(_report, False)
    def body(self, chunk: bytes) -> bool:
        """More of the body, in pieces of any size; False when no more of it is wanted."""
        message = self._current()
        if message.broken or message.exempt:
            return False
        if message.headers is None:
            self.end_of_headers(lambda _: "")
        return message.transaction.body(chunk) if message.transaction else False

    def end_of_message(self, macros: Macros) -> tuple[Action, ...]:
        """The whole message has arrived: what the MTA is to do with it. Blocks while the verdict is
        found. Never raises."""
        try:
            message = self._current()
            if message.headers is None:
                self.end_of_headers(macros)
            return self._answer(message, macros)
        except Exception as error:
            self.failed("end_of_message", error)
            return self._on_error()
        finally:
            self.abort()  # one that was answered unjudged still has look-ups

    def abort(self) -> None:
        """The message ends here: RSET, a new HELO or MAIL, or the connection is gone."""
        message, self._message = self._message, None
        if message is not None and message.transaction is not None:
            try:
                message.transaction.cancel()
            except Exception as error:
                self.failed("abort", error)

    def close(self) -> None:
        """The connection has ended."""
        self.abort()

    def failed(self, where: str, error: BaseException) -> None:
        """Something of ours went wrong: the message in progress, if any, will be answered as
        on_error says.

        A shortage is none of that message's or this program's doing: 451, whatever on_error says.
        """
        text = f"{type(error).__name__}: {error}{_place(error)}"
        name = self._name
        if self._message is not None:
            message = self._message
            name, before = message.queue_id or name, message.short
            message.short = is_shortage(error) and (before or not message.broken)
            message.broken = text
            if message.short:
                if not before:
                    self._handler.overloaded(name, message.envelope, str(error) or text)
                return
        elif where in ("connect", "helo"):
            self._broken = text
        self._handler.failed(name, where, text)

    def _answer(self, message: _CurrentMessage, macros: Macros) -> tuple[Action, ...]:
        if message.broken or message.headers is None:
            return self._on_error()
        if message.collector.overflow:
            return (TOO_MANY_FIELDS,)
        message.queue_id = queue_id(macros("i")) or message.queue_id
        domains = tuple(message.recipients)
        envelope = replace(
            message.envelope,
            queue_id=message.queue_id,
            rcpt_domains=domains,
            rcpt_known=not message.some_unknown,
        )
        keep = within(self._source, self._options.keep_results_from)
        if message.exempt or message.transaction is None:
            self._handler.exempted(envelope.queue_id or self._name, envelope, message.exempt)
            return self._handler.pass_through(message.headers, keep_results=keep)
        return message.transaction.finish(envelope, message.own, keep_results=keep)

    def _on_error(self) -> tuple[Action, ...]:
        """As configured, or 451 for a shortage. Monitor mode makes nobody wait, and a shortage no
        trusted relay. What is accepted still loses what is forged, as far as the fields are
        known."""
        options, message = self._options, self._message
        short, waits = bool(message and message.short), options.enforce
        if waits and short and not (message and message.relayed):
            return (OVERLOADED,)
        if waits and not short and options.on_error == "tempfail":
            return (TRY_LATER,)
        try:
            keep = within(self._source, options.keep_results_from)
            if message is None:
                return self._handler.pass_through(Headers(()), keep_results=keep)
            headers = message.headers or message.collector.headers()
            if message.exempt:
                return self._handler.pass_through(headers, keep_results=keep)
            return self._handler.unjudged(headers, message.envelope, keep_results=keep)
        except Exception as error:
            self.failed("pass_through", error)
            return (TRY_LATER,)

    def _same_client(self, macros: Macros) -> None:
        """Forget the client where the MTA now names another: libmilter hides a CONNECT that comes
        when it expects none."""
        named = macros("{client_addr}")
        client = parse_address(named)  # Postfix says `unknown` where it knows none
        if named and client != self._source:
            self._source, self._helo, self._daemon = client, "", ""

    def _current(self) -> _CurrentMessage:
        """The message in progress; events that come without MAIL belong to one with an empty
        envelope."""
        if self._message is None:
            self._message = self._new_message()
        return self._message

    def _new_message(self) -> _CurrentMessage:
        options = self._options
        collector = Collector(options.header_bytes, options.header_fields, options.stand_ins)
        envelope = Envelope(source_ip=self._source, helo=self._helo, mail_from=ReversePath())
        return _CurrentMessage(collector, envelope, broken=self._broken)

    def _exemption(self, macros: Macros, *, relayed: bool) -> str:
        """Why the message is not evaluated, or "". Only what the MTA itself says counts, never the
        message."""
        if macros("{auth_authen}").strip():
            return "authenticated"
        of_other = (
            self._options.daemons_of_sendmail and mta_named(macros("v") or "8.0") != "sendmail"
        )
        if self._daemon and self._daemon in self._options.trusted_daemons and not of_other:
            return "trusted daemon"
        if not relayed and within(self._source, self._options.trusted_networks):
            return "trusted network"
        return ""


def client_behind_relay(envelope: Envelope, headers: Headers, options: SessionOptions) -> Envelope:
    """The client that gave the message to our relay, from the topmost Received field that names a
    host outside."""
    inside = options.trusted_relays + options.trusted_networks
    hop = original_client(headers.values(b"received"), inside)
    if hop is None:
        return replace(envelope, source_ip=None, source_known=False, relayed=True)
    return replace(envelope, source_ip=hop.address, helo=hop.helo, relayed=True)


def _place(error: BaseException) -> str:
    """Where it was raised, as " (FILE:LINE)"."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (
        f" ({trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno})"
        if trace
        else ""
    )


def within(address: IPAddress | None, networks: Networks) -> bool:
    """Whether the address is in one of the networks."""
    return address is not None and any(address in network for network in networks)


def _bare(argument: bytes) -> bytes:
    """A path without its angle brackets and without the tag of our report mail, lower case."""
    return REPORT_TAG.sub(
        b"@", argument.strip().removeprefix(b"<").removesuffix(b">").lower(), count=1
    )
