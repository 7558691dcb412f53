"""An SMTP server that keeps what it takes and says what the test tells it to: 4xx, 5xx, or nothing,
before or after the mail is safe."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Mail(NamedTuple):
    """`sender` and `recipient` without angle brackets; `message` with CRLF and without dot
    stuffing."""

    sender: str
    recipient: str
    message: bytes


Answer = Callable[[str, str], str]
"""(stage, argument) -> what to say, "" for the usual; "drop" closes the connection without a word.

Stages: connect, ehlo, auth, mail, rcpt, data (the command), end (the mail has come, and is kept if
the answer is "" or "drop after").
"""


def usual(_stage: str, _argument: str) -> str:
    return ""


@dataclass
class Sink:
    """What came in. `answer` may be changed at any moment. `file`: keep mails there instead, for a
    sink that outlives its readers."""

    mails: list[Mail] = field(default_factory=list)
    answer: Answer = usual
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    tls: ssl.SSLContext | None = None
    """STARTTLS is offered when given, and AUTH PLAIN."""
    at_once: bool = False
    """TLS begins with the first byte instead, as at port 465."""
    encrypted: list[bool] = field(default_factory=list)
    """For each mail kept."""
    logins: list[str] = field(default_factory=list)
    """"user:password"."""
    log: Path | None = None
    """Where "RECIPIENT MESSAGE-ID" is noted for every mail kept."""

    def keep(self, mail: Mail, *, encrypted: bool) -> None:
        with self.lock:
            self.mails.append(mail)
            self.encrypted.append(encrypted)
            if self.log is not None:
                found = re.search(rb"\r\nMessage-ID: <([^>\r\n]*)>", mail.message)
                with self.log.open("ab") as file:
                    file.write(b"%s %s\n" % (mail.recipient.encode(), found[1] if found else b"-"))
                    file.flush()
                    os.fsync(file.fileno())

    def to(self, recipient: str) -> list[Mail]:
        with self.lock:
            return [each for each in self.mails if each.recipient == recipient]


class _Dropped(Exception):
    pass


class _Handler(socketserver.StreamRequestHandler):
    sink: Sink
    timeout = 30

    def handle(self) -> None:
        self.sender = self.recipient = ""
        try:
            if self.sink.tls and self.sink.at_once:
                self._wrap(self.sink.tls)
            self._say("connect", "", "220 sink.example ESMTP")
            while line := self.rfile.readline(2000):
                text = line.decode("latin-1").rstrip("\r\n")
                if not self._command(text[:4].upper(), text):
                    return
        except (_Dropped, OSError):
            return

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.connection.close()

    def _command(self, verb: str, text: str) -> bool:
        """False at QUIT."""
        match verb:
            case "EHLO" | "HELO":
                offered = "250-AUTH PLAIN\r\n" if self.sink.tls else ""
                if self.sink.tls and not self.sink.at_once:
                    offered += "250-STARTTLS\r\n"
                self._say("ehlo", text[5:], f"250-sink.example\r\n{offered}250 8BITMIME")
            case "STAR" if self.sink.tls:
                self._encrypt(self.sink.tls)
            case "AUTH":
                _, user, password = base64.b64decode(text.rpartition(" ")[2]).decode().split("\0")
                self.sink.logins.append(f"{user}:{password}")
                self._say("auth", user, "235 2.7.0 Ok")
            case "MAIL":
                self.sender = text.partition("<")[2].partition(">")[0]
                self._say("mail", self.sender, "250 2.1.0 Ok")
            case "RCPT":
                self.recipient = text.partition("<")[2].partition(">")[0]
                self._say("rcpt", self.recipient, "250 2.1.5 Ok")
            case "DATA":
                if self._say("data", self.recipient, "354 go on").startswith("354"):
                    self._take(self.sender, self.recipient)
            case _:
                self._write("221 bye" if verb == "QUIT" else "250 Ok")
        return verb != "QUIT"

    def _encrypt(self, context: ssl.SSLContext) -> None:
        self._write("220 go on")
        self._wrap(context)

    def _wrap(self, context: ssl.SSLContext) -> None:
        self.request = context.wrap_socket(self.request, server_side=True)
        self.setup()

    def _take(self, sender: str, recipient: str) -> None:
        lines = []
        while (line := self.rfile.readline()) and line != b".\r\n":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        if not line:
            return
        said = self.sink.answer("end", recipient)
        if said in ("", "drop after"):
            self.sink.keep(
                Mail(sender, recipient, b"".join(lines)),
                encrypted=isinstance(self.connection, ssl.SSLSocket),
            )
        if said.startswith("drop"):
            raise _Dropped
        self._write(said or "250 2.0.0 Ok: queued as SINK")

    def _say(self, stage: str, argument: str, usual: str) -> str:
        said = self.sink.answer(stage, argument) or usual
        if said == "drop":
            raise _Dropped
        self._write(said)
        return said

    def _write(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


@contextmanager
def smtp_sink(
    answer: Answer = usual, *, log: Path | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Sink]:
    """A sink on a free port of 127.0.0.1 as long as the block lasts."""
    sink = Sink(answer=answer, log=log, tls=tls)
    handler = type("Handler", (_Handler,), {"sink": sink})
    with _Server(("127.0.0.1", 0), handler) as server:
        sink.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield sink
        finally:
            server.shutdown()
            thread.join()
