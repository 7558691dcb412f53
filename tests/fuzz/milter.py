"""The milter protocol as a fuzz target: what any bytes of an MTA must do to the decoder."""

from __future__ import annotations

from collections.abc import Iterable

from dmarc_milter.session import packets, protocol


def milter_packets(octets: bytes) -> None:
    """Any bytes give packets or one complaint; the same ones in whatever pieces they come; macros
    of the end are none of an earlier client's."""
    whole = _packets_of([octets])
    step = 1 + len(octets) % 7
    assert _packets_of(octets[at : at + step] for at in range(0, len(octets), step)) == whole
    table = protocol.MacroTable()
    for packet in whole:
        if isinstance(packet, packets.Macro):
            table.add(packet)
            continue
        if isinstance(packet, str):
            assert packet.isascii()
            assert packet.isprintable()
            return
        table.follow(packet)
        if isinstance(packet, packets.OptNeg) and packet.version >= 2:
            agreement, answer = protocol.negotiate(packet)
            assert not agreement.steps & ~packet.steps
            assert len(answer) >= 17
    table.follow(packets.QuitNewConnection())
    assert not any(map(table, ("i", "v", "{client_addr}", "{auth_authen}", "{daemon_name}")))


def _packets_of(pieces: Iterable[bytes]) -> list[packets.Packet | str]:
    """The packets, and the complaint that ends them, if any."""
    decoder = protocol.Decoder()
    found: list[packets.Packet | str] = []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while (packet := decoder.next_packet()) is not None:
                found.append(packet)
    except packets.ProtocolError as error:
        found.append(str(error))
    return found


def _packet(text: bytes) -> bytes:
    return len(text).to_bytes(4) + text


OFFER = _packet(b"O\0\0\0\6\0\0\1\xff\0\x1f\xff\xff")
MILTER_SEEDS = [
    OFFER
    + _packet(b"DC{daemon_name}\0MTA\0{client_addr}\x00192.0.2.1\0")
    + _packet(b"Cmail.example\x004\0\x19192.0.2.1\0")
    + _packet(b"Hmail.example\0")
    + _packet(b"DMi\0Q1\0{auth_authen}\0bob\0")
    + _packet(b"M<a@b.example>\0SMTPUTF8\0")
    + _packet(b"R<v@example.com>\0"),
    OFFER + _packet(b"LFrom\0 a@b.example\0") + _packet(b"N") + _packet(b"Bxy") + _packet(b"E"),
    OFFER
    + _packet(b"A")
    + _packet(b"K")
    + _packet(b"Cx\0U")
    + _packet(b"UXYZZY\0")
    + _packet(b"Q"),
]
