"""An MTA's side of the milter protocol (version 6, and 2), written from the protocol's description
for black-box tests.

    with MilterClient(("127.0.0.1", 8893)) as mta:
        mta.negotiate()
        mta.connect("mx.sender.example", "192.0.2.1")
        mta.helo("mx.sender.example")
        answer = mta.message([("From", " a@sender.example")], b"Hello\r\n",
        mail_from="<a@sender.example>", rcpt=["<b@test.example>"])
        answer.code, answer.headers

`message` sends a whole message; `mail`, `rcpt`, `header`, `eoh`, `body`, `eom`, `abort`, `quit`,
`quit_nc` send its parts in any order, and `packet` any octets. Header fields are (name, value) as a
milter gets them with leading space: " value".
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

ADDHDRS, CHGBODY, ADDRCPT, DELRCPT, CHGHDRS, QUARANTINE, CHGFROM, ADDRCPT_PAR, SETSYMLIST = (
    1 << bit for bit in range(9)
)
ALL_ACTIONS = 0x1FF
NO_CONNECT, NO_HELO, NO_MAIL, NO_RCPT, NO_BODY, NO_HEADERS, NO_EOH = (1 << bit for bit in range(7))
NR_HEADER, NO_UNKNOWN, NO_DATA, SKIP, RCPT_REJ = (1 << bit for bit in range(7, 12))
NR_CONNECT, NR_HELO, NR_MAIL, NR_RCPT, NR_DATA, NR_UNKNOWN, NR_EOH, NR_BODY, LEADSPC = (
    1 << bit for bit in range(12, 21)
)
ALL_STEPS = 0x1FFFFF
OLD_STEPS = 0x7F
CHUNK = 65535

STEP = {
    "C": (NO_CONNECT, NR_CONNECT),
    "H": (NO_HELO, NR_HELO),
    "M": (NO_MAIL, NR_MAIL),
    "R": (NO_RCPT, NR_RCPT),
}
STEP |= {
    "L": (NO_HEADERS, NR_HEADER),
    "N": (NO_EOH, NR_EOH),
    "B": (NO_BODY, NR_BODY),
    "T": (NO_DATA, NR_DATA),
}

Field = tuple[str | bytes, str | bytes]


class Gone(ConnectionError):
    """The milter closed the connection, as it may: the MTA then applies its default action."""


@dataclass(frozen=True, slots=True)
class Modification:
    """A packet that the milter sent at end of message."""

    command: str
    data: bytes


@dataclass(slots=True)
class Answer:
    """The final answer to one message, and the header block as the MTA would have it then."""

    command: str
    """c continue, a accept, r reject, t tempfail, d discard, y reply with text, s skip"""
    text: str = ""
    """The reply's text where there is one."""
    modifications: tuple[Modification, ...] = ()
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    quarantined: bytes | None = None

    @property
    def code(self) -> int:
        """The SMTP code that the client would see."""
        if self.command == "y":
            return int(self.text[:3])
        return {"c": 250, "a": 250, "d": 250, "r": 550, "t": 451}[self.command]

    def values(self, name: str) -> list[str]:
        """The values of the fields of this name, top first."""
        return [
            value.decode("utf-8", "replace")
            for each, value in self.headers
            if each.lower() == name.lower().encode()
        ]


