"""Submission of report mail by SMTP: one connection for many mails, and for each of them what the
receiving side said."""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from dmarc_milter.core.report.diagnosis import NO_SUCH_ADDRESS, refuses_recipient
from dmarc_milter.core.report.reply_codes import status
from dmarc_milter.core.text import printable

if TYPE_CHECKING:
    from dmarc_milter.core.dkim.signing import SigningKey

MAX_REPLY = 400
"""Characters of a reply that are kept."""
FROM = re.compile(rb"^From:[^@]*@([a-z0-9_.-]+)>?\r\n(?![ \t])", re.MULTILINE)
MAX_HEAD = 4096
"""Bytes of a mail in which its From stands."""
PER_CONNECTION = 100
"""Mails over one connection."""
SUBMISSIONS = 465
"""The port where TLS begins with the first byte and STARTTLS is not used (RFC 8314 3.3)."""


class Sent(NamedTuple):
    """250 after the end of data: the report is theirs now."""

    reply: str


class Later(NamedTuple):
    """Not refused for good. `server`: it is the submission server itself, so the next mail would
    fare the same."""

    reply: str
    server: bool = False


class Refused(NamedTuple):
    """5xx for this recipient or this mail. `address`: it speaks of the recipient and of nothing
    else; `at_rcpt`: it answered RCPT."""

    reply: str
    address: bool = False
    at_rcpt: bool = False


Outcome = Sent | Later | Refused


@dataclass(frozen=True, slots=True)
class Submission:
    """Where report mail goes and how. `timeout` is seconds for one step, `deadline` for one
    mail."""

    host: str
    port: int
    tls: Literal["none", "opportunistic", "verify"] = "none"
    user: str = ""
    password: str = ""
    key: SigningKey | None = None
    keys: Mapping[str, SigningKey] = field(default_factory=dict)
    """Keys of their own, by the domain of From."""
    helo: str = ""
    timeout: float = 60.0
    deadline: float = 300.0

    @property
    def begins_with_tls(self) -> bool:
        return self.port == SUBMISSIONS and self.tls != "none"


class _Unavailable(Exception):
    """The server does not let us in; `str()` is its reply or what went wrong."""


def greeting(submission: Submission) -> str:
    """Why the server does not let us in, TLS and login included; "" when it does. Nothing is
    sent."""
    mailer = Mailer(submission)
    try:
        mailer.open()
    except _Unavailable as error:
        return str(error)
    finally:
        mailer.close()
    return ""


