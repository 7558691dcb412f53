"""Our wire codec against dnspython, both ways and with hostile packets: what we accept, dnspython
reads the same.

Where the two may differ, and why:

- Authority and additional records that cannot be read: dnspython refuses the message. We take no
  records from there, so the oracle is shown the answer section alone.
- A damaged record of another type or class than was asked for: skipped here (the oracle goes on
  after errors), for a resolver's answer may hold more than the question.
- DNAME without the CNAME that should come with it: we make the CNAME (RFC 6672 3.1), dnspython
  does not. The packets here hold none.
- A host name that could not be asked for again (odd bytes): dropped here, kept by dnspython.
- An alias into a special-use name (RFC 6761): an absence here, an answer for dnspython.
- TXT without any character-string (RFC 1035 3.3.14 wants one): empty text here, an error there.
- Two CNAMEs of one owner (RFC 2181 10.1 forbids it): the first counts here, the last there.
- We refuse more: over 16 compression pointers in a name, over 512 records, RDATA beyond its end.
"""

from __future__ import annotations

import random
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from dmarc_milter.core.mail.domain import is_special_use
from dmarc_milter.dns.answer import TYPES, Answer
from dmarc_milter.dns.rdata import ASKABLE, MalformedAnswer
from dmarc_milter.dns.wire import (
    ServerRefused,
    encode_query,
    encode_question,
    is_answer_to,
    is_truncated,
    read_answer,
)
from fakes.soak import LONG

ROUNDS = 40_000 if LONG else 600
IDENTIFIER = b"\xab\xcd"
LABELS = ("a", "mail", "_dmarc", "x-y", "example", "net", "q" * 63, "xn--caf-dma", "local")
VALUES = {
    "A": ("192.0.2.1", "192.0.2.2", "203.0.113.9"),
    "AAAA": ("2001:db8::1", "::ffff:192.0.2.1"),
    "TXT": ('"v=DMARC1; p=reject"', '"a" "b" ""', '"\\255\\000"', '""'),
    "MX": ("10 mx.example.net.", "0 .", "5 a\\000b.example.net."),
    "PTR": ("host.example.net.", "odd\\032label.example."),
    "NS": ("ns1.example.net.",),
}


def name(rng: random.Random) -> str:
    """Up to three labels, with room in the 253 bytes of a name."""
    return ".".join(rng.choice(LABELS) for _ in range(rng.randint(1, 3)))


def answer(rng: random.Random, asked: str, rdtype: str) -> bytes:
    """An honest answer as dnspython writes it, compressed, often by way of aliases."""
    query = dns.message.make_query(asked, rdtype)
    message = dns.message.make_response(query, recursion_available=True)
    message.id = int.from_bytes(IDENTIFIER, "big")
    owner, owners = asked, {asked}
    for _ in range(rng.choice((0, 0, 1, 2))):
        target = name(rng)
        if target in owners:
            break
        owners.add(target)
        message.answer.append(dns.rrset.from_text(f"{owner}.", 60, "IN", "CNAME", f"{target}."))
        owner = target
    values = rng.sample(VALUES[rdtype], rng.randint(1, len(VALUES[rdtype])))
    message.answer.append(dns.rrset.from_text(f"{owner}.", 300, "IN", rdtype, *values))
    if rng.random() < 0.3:
        extra = dns.rrset.from_text("other.example.", 9, "IN", "TXT", '"not asked for"')
        message.additional.append(extra)
    return message.to_wire()


def damaged(rng: random.Random, packet: bytes) -> bytes:
    """Bytes changed, cut off, doubled or put in, mostly behind the question."""
    wire = bytearray(packet)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(6, len(wire))
        match rng.randrange(6):
            case 0:
                wire[at] = rng.randrange(256)
            case 1:
                wire[at] ^= 1 << rng.randrange(8)
            case 2:
                del wire[at:]
            case 3:
                wire[at:at] = wire[rng.randrange(len(wire)) :][: rng.randint(1, 12)]
            case 4:
                wire[at : at + 2] = bytes((0xC0 | rng.randrange(2), rng.randrange(256)))
            case _:
                wire[at] = wire[at] ^ 0x20 if chr(wire[at]).isalpha() else wire[at]
        if len(wire) < 13:
            return packet
    return bytes(wire)


def shown(host: dns.name.Name) -> str | None:
    """A host as we show it; None for one with odd bytes."""
    labels = host.labels[:-1]
    if any(label.lower().translate(None, ASKABLE) for label in labels):
        return None
    return b".".join(labels).lower().decode("ascii")


def values_of(rdata: Any) -> list[Any]:
    match rdata.rdtype:
        case dns.rdatatype.A | dns.rdatatype.AAAA:
            return [rdata.address]
        case dns.rdatatype.TXT:
            return [b"".join(rdata.strings)]
        case dns.rdatatype.MX:
            host = shown(rdata.exchange)
            return [] if host is None else [(rdata.preference, host)]
        case _:
            host = shown(rdata.target)
            return [] if host is None else [host]


def oracle(packet: bytes) -> tuple[set[Any], bool, bool]:
    """The values that dnspython finds; whether an alias led into a special-use name; whether an
    owner has two aliases."""
    head = packet[:8] + bytes(4) + packet[12:]
    message = dns.message.from_wire(
        head, ignore_trailing=True, continue_on_error=True, one_rr_per_rrset=True
    )
    aliases = [rrset for rrset in message.answer if rrset.rdtype == dns.rdatatype.CNAME]
    doubled = len({rrset.name for rrset in aliases}) < len(aliases)
    message = dns.message.from_wire(head, ignore_trailing=True, continue_on_error=True)
    assert isinstance(message, dns.message.QueryMessage)
    chain = message.resolve_chaining()
    special = any(is_special_use(shown(rrset[0].target) or "") for rrset in chain.cnames)
    records = chain.answer or ()
    return {value for rdata in records for value in values_of(rdata)}, special, doubled