class MilterClient:
    """One connection to a milter."""

    def __init__(self, address: tuple[str, int] | str, *, timeout: float = 30.0) -> None:
        self.sock = self._connected(address, timeout)
        self.actions = ALL_ACTIONS
        self.steps = 0
        self.version = 6
        self.symlists: dict[int, str] = {}
        self._headers: list[tuple[bytes, bytes]] = []
        self._skipping = False

    @staticmethod
    def _connected(address: tuple[str, int] | str, timeout: float) -> socket.socket:
        if isinstance(address, str):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(timeout)
            try:
                sock.connect(address)
            except OSError:
                sock.close()
                raise
        else:
            sock = socket.create_connection(address, timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    # -- packets -----------------------------------------------------------------------------------

    def send(self, command: str, data: bytes = b"") -> None:
        """One packet, without waiting for anything."""
        self.raw(struct.pack(">I", len(data) + 1) + command.encode() + data)

    def raw(self, octets: bytes) -> None:
        """Any octets. Raises Gone."""
        try:
            self.sock.sendall(octets)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Gone(str(error)) from None

    def receive(self) -> tuple[str, bytes]:
        """One packet: (command, data). Raises Gone."""
        length = struct.unpack(">I", self._exactly(4))[0]
        packet = self._exactly(length)
        return packet[:1].decode("latin-1"), packet[1:]

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            try:
                part = self.sock.recv(min(count - len(parts), 1 << 20))
            except ConnectionResetError as error:
                raise Gone(str(error)) from None
            if not part:
                raise Gone("closed by the milter")
            parts += part
        return bytes(parts)

    def packet(self, command: str, data: bytes = b"") -> Answer | None:
        """One packet and its reply, as negotiated: None when the step has no reply or is not
        wanted."""
        no_step, no_reply = STEP.get(command, (0, 0))
        if self.steps & no_step:
            return None
        self.send(command, data)
        if self.steps & no_reply:
            return None
        return self.reply()

    def reply(self) -> Answer:
        """Read up to the final answer of a step, modifications included."""
        modifications = []
        while True:
            command, data = self.receive()
            if command == "p":
                continue
            if command in "hmiqbe+-2":
                modifications.append(Modification(command, data))
                continue
            return Answer(
                command, data.rstrip(b"\0").decode("utf-8", "replace"), tuple(modifications)
            )

    # -- steps -------------------------------------------------------------------------------------

    def negotiate(
        self, *, version: int = 6, actions: int = ALL_ACTIONS, steps: int | None = None
    ) -> None:
        """Offer `actions` and `steps`; what the milter chose is in self.actions, self.steps,
        self.symlists."""
        offered = (ALL_STEPS if version >= 6 else OLD_STEPS) if steps is None else steps
        self.send("O", struct.pack(">III", version, actions, offered))
        command, data = self.receive()
        if command != "O":
            raise Gone(f"negotiation answered by {command!r}")
        self.version, self.actions, self.steps = struct.unpack(">III", data[:12])
        rest = data[12:]
        while len(rest) >= 5:
            stage = struct.unpack(">I", rest[:4])[0]
            names, _, rest = rest[4:].partition(b"\0")
            self.symlists[stage] = names.decode()
        if self.steps & ~offered:
            raise AssertionError(
                f"the milter took steps that were not offered: {self.steps & ~offered:#x}"
            )

    def macros(self, command: str, values: Mapping[str, str | bytes]) -> None:
        """Macros for the next step `command`."""
        parts = [part for name, value in values.items() for part in (name.encode(), _octets(value))]
        if parts:
            self.send("D", command.encode() + b"".join(part + b"\0" for part in parts))

    def connect(
        self,
        hostname: str | bytes,
        address: str | None,
        port: int = 25,
        *,
        family: str = "",
        macros: Mapping[str, str] = {},
    ) -> Answer | None:
        """`family`: 4, 6, L (unix, address is the path) or U (unknown); guessed when empty."""
        self.macros("C", macros)
        family = family or ("U" if address is None else "6" if ":" in address else "4")
        data = _octets(hostname) + b"\0" + family.encode()
        if family != "U":
            shown = f"IPv6:{address}" if family == "6" else address or ""
            data += struct.pack(">H", port) + shown.encode() + b"\0"
        return self.packet("C", data)

    def helo(self, name: str | bytes, *, macros: Mapping[str, str] = {}) -> Answer | None:
        self.macros("H", macros)
        return self.packet("H", _octets(name) + b"\0")

    def mail(
        self, argument: str | bytes, *parameters: str | bytes, macros: Mapping[str, str] = {}
    ) -> Answer | None:
        self.macros("M", macros)
        self._headers = []
        self._skipping = False
        return self.packet("M", b"".join(_octets(each) + b"\0" for each in (argument, *parameters)))

    def rcpt(
        self, argument: str | bytes, *parameters: str | bytes, macros: Mapping[str, str] = {}
    ) -> Answer | None:
        self.macros("R", macros)
        return self.packet("R", b"".join(_octets(each) + b"\0" for each in (argument, *parameters)))

    def data(self, *, macros: Mapping[str, str] = {}) -> Answer | None:
        self.macros("T", macros)
        return self.packet("T")

    def header(self, name: str | bytes, value: str | bytes) -> Answer | None:
        """`value` with its leading space; it is taken off where the milter did not ask for it."""
        shown = _octets(value)
        self._headers.append((_octets(name), shown))
        if not self.steps & LEADSPC:
            shown = shown.removeprefix(b" ")
        return self.packet("L", _octets(name) + b"\0" + shown + b"\0")

    def eoh(self, *, macros: Mapping[str, str] = {}) -> Answer | None:
        self.macros("N", macros)
        return self.packet("N")

    def body(self, octets: bytes, *, chunk: int = CHUNK) -> Answer | None:
        """The body in pieces; stops when the milter says skip."""
        answer = None
        for start in range(0, len(octets), chunk):
            if self._skipping:
                break
            answer = self.packet("B", octets[start : start + chunk])
            self._skipping = answer is not None and answer.command == "s"
        return answer

    def eom(self, last: bytes = b"", *, macros: Mapping[str, str] = {}) -> Answer:
        """End of message; the answer holds the header block after the milter's changes."""
        self.macros("E", macros)
        self.send("E", last)
        answer = self.reply()
        answer.headers = list(self._headers)
        for each in answer.modifications:
            self._apply(each, answer)
        return answer

    def abort(self) -> None:
        self.send("A")

    def quit(self) -> None:
        self.send("Q")

    def quit_nc(self) -> None:
        """The connection to the milter is used for another SMTP client."""
        self.send("K")

    def message(
        self,
        headers: Iterable[Field],
        body: bytes = b"Hello.\r\n",
        *,
        mail_from: str | bytes = "<any@attack.example>",
        rcpt: Sequence[str | bytes] = ("<v@example.com>",),
        queue_id: str = "4TEST1",
        macros: Mapping[str, str] = {},
        chunk: int = CHUNK,
    ) -> Answer:
        """A whole message, as Postfix gives it: the queue id is known from the header on."""
        self.mail(mail_from, macros=macros)
        for each in rcpt:
            self.rcpt(each)
        self.data()
        for name, value in headers:
            self.header(name, value)
        known = {"i": queue_id} if queue_id else {}
        self.eoh(macros=known)
        self.body(body, chunk=chunk)
        return self.eom(macros=known)

    # -- the MTA's header block --------------------------------------------------------------------

    def _apply(self, change: Modification, answer: Answer) -> None:
        """As Postfix does: indexes count the fields of the same name, and a removed field is gone
        at once."""
        if change.command == "q":
            answer.quarantined = change.data.rstrip(b"\0")
            self._allowed(QUARANTINE)
        elif change.command in "hi":
            self._allowed(ADDHDRS)
            index, data = (
                (struct.unpack(">I", change.data[:4])[0], change.data[4:])
                if change.command == "i"
                else (None, change.data)
            )
            name, value = data.split(b"\0")[:2]
            shown = value if self.steps & LEADSPC else b" " + value
            answer.headers.insert(
                len(answer.headers) if index is None else min(index, len(answer.headers)),
                (name, shown),
            )
        elif change.command == "m":
            self._allowed(CHGHDRS)
            index = struct.unpack(">I", change.data[:4])[0]
            name, value = change.data[4:].split(b"\0")[:2]
            places = [
                place
                for place, each in enumerate(answer.headers)
                if each[0].rstrip(b" \t").lower() == name.lower()
            ]
            if index < 1 or index > len(places):
                raise AssertionError(
                    f"header change of {name!r} {index}, but there are {len(places)}"
                )
            if value:
                answer.headers[places[index - 1]] = (name, value)
            else:
                del answer.headers[places[index - 1]]
        else:
            raise AssertionError(f"a change that was never asked for: {change}")

    def _allowed(self, action: int) -> None:
        if not self.actions & action:
            raise AssertionError(f"action {action:#x} was not negotiated")


def _octets(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
