"""The packets that an MTA sends over the milter protocol, versions 2 to 6, as values.

A packet is four bytes of length, network order, one byte of command, and the command's data; the
length counts the command and the data. The protocol has no RFC: this follows what Postfix and
Sendmail send and what the documentation of Sendmail's libmilter says. session/protocol.py is the
rest of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

MAX_MACRO = 1024
"""Bytes of a macro's value that are kept."""
MACRO_LISTS = (
    (0, "j v {daemon_name} {client_addr}"),
    (2, "i {auth_authen} {daemon_name} {client_addr}"),
    (5, "i"),
    (6, "i"),
)
"""(SMFIM_*, names): the macros that are asked for at CONNECT, MAIL, end of message, end of
headers."""
_ASKED_FOR = frozenset(" ".join(names for _, names in MACRO_LISTS).split())
_OFFER = struct.Struct(">III")


class ProtocolError(Exception):
    """The MTA's packet cannot be meant: the connection ends. `str()` is one plain line."""


class OptNeg(NamedTuple):
    """The MTA's offer (SMFIC_OPTNEG)."""

    version: int
    changes: int
    steps: int


class Macro(NamedTuple):
    """Macros for the step whose command is `step` (SMFIC_MACRO)."""

    step: bytes
    values: dict[str, str]


class Connect(NamedTuple):
    """An SMTP client. `address` is None where it has none: a program on the MTA's host, or unknown
    to the MTA."""

    hostname: bytes
    address: str | None


class Helo(NamedTuple):
    name: str


class Mail(NamedTuple):
    argument: bytes
    parameters: tuple[bytes, ...]


class Rcpt(NamedTuple):
    argument: bytes
    parameters: tuple[bytes, ...]


class Data(NamedTuple):
    """The SMTP command DATA."""


class Header(NamedTuple):
    """One header field; the value as the MTA gave it: see Agreement.value in protocol.py."""

    name: bytes
    value: bytes


class EndOfHeaders(NamedTuple):
    pass


class Body(NamedTuple):
    chunk: bytes


class EndOfMessage(NamedTuple):
    """`last`: the last piece of the body, where it comes with the end (Postfix)."""

    last: bytes


class Abort(NamedTuple):
    """The message is given up; the connection goes on."""


class Quit(NamedTuple):
    """The connection ends."""


class QuitNewConnection(NamedTuple):
    """The client has gone; CONNECT of another follows on this connection (SMFIC_QUIT_NC)."""


class Unknown(NamedTuple):
    """An SMTP command that the MTA does not know (SMFIC_UNKNOWN)."""

    line: bytes


class Unrecognized(NamedTuple):
    """A packet of a command that the protocol does not have: skipped."""

    command: bytes


Packet = (
    OptNeg
    | Macro
    | Connect
    | Helo
    | Mail
    | Rcpt
    | Data
    | Header
    | EndOfHeaders
    | Body
    | EndOfMessage
    | Abort
    | Quit
    | QuitNewConnection
    | Unknown
    | Unrecognized
)


def _opt_neg(data: bytes) -> OptNeg:
    if len(data) < _OFFER.size:
        raise ProtocolError("the offer is too short")
    return OptNeg(*_OFFER.unpack_from(data))


def read_macros(data: bytes) -> Macro:
    """Of macros that were asked for; a name without a value, or what ends without a NUL, is left
    out."""
    # No part of a character is a NUL: decoded together they are what each is by itself.
    parts = text(data[1:]).split("\0")
    values = {}
    for given, value in zip(parts[:-1:2], parts[1:-1:2], strict=False):
        if (name := _macro_name(given)) in _ASKED_FOR:
            values[name] = value if len(value) <= MAX_MACRO // 4 else _cut(value)
    return Macro(data[:1], values)


def _cut(value: str) -> str:
    return text(value.encode("utf-8", "surrogateescape")[:MAX_MACRO])


def _macro_name(name: str) -> str:
    """`{i}` and `i` are one macro (sendmail's configuration)."""
    return name[1] if len(name) == 3 and name[0] == "{" and name[2] == "}" else name


def _connect(data: bytes) -> Connect:
    hostname, nul, rest = data.partition(b"\0")
    family = rest[:1]
    if not nul or not family:
        raise ProtocolError("CONNECT is cut off")
    if family == b"U":
        return Connect(hostname, None)
    if family not in (b"4", b"6", b"L"):
        raise ProtocolError("CONNECT has no known address family")
    if len(rest) < 5 or rest[-1:] != b"\0":
        raise ProtocolError("CONNECT is cut off")
    return Connect(hostname, None if family == b"L" else text(rest[3:].partition(b"\0")[0]))


def _helo(data: bytes) -> Helo:
    return Helo(text(data.partition(b"\0")[0]))


def _arguments(data: bytes, command: str) -> tuple[bytes, tuple[bytes, ...]]:
    argument, *parameters = data.split(b"\0")
    if not parameters:
        raise ProtocolError(f"{command} is cut off")
    return argument, tuple(parameters[:-1])


def _header(data: bytes) -> Header:
    name, nul, value = data.partition(b"\0")
    if not nul or value[-1:] != b"\0":
        raise ProtocolError("a header field is cut off")
    return Header(name, value[:-1])


READERS: dict[int, Callable[[bytes], Packet]] = {
    ord("O"): _opt_neg,
    ord("D"): read_macros,
    ord("C"): _connect,
    ord("H"): _helo,
    ord("M"): lambda data: Mail(*_arguments(data, "MAIL")),
    ord("R"): lambda data: Rcpt(*_arguments(data, "RCPT")),
    ord("T"): lambda _: Data(),
    ord("L"): _header,
    ord("N"): lambda _: EndOfHeaders(),
    ord("B"): Body,
    ord("E"): EndOfMessage,
    ord("A"): lambda _: Abort(),
    ord("Q"): lambda _: Quit(),
    ord("K"): lambda _: QuitNewConnection(),
    ord("U"): lambda data: Unknown(data.partition(b"\0")[0]),
}
"""By command: the packet of its data. Raise ProtocolError."""


def text(octets: bytes) -> str:
    """What an MTA sends need not be UTF-8."""
    return octets.decode("utf-8", "surrogateescape")
