"""The packets of one message, as an MTA writes them to a milter: made before anything is
measured."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from bench.corpus import Sample
from fakes.milter_client import ALL_ACTIONS, ALL_STEPS, CHUNK, LEADSPC, STEP

OFFER = struct.pack(">IcIII", 13, b"O", 6, ALL_ACTIONS, ALL_STEPS)


def packet(command: bytes, data: bytes = b"") -> bytes:
    """One packet of the protocol."""
    return struct.pack(">I", len(data) + 1) + command + data


def macros(command: bytes, values: dict[str, str]) -> bytes:
    """The packet of macros for a step."""
    return packet(
        b"D", command + b"".join(f"{name}\0{value}\0".encode() for name, value in values.items())
    )


def packets_of(sample: Sample, number: int, steps: int) -> Iterator[tuple[str, bytes]]:
    """(step, packets) of one message, as Postfix sends them."""
    queue = {"i": f"4B{number:08X}"}
    port = struct.pack(">H", 25000 + number % 30000)
    yield (
        "C",
        macros(b"C", {"j": "mx.receiver.example", "{daemon_name}": "smtpd", "v": "Postfix 3.9"})
        + packet(b"C", sample.helo.encode() + b"\x004" + port + sample.client.encode() + b"\0"),
    )
    yield "H", packet(b"H", sample.helo.encode() + b"\0")
    yield (
        "M",
        macros(b"M", {"{mail_addr}": sample.mail_from})
        + packet(b"M", f"<{sample.mail_from}>\0SIZE={len(sample.body)}\0".encode()),
    )
    yield (
        "R",
        macros(b"R", queue) + packet(b"R", f"<user{number % 900}@receiver.example>\0".encode()),
    )
    yield "T", packet(b"T")
    for name, given in sample.fields:
        value = given if steps & LEADSPC else given.removeprefix(b" ")
        yield "L", macros(b"L", queue) + packet(b"L", name + b"\0" + value + b"\0")
    yield "N", macros(b"N", queue) + packet(b"N")
    for start in range(0, len(sample.body), CHUNK):
        yield "B", packet(b"B", sample.body[start : start + CHUNK])
    yield "E", macros(b"E", queue) + packet(b"E")


Segment = tuple[bytes, ...]
"""What is sent before a reply is awaited, in one write each."""


class Script(NamedTuple):
    """What to send before each reply that has to be awaited; the last segment ends the message."""

    segments: list[Segment]
    headers: tuple[int, int, int]
    """Segment, write and offset of the first header field: where a field that another milter
    inserted goes."""
    replies: bool
    """Whether every header field is answered."""

    def with_field(self, name: bytes, value: bytes) -> list[Segment]:
        """The segments with one more field on top."""
        if not name:
            return list(self.segments)
        index, write, offset = self.headers
        changed = list(self.segments)
        writes = list(changed[index])
        before, after = writes[write][:offset], writes[write][offset:]
        added = before + packet(b"L", name + b"\0" + value + b"\0")
        if self.replies:
            changed[index : index + 1] = [(*writes[:write], added), (after, *writes[write + 1 :])]
        else:
            writes[write] = added + after
            changed[index] = tuple(writes)
        return changed


def script_of(sample: Sample, number: int, steps: int, *, as_postfix: bool = False) -> Script:
    """One message for a milter that asked for these steps."""
    segments: list[Segment] = []
    writes: list[bytes] = []
    together = bytearray()
    headers = None

    def flush() -> None:
        if together:
            writes.append(bytes(together))
            together.clear()

    before = ""
    for step, octets in packets_of(sample, number, steps):
        no_step, no_reply = STEP.get(step, (0, 0))
        if steps & no_step:
            continue
        if as_postfix and (before in ("R", "T") or step == "E"):
            flush()
        if step == "L" and headers is None:
            headers = len(segments), len(writes), len(together)
        together += octets
        before = step
        if not steps & no_reply:
            flush()
            segments.append(tuple(writes))
            writes.clear()
    return Script(segments, headers or (0, 0, 0), not steps & STEP["L"][1])
