"""Header fields as they come in, within limits: what exceeds them is counted, and only what must be
removed is kept."""

from __future__ import annotations

from functools import partial

from dmarc_milter.core.mail.message import HeaderField, Headers

REMOVABLE = frozenset((b"from", b"authentication-results", b"x-dmarc-quarantine"))
"""Fields that are counted and kept beyond the limits (docs/design.md, What a message gets)."""
SECOND_BLOCK = 256 * 1024
SECOND_COUNT = 1000
"""Beyond the limits, so much of the removable fields of each name is kept word for word; after that
only their positions are."""
MAX_POSITIONS = 100_000
SIGNATURE = b"dkim-signature"
BLANKS = (b" ", b"\t")
COUNTED = 10
"""Signatures that count as fields; more have a limit of their own as large, so that a heap of them
cannot make the good one unread."""

AS_FIELD = partial(tuple.__new__, HeaderField)
"""HeaderField._make, which costs a call in Python for each of a message's fields."""


class Collector:
    """The header fields of one message.

    Within `max_bytes` and `max_fields` every field is kept (of signatures see COUNTED). Beyond,
    only removable ones: word for word up to a second, fixed limit for each name, so that no heap of
    others hides From; then as `stand_ins` (lower-case name -> value), so that their indexes are
    right and whoever removes fields takes them for forged. `overflow` is true when not even the
    positions could be kept.
    """

    def __init__(self, max_bytes: int, max_fields: int, stand_ins: dict[bytes, bytes]) -> None:
        self._max_bytes, self._max_fields = max_bytes, max_fields
        self._stand_ins = {name: HeaderField(name, value) for name, value in stand_ins.items()}
        self._fields: list[tuple[bytes, bytes]] = []
        self._bytes = 0
        self._second: dict[bytes, tuple[int, int]] = {}
        """Fields and bytes kept beyond the limits, by lower-case name."""
        self._signatures: int | None = None
        """Signatures among the fields kept; not counted before there are `max_fields` of those."""
        self._left_out = 0
        self.truncated = False
        self.overflow = False

    def add(self, name: bytes, value: bytes) -> None:
        """One field: the name as the MTA gives it; the value with its leading space, folds as LF or
        CRLF."""
        if name.endswith(BLANKS):  # RFC 5322 4.5: obsolete syntax allows space before the colon
            name = name.rstrip(b" \t")
        size = len(name) + len(value) + 3
        used = self._bytes + size
        if (
            not self.truncated
            and used <= self._max_bytes
            and (len(self._fields) < self._max_fields or self._has_room(name))
        ):
            self._bytes = used
            self._fields.append((name, with_crlf(value) if b"\n" in value else value))
            return
        self.truncated = True
        if (lower := name.lower()) in REMOVABLE:
            self._add_beyond(name, lower, value, size)
        else:
            self._left_out += 1

    def _has_room(self, name: bytes) -> bool:
        """Whether one more field of this name is within the number of fields, of which there are
        as many as may be, signatures beyond COUNTED included; counts a signature."""
        if self._signatures is None:
            self._signatures = sum(kept.lower() == SIGNATURE for kept, _ in self._fields)
        if name.lower() == SIGNATURE:
            self._signatures += 1
            if self._signatures > COUNTED:
                return self._signatures <= self._max_fields
        return len(self._fields) - max(0, self._signatures - COUNTED) < self._max_fields

    def _add_beyond(self, name: bytes, lower: bytes, value: bytes, size: int) -> None:
        count, octets = self._second.get(lower, (0, 0))
        if len(self._fields) >= self._max_fields + MAX_POSITIONS:
            self.overflow = True
        elif octets + size <= SECOND_BLOCK and count < SECOND_COUNT:
            self._second[lower] = (count + 1, octets + size)
            self._fields.append((name, with_crlf(value)))
        else:
            self._second[lower] = (count, SECOND_BLOCK)
            self._fields.append(self._stand_ins.get(lower) or HeaderField(lower, b""))

    def lost(self) -> None:
        """A field came whose name or value could not be had: signatures cannot be judged."""
        self.truncated = True

    def headers(self) -> Headers:
        """All that was kept."""
        return Headers(
            map(AS_FIELD, self._fields),
            truncated=self.truncated,
            total=len(self._fields) + self._left_out,
        )


def with_crlf(value: bytes) -> bytes:
    """MTAs join folded lines by LF; signatures are over CRLF. A bare CR stays what it is."""
    if b"\n" not in value:
        return value
    return value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
