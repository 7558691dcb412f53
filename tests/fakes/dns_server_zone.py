"""The zone of the scriptable DNS server: names with records and behaviours, and the wire form of
what it answers."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

TYPES = {
    "A": 1,
    "NS": 2,
    "CNAME": 5,
    "SOA": 6,
    "PTR": 12,
    "MX": 15,
    "TXT": 16,
    "AAAA": 28,
    "DNAME": 39,
    "ANY": 255,
}
NAMES = {number: name for name, number in TYPES.items()}
RCODES = {"formerr": 1, "servfail": 2, "nxdomain": 3, "notimp": 4, "refused": 5, "yxdomain": 6}
WITHOUT_EDNS = "no_edns_"
"""A server that does not know OPT: what such a behaviour's second half says happens to queries with
it, others are answered."""
IGNORED = WITHOUT_EDNS + "ignored"
GOOD_OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
BAD_VERSION = b"\0\0\x29\x04\xd0\1\0\0\0\0\0"
"""Response code 16 (RFC 6891 6.1.3)."""
CHAIN_LIMIT = 24

Spec = Mapping[str, Any]


class Question(NamedTuple):
    """One query as it was read: `raw` is the question section in the client's own spelling."""

    name: str
    rdtype: str
    raw: bytes
    size: int
    edns: bool = False


class Answer(NamedTuple):
    """What a name gives: either a behaviour word, or a response code with records."""

    behaviour: str
    rcode: int
    records: tuple[bytes, ...]
    authority: bytes
    delay: float
    opt: bytes | None = None
    """The OPT record in the answer; None: a good one where the query had one."""


class BadQuery(ValueError):
    """The packet is not a query with one question."""


def labels_of(name: str) -> list[bytes]:
    """The labels of a dotted name; `\\.` is not supported, bytes outside ASCII travel as surrogate
    escapes."""
    return [
        label.encode("utf-8", "surrogateescape") for label in name.rstrip(".").split(".") if label
    ]


def pack_name(name: str) -> bytes:
    """The name in wire form, uncompressed."""
    return b"".join(bytes([len(label)]) + label for label in labels_of(name)) + b"\0"


def pack_record(owner: str, rdtype: str, ttl: int, data: bytes) -> bytes:
    """One resource record, uncompressed."""
    return pack_name(owner) + struct.pack("!HHIH", TYPES[rdtype], 1, ttl, len(data)) + data


def pack_data(rdtype: str, value: Any) -> bytes:
    """The data of one record. TXT: str or bytes (cut at 255), or a list of character-strings as
    they are to stand."""
    match rdtype:
        case "TXT":
            return b"".join(bytes([len(part)]) + part for part in character_strings(value))
        case "A" | "AAAA":
            return ipaddress.ip_address(value).packed
        case "MX":
            return struct.pack("!H", value[0]) + pack_name(value[1])
        case _:
            return pack_name(value)


def character_strings(value: Any) -> Iterator[bytes]:
    """The character-strings of one TXT record."""
    if isinstance(value, list | tuple):
        for part in value:
            yield as_bytes(part)
        return
    data = as_bytes(value)
    yield data[:255]
    for start in range(255, len(data), 255):
        yield data[start : start + 255]


def as_bytes(text: str | bytes) -> bytes:
    """Text as UTF-8; lone surrogates from JSON (`\\udcff`) stand for the raw byte."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def parse_query(packet: bytes) -> Question:
    """The question of a query packet, with the size that the client's EDNS allows (512 without)."""
    if len(packet) < 17 or packet[2] & 0x80 or packet[4:6] != b"\0\1":
        raise BadQuery
    labels, at = [], 12
    while length := packet[at]:
        if length > 63 or at + length + 6 > len(packet):
            raise BadQuery
        labels.append(packet[at + 1 : at + 1 + length])
        at += 1 + length
    number = struct.unpack_from("!H", packet, at + 1)[0]
    size, edns = 512, False
    if packet[10:12] != b"\0\0" and packet[at + 5 : at + 8] == b"\0\0\x29":
        size, edns = max(512, struct.unpack_from("!H", packet, at + 8)[0]), True
    name = b".".join(labels).decode("utf-8", "surrogateescape").lower()
    return Question(name, NAMES.get(number, f"TYPE{number}"), packet[12 : at + 5], size, edns)


