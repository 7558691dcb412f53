"""Names and data of records in DNS packets, read strictly and in bounded time (RFC 1035 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from socket import AF_INET, AF_INET6, inet_ntop
from struct import Struct
from typing import Any

POINTER_LIMIT = 16  # compression pointers in one name; servers use one, rarely two
PREFERENCE = Struct("!H")

# Printable ASCII but for the wildcard and the backslash, which every text form of a name reads
# differently.
ASKABLE = bytes(set(range(0x21, 0x7F)) - set(b".*\\"))


class MalformedAnswer(Exception):
    """The packet is not a DNS message that can be read, or holds more than is accepted."""


def read_name(packet: bytes, at: int) -> tuple[bytes, int]:
    """The name at an offset in lower-case wire form without the final zero octet, and the offset
    behind it.

    A pointer must point to what stands whole before the name it is in (a prior occurrence, RFC 1035
    4.1.4), so no packet makes this loop and no label is read out of other fields; and there are few
    of them, so that a long ladder of pointers is not climbed for every record.
    """
    wire = bytearray()
    behind, floor, end, jumps = 0, at, len(packet), 0
    while length := packet[at]:
        if length < 64:
            wire += packet[at : at + 1 + length]
            at += 1 + length
            if at >= end:
                raise MalformedAnswer("a label beyond the end of its name")
            if len(wire) > 254:
                raise MalformedAnswer("a name over 255 octets")
            continue
        if length < 0xC0:
            raise MalformedAnswer("an unknown kind of label")
        behind = behind or at + 2
        at = (length & 0x3F) << 8 | packet[at + 1]
        jumps += 1
        if at >= floor or at < 12 or jumps > POINTER_LIMIT:
            raise MalformedAnswer("a pointer that does not point back")
        floor, end = at, floor
    return bytes(wire).lower() + b"\0", behind or at + 1


def to_text(name: bytes) -> str:
    """A wire name as dotted text; Malformed unless it can be asked again as it stands."""
    labels = []
    at = 0
    while length := name[at]:
        label = name[at + 1 : at + 1 + length]
        if label.translate(None, ASKABLE):
            raise MalformedAnswer("a label with odd octets")
        labels.append(label)
        at += 1 + length
    return b".".join(labels).decode("ascii")


def read_txt(packet: bytes, at: int, length: int) -> bytes:
    """The character-strings of one record, joined without separator (RFC 7208 3.3)."""
    if length and packet[at] == length - 1:
        return packet[at + 1 : at + length]
    parts = []
    end = at + length
    while at < end:
        size = packet[at]
        parts.append(packet[at + 1 : at + 1 + size])
        at += 1 + size
    if at != end:
        raise MalformedAnswer("a character-string beyond its record")
    return b"".join(parts)


def read_a(packet: bytes, at: int, length: int) -> str:
    """An IPv4 address; inet_ntop raises ValueError unless there are four octets."""
    return inet_ntop(AF_INET, packet[at : at + length])


def read_aaaa(packet: bytes, at: int, length: int) -> str:
    """An IPv6 address as RFC 5952 writes it."""
    return inet_ntop(AF_INET6, packet[at : at + length])


def read_whole_name(packet: bytes, at: int, length: int) -> bytes:
    """The name that is all of a record's data (RFC 1035 3.3), in wire form."""
    name, behind = read_name(packet, at)
    if behind != at + length:
        raise MalformedAnswer("a name that does not fill its record")
    return name


def read_host(packet: bytes, at: int, length: int) -> str | None:
    """A host name; None for one with octets that nothing could ask for."""
    name = read_whole_name(packet, at, length)
    try:
        return to_text(name)
    except MalformedAnswer:
        return None


def read_mx(packet: bytes, at: int, length: int) -> tuple[int, str] | None:
    """(preference, exchange); the exchange of a null MX is "" (RFC 7505)."""
    host = read_host(packet, at + 2, length - 2)
    return None if host is None else (PREFERENCE.unpack_from(packet, at)[0], host)


READERS: Mapping[int, Callable[[bytes, int, int], Any]] = {
    1: read_a,
    2: read_host,
    12: read_host,
    15: read_mx,
    16: read_txt,
    28: read_aaaa,
}
