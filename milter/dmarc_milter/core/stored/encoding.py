"""How facts are stored: MessagePack, by a version that later programs read."""

from __future__ import annotations

import msgspec

from dmarc_milter.core.stored.facts import VERSION, Facts

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Facts)


class UnreadableFacts(ValueError):
    """Stored facts that this version cannot read: written by a newer one, or damaged."""


def encode(facts: Facts) -> bytes:
    """The stored form (MessagePack, defaults left out)."""
    return _ENCODER.encode(facts)


def decode(data: bytes) -> Facts:
    """Facts as they were encoded by this or any earlier version. Raises UnreadableFacts."""
    try:
        facts = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableFacts(str(error)) from None
    if facts.version > VERSION:
        raise UnreadableFacts(
            f"facts of version {facts.version}, this program reads up to {VERSION}"
        )
    return facts