class Zone:
    """Names and what they give. Everything not named does not exist; ancestors of names are empty
    non-terminals.

    A name's spec: record types with their values, and optionally `ttl`, `delay` (seconds),
    `behaviour` (a word, or words by record type), `times` (the behaviour holds for so many queries
    only), `follow` (False: a CNAME stands alone), `soa_minimum`, `soa_ttl`, `no_soa`.
    """

    def __init__(self, names: Mapping[str, Spec] | None = None) -> None:
        self.soa_minimum = 60
        self.soa_ttl = 60
        self.ttl = 300
        self.knows_tlds = True
        """Every top-level domain that is not scripted has name servers, as in the world."""
        self.names: dict[str, dict[str, Any]] = {}
        self._parents: dict[str, int] = {}
        for name, spec in (names or {}).items():
            self.put(name, spec)

    def put(self, name: str, spec: Spec) -> None:
        """Give a name (or `*.name`) its records and behaviour, replacing what it had."""
        name = name.rstrip(".").lower()
        self.remove(name)
        self.names[name] = dict(spec)
        for parent in ancestors(name):
            self._parents[parent] = self._parents.get(parent, 0) + 1

    def remove(self, name: str) -> None:
        """Let a name no longer exist."""
        name = name.rstrip(".").lower()
        if self.names.pop(name, None) is not None:
            for parent in ancestors(name):
                self._parents[parent] -= 1

    def find(self, name: str) -> Spec | None:
        """The spec of a name, by wildcard if need be; {} for an empty non-terminal, None for
        NXDOMAIN (RFC 4592)."""
        if name in self.names:
            return self.names[name]
        if self._parents.get(name):
            return {}
        for parent in (*ancestors(name), ""):
            wildcard = f"*.{parent}" if parent else "*"
            if wildcard in self.names:
                return self.names[wildcard]
            if parent in self.names or self._parents.get(parent):
                return None
        return None

    def answer(self, question: Question) -> Answer:
        """The answer to a question, CNAMEs followed within the zone as a recursive server would."""
        records: list[bytes] = []
        name, delay = question.name, 0.0
        for _ in range(CHAIN_LIMIT):
            spec = self.find(name)
            if (
                question.rdtype == "NS"
                and "." not in name
                and self.knows_tlds
                and not {"NS", "behaviour"} & set(spec or ())
            ):
                records.append(pack_record(name, "NS", self.ttl, pack_name(f"a.nic.{name}")))
                return Answer("", 0, tuple(records), b"", delay)
            if spec is None and (below := self._renamed(name)) is not None:
                found, name = below
                records += found
                continue
            if spec is None:
                return Answer("", 3, tuple(records), self.soa(name, {}), delay)
            delay += float(spec.get("delay", 0))
            behaviour = self._behaviour(spec, question)
            if behaviour == IGNORED:
                return self.answer(question._replace(edns=False, size=512))._replace(opt=b"")
            if behaviour:
                return self._misbehave(behaviour, name, spec, (records, delay))
            ttl = int(spec.get("ttl", self.ttl))
            if "CNAME" in spec and question.rdtype != "CNAME":
                records.append(pack_record(name, "CNAME", ttl, pack_data("CNAME", spec["CNAME"])))
                name = str(spec["CNAME"]).rstrip(".").lower()
                if not spec.get("follow", True):
                    break
                continue
            values = spec.get(question.rdtype, ())
            values = [values] if question.rdtype in ("CNAME", "DNAME") and values else values
            found = [
                pack_record(name, question.rdtype, ttl, pack_data(question.rdtype, value))
                for value in values
            ]
            return Answer("", 0, (*records, *found), b"" if found else self.soa(name, spec), delay)
        return Answer("", 0, tuple(records), b"", delay)

    def _renamed(self, name: str) -> tuple[list[bytes], str] | None:
        """The DNAME above a name with the CNAME that it makes, unless its spec says `"synthesise":
        False` (RFC 6672 3.1)."""
        for parent in ancestors(name):
            if "DNAME" in (spec := self.names.get(parent, {})):
                target = name.removesuffix(parent) + str(spec["DNAME"])
                found = [pack_record(parent, "DNAME", self.ttl, pack_name(str(spec["DNAME"])))]
                if spec.get("synthesise", True):
                    found.append(pack_record(name, "CNAME", self.ttl, pack_name(target)))
                return found, target
        return None

    def soa(self, name: str, spec: Spec) -> bytes:
        """The SOA record for the authority section of a negative answer (RFC 2308)."""
        if spec.get("no_soa"):
            return b""
        owner = name.rpartition(".")[2]
        minimum, ttl = (
            int(spec.get("soa_minimum", self.soa_minimum)),
            int(spec.get("soa_ttl", self.soa_ttl)),
        )
        data = (
            pack_name("ns.invalid")
            + pack_name("root.invalid")
            + struct.pack("!IIIII", 1, 3600, 600, 86400, minimum)
        )
        return pack_record(owner, "SOA", ttl, data)

    @staticmethod
    def _behaviour(spec: Spec, question: Question) -> str:
        behaviour = spec.get("behaviour", "")
        word = str(
            behaviour.get(question.rdtype, "") if isinstance(behaviour, Mapping) else behaviour
        )
        if word.startswith(WITHOUT_EDNS) and not question.edns:
            return ""
        if word and "times" in spec and isinstance(spec, dict):
            if spec["times"] <= 0:
                return ""
            spec["times"] -= 1
        return word

    def _misbehave(
        self, behaviour: str, name: str, spec: Spec, so_far: tuple[list[bytes], float]
    ) -> Answer:
        records, delay = so_far
        if behaviour.startswith(WITHOUT_EDNS):
            word = behaviour.removeprefix(WITHOUT_EDNS)
            opt = BAD_VERSION if word == "badvers" else b""
            return Answer(
                "" if word in RCODES or opt else word, RCODES.get(word, 0), (), b"", delay, opt
            )
        if behaviour in RCODES:
            authority = self.soa(name, spec) if behaviour == "nxdomain" else b""
            return Answer("", RCODES[behaviour], tuple(records), authority, delay)
        if behaviour == "nodata":
            return Answer("", 0, tuple(records), self.soa(name, spec), delay)
        rest = {key: value for key, value in spec.items() if key not in ("behaviour", "times")}
        found = [
            pack_record(name, rdtype, int(spec.get("ttl", self.ttl)), pack_data(rdtype, value))
            for rdtype in ("TXT", "A", "AAAA", "MX", "PTR")
            for value in rest.get(rdtype, ())
        ]
        return Answer(behaviour, 0, (*records, *found), b"", delay)


def ancestors(name: str) -> Iterator[str]:
    """Every name above, nearest first, without the root."""
    while "." in name:
        name = name.partition(".")[2]
        yield name


def pack_response(packet: bytes, question: Question, answer: Answer, *, limit: int) -> bytes:
    """The response packet; beyond `limit` octets only the question with TC set."""
    edns = (GOOD_OPT if packet[10:12] != b"\0\0" else b"") if answer.opt is None else answer.opt
    if answer.opt == b"":
        limit = 512 if limit < 65535 else limit
    body = question.raw + b"".join(answer.records) + answer.authority + edns
    counts = (1, len(answer.records), 1 if answer.authority else 0, 1 if edns else 0)
    flags = 0x8180 | answer.rcode
    if 12 + len(body) > limit:
        return (
            packet[:2]
            + struct.pack("!HHHHH", flags | 0x0200, 1, 0, 0, counts[3])
            + question.raw
            + edns
        )
    return packet[:2] + struct.pack("!HHHHH", flags, *counts) + body