class Mailer:
    """For one thread. Nothing is opened before the first mail."""

    def __init__(self, submission: Submission) -> None:
        self._to = submission
        self._connection: smtplib.SMTP | None = None
        self._used = 0

    def send(self, sender: str, recipient: str, message: bytes) -> Outcome:
        """One mail to one recipient, signed if there is a key. Never raises for what the network or
        the server does.

        Raises ValueError for a key that cannot sign. A connection lost after the end of data is
        Later: it may come twice, never not.
        """
        key = self._to.keys.get(_from_domain(message), self._to.key)
        octets = _signed(message, key) if key else message
        reused = self._connection is not None
        outcome = self._attempt(sender, recipient, octets)
        if reused and isinstance(outcome, Later) and outcome.server:
            return self._attempt(
                sender, recipient, octets
            )  # it had grown tired of the old connection
        return outcome

    def open(self) -> None:
        """Connect, encrypt and log in. Raises _Unavailable."""
        self._ready()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(smtplib.SMTPException, OSError, ValueError):
                connection.quit()
            connection.close()

    def _attempt(self, sender: str, recipient: str, message: bytes) -> Outcome:
        try:
            connection = self._ready()
        except _Unavailable as error:
            return Later(str(error), server=True)
        watchdog = threading.Timer(self._to.deadline, _hang_up, [connection])
        watchdog.daemon = True
        watchdog.start()
        try:
            outcome = _transaction(connection, sender, recipient, message)
        finally:
            watchdog.cancel()
        self._used += 1
        if not isinstance(outcome, Sent) or self._used >= PER_CONNECTION:
            self.close()
        return outcome

    def _ready(self) -> smtplib.SMTP:
        if self._connection is None:
            self._connection, self._used = self._connect(), 0
        return self._connection

    def _connect(self) -> smtplib.SMTP:
        to = self._to
        try:
            connection = self._dial()
        except (OSError, smtplib.SMTPException) as error:
            raise _Unavailable(f"{to.host}:{to.port}: {_said(error)}") from None
        try:
            connection.ehlo_or_helo_if_needed()
            self._encrypt(connection)
            if to.user:
                connection.login(to.user, to.password)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            connection.close()
            raise _Unavailable(f"{to.host}:{to.port}: {_said(error)}") from None
        return connection

    def _dial(self) -> smtplib.SMTP:
        to, helo = self._to, self._to.helo or None
        if to.begins_with_tls:
            return smtplib.SMTP_SSL(
                to.host, to.port, helo, timeout=to.timeout, context=self._context()
            )
        return smtplib.SMTP(to.host, to.port, helo, timeout=to.timeout)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._to.tls == "opportunistic":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _encrypt(self, connection: smtplib.SMTP) -> None:
        """STARTTLS as configured. A password goes in the clear only where TLS is switched off."""
        if self._to.tls == "none" or self._to.begins_with_tls:
            return
        if connection.has_extn("starttls"):
            connection.starttls(context=self._context())
            connection.ehlo()
        elif self._to.tls == "verify" or self._to.user:
            raise smtplib.SMTPNotSupportedError("the server does not offer STARTTLS")


def _signed(message: bytes, key: SigningKey) -> bytes:
    from dmarc_milter.core.dkim.signing import sign  # its library takes long to load

    return sign(message, key)


def _from_domain(message: bytes) -> str:
    """The domain of the From that we have written: its address is the last thing in the field."""
    found = FROM.search(message[:MAX_HEAD])
    return found[1].decode("ascii") if found else ""


def _hang_up(connection: smtplib.SMTP) -> None:
    """The mail's time is over: whoever waits on the socket is woken."""
    with contextlib.suppress(OSError):
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)


def _transaction(connection: smtplib.SMTP, sender: str, recipient: str, message: bytes) -> Outcome:
    """MAIL, RCPT, DATA. A reply to MAIL is about us or our sender, so about the server's state; one
    after RCPT is about this mail."""
    try:
        code, text = connection.mail(sender)
        if code != 250:
            return Later(_reply(code, text), server=True)
        code, text = connection.rcpt(recipient)
        if code not in (250, 251):
            return _judged(code, text, at_rcpt=True)
        code, text = connection.data(message)
    except smtplib.SMTPDataError as error:
        return _judged(error.smtp_code, error.smtp_error)
    except (OSError, smtplib.SMTPException, ValueError) as error:
        return Later(f"the connection broke: {_said(error)}")
    return Sent(_reply(code, text)) if code == 250 else _judged(code, text)


def _judged(code: int, text: bytes | str, *, at_rcpt: bool = False) -> Outcome:
    reply = _reply(code, text)
    if 500 <= code <= 599:
        address = refuses_recipient(reply) if at_rcpt else status(reply) in NO_SUCH_ADDRESS
        return Refused(reply, address, at_rcpt)
    return Later(reply, server=code == 421)


def _said(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return _reply(error.smtp_code, error.smtp_error)
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror, MAX_REPLY)
    return printable(" ".join(str(error).split()) or type(error).__name__, MAX_REPLY)


def _reply(code: int, text: bytes | str) -> str:
    """One line of printable ASCII, whatever the server sent."""
    plain = text.decode("latin-1") if isinstance(text, bytes) else text
    return printable(" ".join(f"{code} {plain[:2000]}".split()), MAX_REPLY)
