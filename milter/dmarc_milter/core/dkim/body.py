"""The body, canonicalized and hashed as it arrives and never kept (RFC 6376 3.4.3, 3.4.4, 3.7).

dkimpy canonicalizes the whole body in memory, once for each signature, with patterns that are
quadratic in a run of spaces. This one works on any chunking, in linear time, and remembers two
octets and a count between chunks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Literal

from dmarc_milter.core.mail.message import BodyDigest, BodyDigests, BodyHash

CRLF = b"\r\n"
PIECE = 1 << 18
"""Octets canonicalized at once: bounds the copies of a chunk of any size."""
collapse = re.compile(b"  +").sub
"""Linear: an octet is looked at once, and what follows a run decides nothing."""


class BodyHasher:
    """Hashes a body for all signatures at once: one canonicalization and one hash for each
    canonicalization asked for."""

    def __init__(self, requests: Iterable[BodyHash]) -> None:
        by_mode: dict[Literal["simple", "relaxed"], list[BodyHash]] = {}
        for request in frozenset(requests):
            by_mode.setdefault(request.canonicalization, []).append(request)
        self._canonicalizers = tuple(
            (RelaxedBody if mode == "relaxed" else SimpleBody)(PrefixHash(wanted))
            for mode, wanted in by_mode.items()
        )

    def update(self, chunk: bytes) -> None:
        """The next octets of the body, any number of them."""
        if not self._canonicalizers:
            return
        view = memoryview(chunk)
        for start in range(0, len(chunk), PIECE):
            piece = bytes(view[start : start + PIECE]) if len(chunk) > PIECE else chunk
            for canonicalizer in self._canonicalizers:
                canonicalizer.update(piece)

    def finish(self) -> BodyDigests:
        """The digests asked for; the hasher is spent afterwards."""
        digests: dict[BodyHash, BodyDigest] = {}
        for canonicalizer in self._canonicalizers:
            digests.update(canonicalizer.finish())
        return digests


class PrefixHash:
    """SHA-256 of a stream and of some of its prefixes, in one pass."""

    def __init__(self, requests: Iterable[BodyHash]) -> None:
        self._requests = tuple(requests)
        self._hash = hashlib.sha256()
        self._pending = sorted(
            {request.length for request in self._requests if request.length is not None},
            reverse=True,
        )
        self._prefixes: dict[int | None, bytes] = {}
        self.size = 0

    def update(self, octets: bytes) -> None:
        start = 0
        while self._pending and self._pending[-1] <= self.size + len(octets):
            length = self._pending.pop()
            self._hash.update(octets[start : length - self.size])
            start = length - self.size
            self._prefixes[length] = self._hash.copy().digest()
        self._hash.update(octets[start:] if start else octets)
        self.size += len(octets)

    def finish(self) -> BodyDigests:
        """A prefix longer than the stream is the stream; whoever asked for it sees that from the
        size."""
        whole = self._hash.digest()
        return {
            request: BodyDigest(self._prefixes.get(request.length, whole), self.size)
            for request in self._requests
        }


class SimpleBody:
    """No change but at the end: the empty lines there go, and one CRLF stands (RFC 6376 3.4.3)."""

    def __init__(self, sink: PrefixHash) -> None:
        self._sink = sink
        self._held = b""
        """Octets whose meaning the next chunk decides: nothing or a CR (and in the relaxed form a
        space before)."""
        self._line_ends = 0
        """CRLFs seen and not yet passed on: if nothing follows they are empty lines at the end."""

    def update(self, chunk: bytes) -> None:
        octets = self._held + chunk if self._held else chunk
        self._held = b""
        if octets.endswith(b"\r"):
            octets, self._held = octets[:-1], b"\r"
        self._pass_on(octets)

    def finish(self) -> BodyDigests:
        self._flush()
        self._sink.update(CRLF)
        return self._sink.finish()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        self._pass_on(held)

    def _pass_on(self, octets: bytes) -> None:
        """Give the sink everything but the CRLFs at the end, which are only counted."""
        end, line_ends = _without_line_ends(octets)
        if end:
            while self._line_ends:
                count = min(self._line_ends, PIECE)
                self._sink.update(CRLF * count)
                self._line_ends -= count
            self._sink.update(octets[:end] if line_ends else octets)
        self._line_ends += line_ends


class RelaxedBody(SimpleBody):
    """White space before CRLF goes, other white space becomes one space; an empty body stays empty
    (RFC 6376 3.4.4)."""

    def update(self, chunk: bytes) -> None:
        octets = self._held + chunk if self._held else chunk
        if b"\t" in octets:
            octets = octets.replace(b"\t", b" ")
        if b"  " in octets:
            octets = collapse(b" ", octets)
        cut = len(octets) - octets.endswith(b"\r")
        cut -= octets.endswith(b" ", 0, cut)
        self._held = octets[cut:]
        octets = octets[:cut]
        octets = CRLF.join(octets.split(b" \r\n"))  # replace() would search twice
        self._pass_on(octets)

    def finish(self) -> BodyDigests:
        # A space that ends a last line without CRLF is white space at the end of a line too.
        self._held = b"" if self._held == b" " else self._held
        self._flush()
        if self._sink.size:
            self._sink.update(CRLF)
        return self._sink.finish()


def _without_line_ends(octets: bytes) -> tuple[int, int]:
    """Where the CRLFs at the end of `octets` begin, and how many they are."""
    if not octets.endswith(CRLF):
        return len(octets), 0
    rest = len(octets.rstrip(CRLF))
    tail = octets[rest:]
    # Among CRs and LFs only, the octets after the last doubled one alternate.
    begin = max(tail.rfind(b"\r\r"), tail.rfind(b"\n\n")) + 1
    begin += tail[begin : begin + 1] == b"\n"
    return rest + begin, (len(tail) - begin) // 2
