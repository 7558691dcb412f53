"""Reading DNS packets: whatever comes, in bounded time, nothing but an answer or the reader's own
two errors."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

import dns.message
import dns.rdatatype
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dmarc_milter.core.resolver import NoData
from dmarc_milter.dns.answer import TYPES, Answer
from dmarc_milter.dns.rdata import MalformedAnswer, read_name
from dmarc_milter.dns.wire import (
    ServerRefused,
    denies_opt,
    encode_query,
    encode_question,
    is_answer_to,
    opt_flags,
    read_answer,
)

QUESTION = b"\3www\7example\3org\0\0\x10\0\1"
RDTYPES = sorted(TYPES)


def packet(
    body: bytes = b"",
    *,
    counts: tuple[int, int, int] = (1, 0, 0),
    flags: int = 0x8180,
    question: bytes = QUESTION,
) -> bytes:
    return struct.pack("!HHHHHH", 7, flags, 1, *counts) + question + body


def record(
    number: int, data: bytes, owner: bytes = b"\xc0\x0c", ttl: int = 60, rdclass: int = 1
) -> bytes:
    return owner + struct.pack("!HHIH", number, rdclass, ttl, len(data)) + data


def read(body: bytes, rdtype: str = "TXT", **more: object) -> Answer:
    question = QUESTION[:-4] + struct.pack("!HH", TYPES[rdtype], 1)
    return read_answer(packet(body, question=question, **more), question, rdtype)  # type: ignore[arg-type]


# Queries


@pytest.mark.parametrize("rdtype", RDTYPES)
def test_a_query_is_read_by_another_implementation(rdtype: str) -> None:
    """Recursion desired, EDNS with 1232 octets, the name as given."""
    question = encode_question(("_dmarc.john+x=y.example.org", rdtype))
    assert question
    message = dns.message.from_wire(encode_query(b"\x12\x34", question))
    assert (message.id, message.payload, message.edns) == (0x1234, 1232, 0)
    assert (
        dns.message.make_query("_dmarc.john+x=y.example.org", rdtype).question == message.question
    )


def test_a_plain_query_has_no_opt() -> None:
    """For servers that do not know it (RFC 6891 6.2.2)."""
    message = dns.message.from_wire(encode_query(b"\x12\x34", QUESTION, edns=False))
    assert (message.edns, message.additional, message.question[0].name.to_text()) == (
        -1,
        [],
        "www.example.org.",
    )


OPT_RECORD = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
BADVERS_RECORD = b"\0\0\x29\x04\xd0\1\0\0\0\0\0"


@pytest.mark.parametrize(
    ("flags", "body", "known", "denied"),
    [
        (0x8181, b"", False, True),
        (0x8181, b"", True, True),
        (0x8181, OPT_RECORD, False, True),  # it copied the query
        (0x8184, b"", False, True),
        (0x8182, b"", False, True),
        (0x8182, b"", True, False),
        (0x8182, OPT_RECORD, False, False),
        (0x8185, b"", False, False),
        (0x8180, BADVERS_RECORD, True, True),
        (0x8180, OPT_RECORD, False, False),
        (0x8180, b"", False, False),
    ],
)
def test_which_errors_may_be_about_edns(flags: int, body: bytes, known: bool, denied: bool) -> None:
    """FORMERR, NOTIMP, BADVERS; SERVFAIL only without OPT, from a server that has shown none (RFC
    6891 6.1.3, 6.2.2, 7)."""
    assert (
        denies_opt(packet(body, counts=(0, 0, 1 if body else 0), flags=flags), known=known)
        is denied
    )


@pytest.mark.parametrize("end", [b"", OPT_RECORD, BADVERS_RECORD])
def test_a_bare_error_needs_the_identifier_alone(end: bytes) -> None:
    """Servers that cannot read a query send its header back, some with their own OPT."""
    bare = struct.pack("!HHHHHH", 7, 0x8181, 0, 0, 0, 1 if end else 0) + end
    assert is_answer_to(bare, b"\0\7", QUESTION)
    assert not is_answer_to(bare, b"\0\x08", QUESTION)
    assert is_answer_to(packet(counts=(0, 0, 1), flags=0x8181)[:12], b"\0\7", QUESTION)
    assert not is_answer_to(
        packet(counts=(0, 0, 1), flags=0x8183)[:12], b"\0\7", QUESTION
    )  # no NXDOMAIN without its question


@given(st.binary(max_size=600))
def test_looking_for_opt_never_fails(body: bytes) -> None:
    """Whatever stands behind the header."""
    assert opt_flags(body.ljust(12, b"\xff")) is None or b"\0\x29" in body


@given(st.text(max_size=300))
@example("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61)
def test_any_text_makes_a_good_question_or_none(name: str) -> None:
    """RFC 1035 2.3.4: labels of 63, names of 255 octets."""
    question = encode_question((name.lower(), "A"))
    if question is not None:
        assert len(question) <= 255 + 4
        assert (
            dns.message.from_wire(encode_query(b"\0\0", question))
            .question[0]
            .name.to_text(omit_final_dot=True)
        )


def test_only_the_answer_to_the_very_question_is_one() -> None:
    """Identifier, question and the response bit; the case of the name may differ."""
    right = packet()
    assert is_answer_to(right, b"\0\7", QUESTION)
    assert is_answer_to(right.replace(b"example", b"eXAMPle"), b"\0\7", QUESTION)
    assert is_answer_to(b"\0\7\x81\x82" + bytes(8), b"\0\7", QUESTION)  # a bare SERVFAIL
    for wrong in (
        b"",
        right[:11],
        packet(flags=0x0100),  # a query
        packet(flags=0xA980),  # another opcode
        packet(question=QUESTION.replace(b"www", b"wwx")),
        packet(question=QUESTION[:-3] + b"\x01\0\1"),
        right[:5] + b"\2" + right[6:],
        b"\0\7\x81\x80" + bytes(8),  # no question, no error
        b"\0\7\x81\x83" + bytes(8),  # absence of nothing in particular
    ):
        assert not is_answer_to(wrong, b"\0\7", QUESTION)
    assert not is_answer_to(right, b"\0\x08", QUESTION)


# Answers


@pytest.mark.parametrize(
    ("rdtype", "body"),
    [
        ("A", record(1, b"abc")),
        ("A", record(1, b"abcde")),
        ("AAAA", record(28, b"abcd")),
        ("MX", record(15, b"")),
        ("MX", record(15, b"\0")),
        ("MX", record(15, b"\0\1\3abc")),
        ("PTR", record(12, b"\3abc\0more")),
        ("TXT", record(16, b"\5abc")),
        ("TXT", record(16, b"\3abc\4x")),
        ("TXT", record(16, b"\1x")[:-1]),
        ("TXT", b"\xc0"),
        ("TXT", b""),
        ("TXT", record(16, b"\1x", owner=b"\xc0\x21")),  # a pointer to itself
        ("TXT", record(16, b"\1x", owner=b"\xc0\x50")),  # a pointer ahead
        ("TXT", record(16, b"\1x", owner=b"\xc0\x02")),  # a pointer into the header
        ("TXT", record(16, b"\1x", owner=b"\x80\x02")),  # a kind of label that does not exist
        ("TXT", record(16, b"\1x", owner=(b"\x3f" + b"a" * 63) * 4 + b"\0")),
        ("PTR", record(5, b"\1\\\0")),  # an alias that cannot be asked
    ],
)
def test_a_record_that_does_not_fit_spoils_the_answer(rdtype: str, body: bytes) -> None:
    """Half an answer could leave out the record that matters."""
    with pytest.raises(MalformedAnswer):
        read(body, rdtype)


@pytest.mark.parametrize(
    "body",
    [
        record(16, b"\1x", owner=b"\3ftp\xc0\x10"),  # another owner
        record(16, b"\1x", rdclass=3),  # another class
        record(1, b"abcd"),  # another type
        record(46, b"signature of no interest"),
    ],
)
def test_what_was_not_asked_for_is_not_taken(body: bytes) -> None:
    """Only records at the name, or at the end of its aliases."""
    answer = read(body)
    assert (answer.records, answer.failure) == ((), NoData)


def test_the_owner_is_compared_without_case() -> None:
    """RFC 4343."""
    assert read(record(16, b"\1x", owner=b"\3WWW\7Example\xc0\x18")).records == (b"x",)


@pytest.mark.parametrize(
    ("flags", "body", "counts"),
    [
        (0x8182, b"", (0, 0, 0)),
        (0x8185, b"", (0, 0, 0)),
        (0x8100, record(2, b"\2ns\xc0\x10", owner=b"\xc0\x10"), (0, 1, 0)),  # a referral
        (0x8180, b"\0" + struct.pack("!HHIH", 41, 1232, 1 << 24, 0), (0, 0, 1)),  # BADVERS
    ],
)
def test_a_server_that_does_not_answer_has_refused(
    flags: int, body: bytes, counts: tuple[int, int, int]
) -> None:
    """Neither is evidence that there is no record."""
    with pytest.raises(ServerRefused):
        read(body, flags=flags, counts=counts)


@given(
    st.binary(max_size=200),
    st.sampled_from(RDTYPES),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([0x8180, 0x8183, 0x8400]),
)
def test_any_octets_give_an_answer_or_one_of_two_errors(
    body: bytes, rdtype: str, answers: int, more: int, flags: int
) -> None:
    """Nothing else escapes."""
    try:
        answer = read(body, rdtype, counts=(answers, more, more), flags=flags)
    except (MalformedAnswer, ServerRefused):
        return
    assert bool(answer.records) + bool(answer.failure) + bool(answer.alias) == 1


labels = st.lists(
    st.binary(min_size=1, max_size=20).filter(lambda label: b"." not in label),
    min_size=1,
    max_size=4,
)


@given(
    st.lists(
        st.tuples(
            labels,
            st.sampled_from([1, 5, 12, 15, 16, 28]),
            st.binary(max_size=40),
            st.integers(0, 2**32 - 1),
        ),
        max_size=6,
    )
)
def test_any_well_framed_records_give_an_answer_or_one_of_two_errors(
    records: Sequence[tuple[list[bytes], int, bytes, int]],
) -> None:
    """The same with data that gets further in."""
    body = b""
    for owner, number, data, ttl in records:
        name = b"".join(bytes([len(label)]) + label for label in owner) + b"\0"
        body += record(number, data, b"\xc0\x0c" if ttl % 2 else name, ttl)
    for rdtype in RDTYPES:
        try:
            answer = read(body, rdtype, counts=(len(records), 0, 0))
        except (MalformedAnswer, ServerRefused):
            continue
        assert bool(answer.records) + bool(answer.failure) + bool(answer.alias) == 1


@given(st.binary(max_size=300), st.integers(0, 299))
def test_reading_a_name_always_ends(data: bytes, at: int) -> None:
    """Pointers only go back, and names only to 255 octets."""
    try:
        name, behind = read_name(data, at)
    except (MalformedAnswer, IndexError):
        return
    assert len(name) <= 255
    assert at < behind <= len(data)


def test_a_ladder_of_pointers_is_not_climbed() -> None:
    """Each names the one before: for every record of a large packet that would be thousands of
    steps."""
    ladder = (
        bytes(12)
        + b"\1x\0"
        + b"".join(
            struct.pack("!H", 0xC000 | (15 + 2 * step - 2 if step else 12)) for step in range(17)
        )
    )
    assert read_name(ladder, 15 + 2 * 15) == (b"\1x\0", 15 + 2 * 16)
    with pytest.raises(MalformedAnswer):
        read_name(ladder, 15 + 2 * 16)


@pytest.mark.parametrize(
    ("rdtype", "data"),
    [("TXT", b"\1x"), ("A", b"abcd"), ("MX", b"\0\1\xc0\x0c"), ("PTR", b"\xc0\x0c")],
)
def test_the_largest_packet_takes_no_time_worth_mentioning(rdtype: str, data: bytes) -> None:
    """64 KiB of the smallest records, and of records whose owner is a long chain of pointers."""
    one = record(TYPES[rdtype], data)
    count = min(1024, 65_000 // len(one))
    ladder = (
        12 + len(QUESTION) + 11
    )  # each pointer of it leads to the one before, down to the question
    pointers = b"".join(
        struct.pack("!H", 0xC000 | (at - 2 if at > ladder else 12))
        for at in range(ladder, ladder + 4000, 2)
    )
    chained = (
        record(16, pointers, owner=b"\0")
        + record(TYPES[rdtype], data, owner=struct.pack("!H", 0xC000 | (ladder + 3900))) * count
    )
    began = time.monotonic()
    for body, number in ((one * count, count), (one * 5000, 5000), (chained, count + 1)):
        try:
            read(body, rdtype, counts=(number, 0, 0))
        except MalformedAnswer:
            continue
    assert time.monotonic() - began < 1
