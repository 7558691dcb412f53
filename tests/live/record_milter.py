"""Records what real MTAs send over the milter protocol, into the vectors milter-postfix-2,
milter-postfix-6 and milter-sendmail.

    python -m live.record_milter

Each line is one packet, its command and data as a Python literal; an empty line ends a connection.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmarc_milter.session.packets import EndOfMessage, OptNeg, Packet, Quit
from dmarc_milter.session.protocol import CONTINUE, Decoder, answer, negotiate
from live.place import private_folder
from live.postfix import private_postfix
from live.sendmail import private_sendmail
from live.smtp import Client, Smtp

VECTORS = Path(__file__).parents[1] / "vectors"
LETTER = (
    b"From: a@b.example\r\nSubject:  two spaces\r\nX-Folded: a\r\n\tb\r\nX-8: \xe9\r\n"
    b"\r\nHello.\r\n"
)


class Recorder:
    """A milter that says continue, and keeps what it hears."""

    def __init__(self, path: Path) -> None:
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        path.chmod(0o666)
        self.server.listen()
        self.connections: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            peer, _ = self.server.accept()
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        heard = bytearray()
        self.connections.append(heard)
        decoder, silent = Decoder(), frozenset[type[Packet]]()
        with peer:
            while octets := peer.recv(65536):
                heard += octets
                decoder.feed(octets)
                while (packet := decoder.next_packet()) is not None:
                    if isinstance(packet, Quit):
                        return
                    if isinstance(packet, OptNeg):
                        agreement, reply = negotiate(packet)
                        silent = agreement.silent
                        peer.sendall(reply)
                    elif isinstance(packet, EndOfMessage):
                        peer.sendall(answer((), agreement))
                    elif type(packet) not in silent:
                        peer.sendall(CONTINUE)

    def write(self, name: str) -> None:
        lines = []
        for heard in self.connections:
            rest = bytes(heard)
            while rest:
                length = int.from_bytes(rest[:4])
                lines.append(repr(rest[4 : 4 + length]))
                rest = rest[4 + length :]
            lines.append("")
        text = "\n".join(lines).replace("127.0.0.1", "192.0.2.1")
        (VECTORS / f"milter-{name}.txt").write_text(text)


@contextmanager
def recorded(name: str) -> Iterator[str]:
    """The milter's address."""
    with private_folder("milter", parent="/run") as folder:
        recorder = Recorder(folder / "m")
        yield f"unix:{folder}/m"
        recorder.write(name)


def talk(smtp: Smtp, *, helo: str = "client.example") -> None:
    """Two messages, one given up between them, and an unknown command."""
    assert smtp.command(f"EHLO {helo}").code == 250
    smtp.command("XYZZY plugh")
    smtp.transaction(LETTER, mail_from="a@b.example", recipients=("v@test.example",))
    smtp.command("MAIL FROM:<given@up.example> SIZE=100")
    smtp.command("RSET")
    smtp.transaction(b"\r\n", mail_from="", recipients=("v@test.example", "w@test.example"))


def postfix(milter: str, **settings: str) -> None:
    with private_postfix(milters=milter, extra=settings) as mta:
        for client in (
            Client("203.0.113.7", "mail.sender.example"),
            Client("2001:db8::5", "six.example"),
        ):
            with Smtp(mta.port) as smtp:
                smtp.become(client)
                talk(smtp)


def main() -> None:
    for version in ("2", "6"):
        with recorded(f"postfix-{version}") as milter:
            postfix(milter, milter_protocol=version)
    with recorded("sendmail") as milter:
        filters = f"INPUT_MAIL_FILTER(`x', `S={milter}, F=T')dnl"
        with private_sendmail(filters=filters) as mta, mta.connect("203.0.113.7") as smtp:
            talk(smtp)


if __name__ == "__main__":
    main()
