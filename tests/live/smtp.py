"""A small SMTP client that sends exactly the octets it is given and keeps every reply, for
pretending to be any client."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Reply:
    code: int
    text: str
    """All lines of the reply, enhanced code included, joined by a space."""

    @property
    def queue_id(self) -> str:
        """The queue id in a reply to end of data; "" when there is none."""
        found = re.search(r"queued as (\S+)|^2\.0\.0 (\S+) Message accepted", self.text)
        return next(filter(None, found.groups()), "") if found else ""


@dataclass(frozen=True, slots=True)
class Client:
    """Who a connection pretends to be. `login` is a submission client's authenticated name."""

    address: str = "203.0.113.7"
    helo: str = "mail.sender.example"
    login: str = ""


class Smtp:
    """One SMTP connection. The socket may be given, so that it can come from another address or
    network namespace."""

    def __init__(
        self, port: int, *, address: str = "127.0.0.1", connected: socket.socket | None = None
    ) -> None:
        self.socket = connected or socket.create_connection((address, port), timeout=60)
        self.socket.settimeout(60)
        self._file = self.socket.makefile("rb")
        self.greeting = self.reply()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def reply(self) -> Reply:
        """The next reply. 0 as its code means that the server closed the connection."""
        lines: list[str] = []
        while True:
            line = self._file.readline(65536).decode("utf-8", "replace").rstrip("\r\n")
            if len(line) < 3:
                return Reply(0, " ".join(lines))
            lines.append(line[4:])
            if line[3:4] != "-":
                return Reply(int(line[:3]), " ".join(lines))

    def command(self, line: str) -> Reply:
        self.send(line.encode("utf-8", "surrogateescape") + b"\r\n")
        return self.reply()

    def become(self, client: Client) -> None:
        """Pretend to be that client by Postfix's XCLIENT, then greet as it does."""
        self.command("EHLO xclient.test.example")
        shown = f"IPV6:{client.address}" if ":" in client.address else client.address
        login = f" LOGIN={client.login}" if client.login else ""
        reply = self.command(f"XCLIENT ADDR={shown} NAME=[UNAVAILABLE]{login}")
        assert reply.code == 220, reply
        self.command(f"EHLO {client.helo}")

    def transaction(
        self, message: bytes, *, mail_from: str, recipients: tuple[str, ...], parameters: str = ""
    ) -> Reply:
        """One message; the first reply that is not what lets it go on, or the reply to its end of
        data. `parameters` are MAIL's."""
        for line in (
            f"MAIL FROM:<{mail_from}>{parameters}",
            *(f"RCPT TO:<{name}>" for name in recipients),
            "DATA",
        ):
            reply = self.command(line)
            if reply.code not in {250, 354}:
                self.command("RSET")
                return reply
        self.send(stuffed(message))
        return self.reply()


def stuffed(message: bytes) -> bytes:
    """The message as SMTP data: CRLF line ends, dots doubled, the end of data (RFC 5321 4.5.2)."""
    lines = message.replace(b"\r\n", b"\n").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return (
        b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines)
        + b".\r\n"
    )
