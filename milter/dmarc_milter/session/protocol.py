"""The milter protocol without I/O: bytes to packets, the negotiation, the macros, the answer.

The MTA begins with an offer (OptNeg) of what it can do; `negotiate` takes of it what we use.

    decoder.feed(octets)
    while (packet := decoder.next_packet()) is not None: ...
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from enum import IntFlag
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from dmarc_milter.core.actions.plan import (
    Action,
    DeleteHeader,
    InsertHeader,
    Quarantine,
    Reply,
)
from dmarc_milter.session.packets import (
    MACRO_LISTS,
    READERS,
    Abort,
    Connect,
    EndOfHeaders,
    Header,
    Helo,
    Macro,
    Mail,
    OptNeg,
    Packet,
    ProtocolError,
    Quit,
    QuitNewConnection,
    Rcpt,
    Unrecognized,
    read_macros,
)

MAX_DATA = 1 << 20
"""Bytes of a packet's data. A header field comes in one packet; libmilter's own default of 64 KiB
is too small for some."""
MAX_FIRST = 1024
"""Bytes of the first packet, the offer, which has 12: a stranger must not make us hold more."""
HEADER, HEADER_MACROS = ord("L"), b"DL"
HEADER_STARTS = (b"L", HEADER_MACROS)
MIN_VERSION, MAX_VERSION = 2, 6
_LENGTH, _OFFER = struct.Struct(">I"), struct.Struct(">III")


NOT_ENOUGH = "the MTA does not allow header changes and quarantine"


class Change(IntFlag):
    """What a filter may do to a message (SMFIF_*)."""

    ADD_HEADERS = 0x01
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    SET_MACRO_LIST = 0x100


class Step(IntFlag):
    """What the MTA leaves out or allows where both agree (SMFIP_*)."""

    NO_UNKNOWN = 1 << 8
    NO_DATA = 1 << 9
    SKIP = 1 << 10
    SILENT_HEADER = 1 << 7
    SILENT_CONNECT = 1 << 12
    SILENT_HELO = 1 << 13
    SILENT_MAIL = 1 << 14
    SILENT_RCPT = 1 << 15
    SILENT_END_OF_HEADERS = 1 << 18
    LEADING_SPACE = 1 << 20


CHANGES = Change.ADD_HEADERS | Change.CHANGE_HEADERS | Change.QUARANTINE
STEPS = (
    Step.NO_UNKNOWN
    | Step.NO_DATA
    | Step.SKIP
    | Step.SILENT_CONNECT
    | Step.SILENT_HELO
    | Step.SILENT_MAIL
    | Step.SILENT_RCPT
    | Step.SILENT_HEADER
    | Step.SILENT_END_OF_HEADERS
    | Step.LEADING_SPACE
)
"""Body pieces are answered: only an answer can say that no more of the body is wanted."""


class Decoder:
    """Packets out of bytes that come in pieces of any size. Holds what `feed` gave and no packet
    took, at most one packet beyond that."""

    def __init__(self) -> None:
        self._bytes = b""
        self._at = 0
        """The next packet begins here."""
        self._part = bytearray()
        """The start of a packet whose end has not come."""
        self._needed = 0
        """How long that packet is, its length included; 0 before its length is known."""
        self._limit = MAX_FIRST

    def feed(self, octets: bytes) -> None:
        """More bytes. Linear in their number, whatever their pieces."""
        if self._at < len(self._bytes):
            self._bytes = self._bytes[self._at :] + octets
        elif self._part:
            self._part += octets
            if len(self._part) < self._needed:
                return
            self._bytes = bytes(self._part)
            self._part.clear()
        else:
            self._bytes = octets
        self._at = 0

    def next_packet(self) -> Packet | None:
        """The next packet, None where more bytes are needed. Raises ProtocolError: nothing that
        follows has a meaning."""
        octets, at = self._bytes, self._at
        left = len(octets) - at
        if left < 4:
            self._keep_part(4)
            return None
        (length,) = _LENGTH.unpack_from(octets, at)
        if not 1 <= length <= self._limit + 1:
            raise ProtocolError(f"a packet of {length} bytes")
        if left < 4 + length:
            self._keep_part(4 + length)
            return None
        self._at = end = at + 4 + length
        command, data = octets[at + 4], octets[at + 5 : end]
        read = READERS.get(command)
        packet = read(data) if read else Unrecognized(bytes((command,)))
        if self._limit == MAX_FIRST:
            self._check_first(packet)
        return packet

    @property
    def is_at_header(self) -> bool:
        """Whether a header field comes next, or macros for one."""
        return self._bytes[self._at + 4 : self._at + 6].startswith(HEADER_STARTS)

    def next_headers(self, most: int) -> tuple[list[tuple[bytes, bytes]], Macro | None]:
        """Names and values of the header fields that come next, `most` at most, as next_packet
        would give them: most packets are such. And the macros of the last, which replace those of
        the others: Postfix sends the same before each. What is wrong with one next_packet will
        say."""
        octets, at, fields = self._bytes, self._at, list[tuple[bytes, bytes]]()
        unpack, find, starts = _LENGTH.unpack_from, octets.find, octets.startswith
        size, longest = len(octets), self._limit + 1
        macros, macros_of_last, has_macros = b"", b"", False
        while at < size - 4 and len(fields) < most:
            if macros and not has_macros and starts(macros, at):
                at += len(macros)
                has_macros = True
                continue
            (length,) = unpack(octets, at)
            start, end = at + 5, at + 4 + length
            if end > size or not 1 <= length <= longest:
                break
            if octets[at + 4] == HEADER:
                nul = find(b"\0", start, end - 1)
                if nul < 0 or octets[end - 1]:
                    break
                fields.append((octets[start:nul], octets[nul + 1 : end - 1]))
                self._at, macros_of_last, has_macros = end, macros, False
            elif starts(HEADER_MACROS, at + 4) and not has_macros:
                macros, has_macros = octets[at:end], True
            else:
                break
            at = end
        return fields, read_macros(macros_of_last[5:]) if macros_of_last else None

    def _keep_part(self, needed: int) -> None:
        if self._at < len(self._bytes):
            self._part += self._bytes[self._at :]
        self._bytes, self._at, self._needed = b"", 0, needed

    def _check_first(self, packet: Packet) -> None:
        """Nothing has a meaning before the offer, except that the MTA has changed its mind."""
        if isinstance(packet, OptNeg):
            self._limit = MAX_DATA
        elif not isinstance(packet, Quit):
            raise ProtocolError("no negotiation")


class Agreement(NamedTuple):
    """What the MTA and we have agreed to."""

    version: int
    changes: int
    steps: int
    silent: frozenset[type[Packet]]
    """The packets that are not answered."""

    @property
    def is_enough(self) -> bool:
        """Whether the MTA allows what a message may need."""
        return self.changes == CHANGES

    def value(self, given: bytes) -> bytes:
        """A header field's value as the message has it: without LEADING_SPACE the MTA took one
        space off."""
        return given if self.steps & Step.LEADING_SPACE else b" " + given


_NEVER_ANSWERED: frozenset[type[Packet]] = frozenset(
    {OptNeg, Macro, Abort, Quit, QuitNewConnection, Unrecognized}
)
_SILENCE: tuple[tuple[Step, type[Packet]], ...] = (
    (Step.SILENT_CONNECT, Connect),
    (Step.SILENT_HELO, Helo),
    (Step.SILENT_MAIL, Mail),
    (Step.SILENT_RCPT, Rcpt),
    (Step.SILENT_HEADER, Header),
    (Step.SILENT_END_OF_HEADERS, EndOfHeaders),
)


@lru_cache(16)  # an MTA makes the same offer on every connection
def negotiate(offer: OptNeg) -> tuple[Agreement, bytes]:
    """The agreement, and the answer that tells the MTA. Raises ProtocolError for a version that is
    too old."""
    if offer.version < MIN_VERSION:
        raise ProtocolError(f"version {offer.version} of the milter protocol")
    version = min(offer.version, MAX_VERSION)
    changes, steps = offer.changes & CHANGES, offer.steps & STEPS
    silent = _NEVER_ANSWERED | {packet for step, packet in _SILENCE if steps & step}
    lists = b""
    if offer.changes & Change.SET_MACRO_LIST:
        lists = b"".join(
            _LENGTH.pack(stage) + names.encode() + b"\0" for stage, names in MACRO_LISTS
        )
    agreement = Agreement(version, changes, steps, silent)
    return agreement, _packet(b"O", _OFFER.pack(version, changes, steps) + lists)


_MACRO_STEPS = {step: number for number, step in enumerate((b"C", b"H", b"M", b"R", b"T"))}
_MACRO_STEPS |= {b"L": 5, b"N": 6, b"B": 7, b"E": 8}
_AT_MAIL = _MACRO_STEPS[b"M"]
_RESETS: dict[type[Packet], int] = {
    Connect: 0,
    Helo: 1,
    Mail: _AT_MAIL,
    Rcpt: 3,
    Abort: _AT_MAIL,
    QuitNewConnection: 0,
}
"""The first step whose macros end with the packet, unless they came for it."""
_NO_MACROS: Mapping[str, str] = MappingProxyType({})


class MacroTable:
    """The macros of one connection, by the step that they came for; the latest step's value
    counts.

    A command forgets what earlier ones of its kind or of later kinds left, so no client, no
    transaction and no recipient has a macro of the one before.
    """

    def __init__(self) -> None:
        self._steps: list[Mapping[str, str]] = [_NO_MACROS] * len(_MACRO_STEPS)
        self._fresh: set[int] = set()
        """The steps whose macros came since the last command: they belong to the next."""

    def __call__(self, name: str) -> str:
        """The value, "" where the MTA gave none."""
        for values in reversed(self._steps):
            if name in values:
                return values[name]
        return ""

    def add(self, packet: Macro) -> None:
        """Macros for a step replace those that it had."""
        step = _MACRO_STEPS.get(packet.step)
        if step is not None:
            self._steps[step] = packet.values
            self._fresh.add(step)

    def follow(self, packet: Packet) -> None:
        """A packet that is no Macro has come; before it is acted on."""
        first = _RESETS.get(type(packet))
        if first is not None:
            kept = () if isinstance(packet, Abort | QuitNewConnection) else self._fresh
            self._forget(first, kept)
        self._fresh.clear()

    def _forget(self, first: int, kept: Collection[int] = ()) -> None:
        """Of the steps from the first on, but for these."""
        for step in range(first, len(self._steps)):
            if step not in kept:
                self._steps[step] = _NO_MACROS

    def end_message(self) -> None:
        """The message has been answered."""
        self._forget(_AT_MAIL)


CONTINUE = b"\0\0\0\1c"
SKIP = b"\0\0\0\1s"
"""No more of the body is wanted."""
TEMPFAIL = b"\0\0\0\1t"


def answer(actions: Sequence[Action], agreement: Agreement) -> bytes:
    """The packets that answer an end of message. Raises ProtocolError for a change that was not
    agreed to."""
    packets, final = [], CONTINUE
    for action in actions:
        match action:
            case DeleteHeader(name, index):
                _allowed(agreement, Change.CHANGE_HEADERS)
                packets.append(_packet(b"m", _LENGTH.pack(index) + _strings(name, "")))
            case InsertHeader(name, value):
                _allowed(agreement, Change.ADD_HEADERS)
                # Without LEADING_SPACE the MTA puts the space after the colon itself.
                if not agreement.steps & Step.LEADING_SPACE:
                    value = value.removeprefix(" ")
                packets.append(_packet(b"i", _LENGTH.pack(0) + _strings(name, value)))
            case Quarantine(reason):
                _allowed(agreement, Change.QUARANTINE)
                packets.append(_packet(b"q", _strings(reason)))
            case Reply(code, enhanced, text):
                final = _packet(b"y", _strings(f"{code} {enhanced} {text}"))
    return b"".join((*packets, final))


def _allowed(agreement: Agreement, change: Change) -> None:
    if not agreement.changes & change:
        raise ProtocolError(NOT_ENOUGH)


def _strings(*texts: str) -> bytes:
    """Each ends with a NUL, so none may have one inside."""
    return b"".join(
        text.replace("\0", "").encode("utf-8", "surrogateescape") + b"\0" for text in texts
    )


def _packet(command: bytes, data: bytes) -> bytes:
    return _LENGTH.pack(len(data) + 1) + command + data