def ours(packet: bytes, question: bytes, rdtype: str) -> Answer | None:
    """Our answer; None where the packet is not taken."""
    if not is_answer_to(packet, IDENTIFIER, question) or is_truncated(packet):
        return None
    try:
        return read_answer(packet, question, rdtype)
    except (MalformedAnswer, ServerRefused):
        return None


def compare(packet: bytes, question: bytes, rdtype: str) -> bool:
    """Whether we found records; then dnspython must have found the same."""
    found = ours(packet, question, rdtype)
    if found is None or not found.records:
        return False
    values, special, doubled = oracle(packet)
    if doubled:
        return False
    assert not special
    assert set(found.records) - {b""} == values - {b""}, packet.hex()
    return True


@pytest.mark.parametrize("rdtype", sorted(VALUES))
def test_an_honest_answer_is_read_as_dnspython_reads_it(rdtype: str) -> None:
    """RFC 1035 4.1: compression, several records, aliases in any number that a resolver sends."""
    rng = random.Random(f"honest {rdtype}")
    taken = 0
    for _ in range(ROUNDS // 10):
        asked = name(rng)
        question = encode_question((asked, rdtype))
        assert question is not None
        packet = answer(rng, asked, rdtype)
        found = ours(packet, question, rdtype)
        values, special, _ = oracle(packet)
        assert found is not None
        assert set(found.records) == (set() if special else values)
        taken += bool(found.records)
    assert taken > ROUNDS // 30


@pytest.mark.soak
@pytest.mark.parametrize("rdtype", sorted(VALUES))
def test_whatever_we_take_from_a_damaged_answer_dnspython_takes_too(rdtype: str) -> None:
    """An attacker's server, or one on the way, writes every byte behind the question."""
    rng = random.Random(f"damaged {rdtype}")
    taken = 0
    for _ in range(ROUNDS):
        asked = name(rng)
        question = encode_question((asked, rdtype))
        assert question is not None
        taken += compare(damaged(rng, answer(rng, asked, rdtype)), question, rdtype)
    assert taken > ROUNDS // 20, "the damage must not be the end of every packet"


@pytest.mark.parametrize("edns", [True, False])
def test_every_query_that_we_write_is_read_by_dnspython_as_it_was_meant(edns: bool) -> None:
    """RFC 1035 4.1.2, RFC 6891 6.1: one question, recursion desired, 1232 bytes offered."""
    rng = random.Random("queries")
    for _ in range(300):
        asked, rdtype = name(rng), rng.choice(sorted(TYPES))
        question = encode_question((asked, rdtype))
        assert question is not None
        message = dns.message.from_wire(encode_query(IDENTIFIER, question, edns=edns))
        (read,) = message.question
        assert shown(read.name) == asked
        assert dns.rdatatype.to_text(read.rdtype) == rdtype
        assert message.flags == dns.flags.RD
        assert (message.edns, message.payload) == ((0, 1232) if edns else (-1, 0))


@pytest.mark.parametrize("length", [0, 3, 6, 8, 30])
def test_an_alias_that_does_not_fill_its_record_spoils_the_answer(length: int) -> None:
    """RFC 1035 3.3.1: RDATA of a CNAME is one name. dnspython refuses such a record, and so do we:
    what stands behind its end is another record's."""
    question = encode_question(("a.example", "A"))
    assert question is not None
    head = IDENTIFIER + b"\x81\x80\0\1\0\2\0\0\0\0" + question
    alias = b"\xc0\x0c\0\5\0\1\0\0\0\x3c" + length.to_bytes(2, "big")
    behind = b"\xc0\x2b\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
    packet = head + alias + b"\4mail\xc0\x0e" + behind
    assert (ours(packet, question, "A") is not None) == (length == 7)


def test_a_pointer_into_a_number_is_no_earlier_name() -> None:
    """RFC 1035 4.1.4: a pointer stands for a prior occurrence of a name. Here it points at a TTL
    whose last octet, 60, would be a label that covers the very name that points."""
    question = encode_question(("a", "TXT"))
    assert question is not None
    head = IDENTIFIER + b"\x81\x80\0\1\0\2\0\0\0\0" + question
    alias = b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\x08\1a\3x-y\xc0\x1c"
    policy = b"\xc0\x1f\0\x10\0\1\0\0\1\x2c\0\x13\x12v=DMARC1; p=reject"
    packet = head + alias + policy + bytes(64)
    assert packet[0x1C] == 60
    assert ours(packet, question, "TXT") is None
    assert oracle(packet)[0] == set()


@pytest.mark.parametrize("rdtype", [dns.rdatatype.OPT, dns.rdatatype.TSIG])
def test_a_record_about_the_packet_among_the_answers_spoils_it(rdtype: int) -> None:
    """RFC 6891 6.1.1, RFC 8945 5.1: they belong into the additional section."""
    question = encode_question(("a.example", "A"))
    assert question is not None
    head = IDENTIFIER + b"\x81\x80\0\1\0\2\0\0\0\0" + question
    fixed = b"\xc0\x0c%b\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
    address = fixed % b"\0\1"
    assert ours(head + fixed % rdtype.to_bytes(2, "big") + address, question, "A") is None
    assert ours(head + address + address, question, "A") is not None
