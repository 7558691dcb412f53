"""DNS packets: writing the one kind of query that is needed, reading its answer strictly and in
bounded time (RFC 1035 4).

dnspython could do both. On this path it costs several times as much per question
(docs/performance.md), and its parser keeps whatever it is sent. tests/dns/test_wire_oracle.py
compares the two.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from struct import Struct
from typing import Any, NamedTuple

from dmarc_milter.core.mail.domain import is_special_use
from dmarc_milter.core.resolver import NoData, NoSuchName, NoSuchTarget
from dmarc_milter.dns.answer import TYPES, Answer, Key
from dmarc_milter.dns.rdata import (
    ASKABLE,
    READERS,
    MalformedAnswer,
    read_name,
    read_whole_name,
    to_text,
)

CNAME, NS, SOA, OPT, DNAME, TSIG = 5, 2, 6, 41, 39, 250
HOP_LIMIT = 16  # CNAMEs followed for one question, as most resolvers do
# Records of one answer; a resolver hands on thousands over TCP, and no honest name has them.
RECORD_LIMIT = 512
HEADER = Struct("!HHHHHH")
FIXED = Struct("!HHIH")  # type, class, TTL, length of the data
SOA_MINIMUM = Struct("!I")

FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 1, 2, 3, 4, 5
ERRORS = (FORMERR, SERVFAIL, NOTIMP, REFUSED)
BADVERS = 1  # the upper eight bits of response code 16, in the OPT record (RFC 6891 6.1.3)

# Version 0, no flags, 1232 octets: fits every path without fragments (RFC 6891, RFC 9715).
EDNS = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
QUERY_HEADER = b"\x01\0\0\1\0\0\0\0\0\1"  # recursion desired, one question, one additional record
PLAIN_HEADER = (  # the same without OPT: at most 512 octets come back over UDP
    b"\x01\0\0\1\0\0\0\0\0\0"
)

# SPF's %_ is a space in a name to be asked (RFC 7208 7.1); the core lets no other space come this
# far.
ASKABLE_OR_SPACE = ASKABLE + b" "


class ServerRefused(Exception):
    """The server answered, and its answer is that it does not (SERVFAIL, REFUSED, NOTIMP, FORMERR
    ...)."""


def encode_question(key: Key) -> bytes | None:
    """The question section for (name, type), or None if the name cannot be asked.

    The name is lower-case, 1 to 253 octets, labels of 1 to 63 octets (RFC 1035 2.3.4) from
    ASKABLE_OR_SPACE.
    """
    name, rdtype = key
    if not 0 < len(name) <= 253 or not name.isascii():
        return None
    raw = name.encode("ascii")
    if raw.translate(None, ASKABLE_OR_SPACE).strip(b"."):
        return None
    wire = bytearray()
    for label in raw.split(b"."):
        if not 0 < len(label) < 64:
            return None
        wire.append(len(label))
        wire += label
    return b"%b\0\0%c\0\1" % (bytes(wire), TYPES[rdtype])


def encode_query(identifier: bytes, question: bytes, *, edns: bool = True) -> bytes:
    """The query packet; `identifier` is two octets."""
    return (
        b"%b%b%b%b" % (identifier, QUERY_HEADER, question, EDNS)
        if edns
        else b"%b%b%b" % (identifier, PLAIN_HEADER, question)
    )


def is_answer_to(packet: bytes, identifier: bytes, question: bytes) -> bool:
    """Whether the packet answers this query: everything else is ignored as if it had never come
    (CVE-2023-29483).

    A bare error without the question counts: servers that could not read a query answer so.
    """
    if len(packet) < 12 or packet[:2] != identifier or packet[2] & 0xF8 != 0x80:
        return False
    if packet[4:6] == b"\0\1" and (
        packet.startswith(question, 12) or packet[12 : 12 + len(question)].lower() == question
    ):
        return True
    return _is_bare_error(packet)


def _is_bare_error(packet: bytes) -> bool:
    """A header alone, whatever it counts, or with nothing behind it but OPT."""
    rcode = packet[3] & 0x0F
    if len(packet) == 12:
        return rcode in ERRORS
    only_opt = packet[4:12] == b"\0\0\0\0\0\0\0\1" and packet[12:15] == b"\0\0\x29"
    return only_opt and (rcode in ERRORS or packet[17:18] == b"\1")


def opt_flags(packet: bytes) -> int | None:
    """The 32 bits of the OPT record where others have their TTL (RFC 6891 6.1.3); None without a
    readable one."""
    _, questions, *counts = HEADER.unpack_from(packet)[1:]
    try:
        at = 12
        for _ in range(min(questions, 2)):
            at = read_name(packet, at)[1] + 4
        for _ in range(min(sum(counts), 2 * RECORD_LIMIT)):
            at = read_name(packet, at)[1]
            number, _, ttl, length = FIXED.unpack_from(packet, at)
            if number == OPT:
                return int(ttl)
            at += 10 + length
    except (IndexError, MalformedAnswer, struct.error):
        pass
    return None


def denies_opt(packet: bytes, *, known: bool) -> bool:
    """Whether an error may mean that the server does not understand our OPT (RFC 6891 6.1.3, 6.2.2,
    7).

    `known`: it has answered with OPT lately. Then a SERVFAIL without OPT is no such sign; some of
    the old servers give one.
    """
    rcode = packet[3] & 0x0F
    if rcode == SERVFAIL:
        return not known and opt_flags(packet) is None
    return rcode in (FORMERR, NOTIMP) or (opt_flags(packet) or 0) >> 24 == BADVERS


def is_truncated(packet: bytes) -> bool:
    """Whether the TC bit is set: whatever else the packet holds is not to be used (RFC 2181 9)."""
    return bool(packet[2] & 0x02)


def read_answer(packet: bytes, question: bytes, rdtype: str) -> Answer:
    """What the packet, known to answer the question, says about it. Raises MalformedAnswer or
    ServerRefused."""
    rcode = packet[3] & 0x0F
    if rcode not in (0, NXDOMAIN) or packet[4:6] != b"\0\1":
        raise ServerRefused(f"response code {rcode}")
    try:
        return _read(packet, question, rdtype, rcode)
    except (IndexError, ValueError, struct.error):
        raise MalformedAnswer("cut short or of a wrong size") from None


def _read(packet: bytes, question: bytes, rdtype: str, rcode: int) -> Answer:
    _, _, _, answers, authorities, additional = HEADER.unpack_from(packet)
    if answers > 2 * RECORD_LIMIT:
        raise MalformedAnswer("too many records")
    wanted = TYPES[rdtype]
    read_data = READERS[wanted]
    owned: dict[bytes, list[tuple[int, Any]]] = {}
    aliases: dict[bytes, tuple[int, bytes]] = {}
    subtrees: dict[bytes, tuple[int, bytes]] = {}
    at = 12 + len(question)
    own = question[:-4]
    for _ in range(answers):
        if packet[at] == 0xC0 and packet[at + 1] == 12:
            owner, at = own, at + 2
        else:
            owner, at = read_name(packet, at)
        number, rdclass, ttl, length = FIXED.unpack_from(packet, at)
        at += 10
        if at + length > len(packet):
            raise MalformedAnswer("data beyond the packet")
        if rdclass == 1 and number == wanted:
            owned.setdefault(owner, []).append((ttl, read_data(packet, at, length)))
        elif rdclass == 1 and number == CNAME:
            aliases.setdefault(owner, (ttl, read_whole_name(packet, at, length)))
        elif rdclass == 1 and number == DNAME:
            subtrees.setdefault(owner, (ttl, read_whole_name(packet, at, length)))
        elif number in (OPT, TSIG):  # RFC 6891 6.1.1, RFC 8945 5.1: of the additional section alone
            raise MalformedAnswer("a record about the packet among the answers")
        at += length
    return _answer_of(
        packet, (at, authorities, additional), rcode, (own, owned, _Aliases(aliases, subtrees))
    )


class _Aliases(NamedTuple):
    """CNAMEs and DNAMEs of an answer: owner -> TTL and target, wire names."""

    names: dict[bytes, tuple[int, bytes]]
    subtrees: dict[bytes, tuple[int, bytes]]

    def of(self, name: bytes) -> tuple[int, bytes] | None:
        """What a name is an alias of. A DNAME makes the CNAME that some servers leave to the asker
        (RFC 6672 3.1)."""
        found = self.names.get(name)
        if found is not None or not self.subtrees:
            return found
        at = 0
        while length := name[at]:
            at += 1 + length
            if (subtree := self.subtrees.get(name[at:])) is not None:
                if at + len(subtree[1]) > 255:
                    raise MalformedAnswer("a name over 255 octets")
                return subtree[0], name[:at] + subtree[1]
        return None


def _answer_of(
    packet: bytes,
    rest: tuple[int, int, int],
    rcode: int,
    records: tuple[bytes, dict[bytes, list[tuple[int, Any]]], _Aliases],
) -> Answer:
    name, owned, aliases = records
    chain = _follow(name, owned, aliases)
    if chain.special_use:
        # Not in the DNS, whatever a resolver that also serves a house's own names says of it.
        reason = "an alias of a special-use name"
        return Answer(failure=NoSuchTarget, reason=reason, ttl=chain.life, via=chain.via)
    values = owned.get(chain.name, [])
    if values and rcode == 0:
        return _positive(values, chain)
    return _negative(packet, rest, rcode, chain)


class _Chain(NamedTuple):
    """Where the aliases of an answer lead: the last name, those passed, and the shortest TTL."""

    name: bytes
    via: tuple[str, ...]
    life: int
    special_use: bool = False


def _follow(name: bytes, owned: Mapping[bytes, Any], aliases: _Aliases) -> _Chain:
    life = 0x7FFFFFFF
    via: list[str] = []
    while name not in owned and (alias := aliases.of(name)) is not None:
        ttl, name = alias
        life = min(life, lifetime(ttl))
        if len(via) == HOP_LIMIT:
            raise MalformedAnswer("too many aliases")
        via.append(_shown(name))
        if is_special_use(via[-1]):
            return _Chain(name, tuple(via), life, special_use=True)
    return _Chain(name, tuple(via), life)


def _positive(records: list[tuple[int, Any]], chain: _Chain) -> Answer:
    # A record sent twice is one record (RFC 2181 5); None is a host name that nobody could ask for.
    values = tuple(dict.fromkeys(value for _, value in records if value is not None))
    if len(values) > RECORD_LIMIT:
        raise MalformedAnswer("too many records")
    life = min(chain.life, *(lifetime(ttl) for ttl, _ in records))
    if values:
        return Answer(values, ttl=life, via=chain.via)
    return Answer(failure=NoData, reason="no usable record", ttl=life, via=chain.via)


def _negative(packet: bytes, rest: tuple[int, int, int], rcode: int, chain: _Chain) -> Answer:
    via = chain.via
    soa, referral = _read_rest(packet, rest)
    absence = min(chain.life, soa or 0)  # without SOA not to be kept (RFC 2308 5)
    if rcode == NXDOMAIN:  # it is the last name of a chain that does not exist (RFC 6604 3)
        reason = "an alias of a name that does not exist" if via else "no such name"
        failure = NoSuchTarget if via else NoSuchName
        return Answer(failure=failure, reason=reason, ttl=absence, via=via)
    if via and soa is None:
        return Answer(alias=to_text(chain.name), ttl=chain.life, via=via)
    if referral and soa is None:
        raise ServerRefused("a referral")
    return Answer(failure=NoData, reason="no such record", ttl=absence, via=via)


def _shown(name: bytes) -> str:
    """A wire name as text, "" for one that could not be asked for."""
    try:
        return to_text(name)
    except MalformedAnswer:
        return ""


def _read_rest(packet: bytes, rest: tuple[int, int, int]) -> tuple[int | None, bool]:
    """For how long an absence may be believed (None without SOA; RFC 2308 5), and whether this is a
    mere referral."""
    at, authorities, additional = rest
    soa: int | None = None
    referral = False
    for index in range(min(authorities + additional, RECORD_LIMIT)):
        _, at = read_name(packet, at)
        number, _, ttl, length = FIXED.unpack_from(packet, at)
        at += 10
        if at + length > len(packet):
            raise MalformedAnswer("data beyond the packet")
        if number == SOA and index < authorities and length >= 22:
            soa = min(lifetime(ttl), lifetime(SOA_MINIMUM.unpack_from(packet, at + length - 4)[0]))
        elif number == NS and index < authorities:
            referral = not packet[3] & 0x80
        elif number == OPT and ttl >> 24:
            raise ServerRefused("an extended response code")
        at += length
    return soa, referral


def lifetime(ttl: int) -> int:
    """Seconds; a TTL with the top bit set is zero (RFC 2181 8)."""
    return ttl if ttl < 0x80000000 else 0
