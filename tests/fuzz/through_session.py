"""The session with the whole core behind it, driven by packets that any octets give."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address

from dmarc_milter.core.actions.plan import (
    Action,
    DeleteHeader,
    InsertHeader,
    Marking,
    Reply,
    plan_actions,
    remove_forged,
)
from dmarc_milter.core.authenticate import Options, authenticate, prepare
from dmarc_milter.core.mail.message import Envelope, Headers
from dmarc_milter.core.mail.message import parse as parse_message
from dmarc_milter.core.mail.path import reverse_path
from dmarc_milter.core.spf.check import check as check_spf
from dmarc_milter.session.handler import Own, SessionOptions
from dmarc_milter.session.session import Session
from fakes import strict_authres
from fakes.dns_zone import Zone
from fakes.signer import SIGNED_AT, Signer

LEGIT, ATTACK, ED = (
    Signer("legit.example"),
    Signer("attack.example"),
    Signer("legit.example", "ed", "ed25519-sha256"),
)
NOW = datetime.fromtimestamp(SIGNED_AT + 60, UTC)
OPTIONS = SessionOptions(header_bytes=16384, header_fields=50)
ZONE = {
    **LEGIT.records(),
    **ATTACK.records(),
    **ED.records(),
    "legit.example": {"TXT": ["v=spf1 ip4:198.51.100.10 -all"]},
    "_dmarc.legit.example": {"TXT": ["v=DMARC1; p=reject; rua=mailto:a@legit.example"]},
    "attack.example": {"TXT": ["v=spf1 ip4:192.0.2.66 exists:%{l}.%{h}.attack.example -all"]},
    "_dmarc.attack.example": {"TXT": ["v=DMARC1; p=none"]},
}
MARKING = Marking("mx.example.com")


NOBODY = Own()


def session_envelope() -> Envelope:
    """What a session knows of the attacker before the header."""
    return Envelope(
        ip_address("192.0.2.66"),
        "mx.attack.example",
        reverse_path(b"<any@attack.example>"),
        queue_id="4QUEUE",
    )


@dataclass
class FuzzTransaction:
    """session/transaction.py without threads, ledger and clock."""

    envelope: Envelope
    octets: bytearray = field(default_factory=bytearray)
    fields: Headers = field(default_factory=lambda: Headers(()))

    def headers(self, headers: Headers) -> None:
        self.fields = headers

    def body(self, chunk: bytes) -> bool:
        self.octets += chunk
        return True

    def finish(self, envelope: Envelope, own: Own, *, keep_results: bool) -> tuple[Action, ...]:
        zone, options = Zone(ZONE), Options()
        prepared = prepare(self.fields, zone, options)
        prepared.hash(bytes(self.octets))
        request = prepared.request(
            "1",
            envelope,
            lambda: check_spf(envelope, zone, options.spf),
            to_reporting=own.recipient,
            from_reporting=own.sender,
        )
        evaluation = authenticate(request, zone, options, now=NOW, pct_draw=50.0)
        return plan_actions(evaluation, self.fields, MARKING, keep_results=keep_results)

    def cancel(self) -> None:
        pass


class FuzzHandler:
    def begin(self, envelope: Envelope) -> FuzzTransaction:
        return FuzzTransaction(envelope)

    def pass_through(self, headers: Headers, *, keep_results: bool) -> tuple[Action, ...]:
        return remove_forged(headers, MARKING, keep_results=keep_results)

    def exempted(self, name: str, envelope: Envelope, why: str) -> None:
        pass

    def overloaded(self, name: str, envelope: Envelope | None, reason: str) -> None:
        raise AssertionError(f"a shortage: {reason}")

    def failed(self, name: str, where: str, error: str) -> None:
        raise AssertionError(f"our own failure in {where}: {error}")


def packets(octets: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """The octets as packets: length (two octets), command, arguments that NUL ends."""
    at = 0
    while at + 3 <= len(octets):
        length = struct.unpack_from(">H", octets, at)[0] % 2048
        yield chr(octets[at + 2]), octets[at + 3 : at + 3 + length].split(b"\0")
        at += 3 + length


def pack(*steps: tuple[str, bytes]) -> bytes:
    return b"".join(
        struct.pack(">H", len(data)) + command.encode() + data for command, data in steps
    )


@dataclass
class Driver:
    """One session and what it is sent."""

    session: Session = field(default_factory=lambda: Session(FuzzHandler(), OPTIONS, name="c0"))

    def step(self, command: str, arguments: list[bytes]) -> None:
        one, first = self.session, arguments[0]
        steps: dict[str, Callable[[], object]] = {
            "C": lambda: one.connect(first.decode("latin-1"), lambda _: ""),
            "H": lambda: one.helo(first.decode("utf-8", "surrogateescape")),
            "M": lambda: one.mail(first, arguments[1:], lambda _: ""),
            "R": lambda: one.rcpt(first),
            "L": lambda: one.header(first, arguments[-1]),
            "N": lambda: one.end_of_headers(lambda name: "4QUEUE" if name == "i" else ""),
            "B": lambda: one.body(first),
            "A": one.abort,
            "E": lambda: judged(one.end_of_message(lambda _: "4QUEUE")),
        }
        if command in steps:
            steps[command]()


def session(octets: bytes) -> None:
    """Any events in any order: no failure of ours, and our field is what the strict reader
    reads."""
    driver = Driver()
    for command, arguments in packets(octets):
        driver.step(command, arguments)
    driver.session.close()


def judged(actions: Sequence[Action]) -> None:
    """At most one field of ours, strictly RFC 8601; deletions from the highest index down; a
    refusal stands alone."""
    if any(isinstance(each, Reply) for each in actions):
        assert len(actions) == 1
        return
    deleted = [
        each.index
        for each in actions
        if isinstance(each, DeleteHeader) and each.name == "Authentication-Results"
    ]
    assert deleted == sorted(set(deleted), reverse=True)
    ours = [
        each
        for each in actions
        if isinstance(each, InsertHeader) and each.name == "Authentication-Results"
    ]
    assert len(ours) == 1
    assert actions[-1] is ours[0]
    field = strict_authres.parse(ours[0].value.encode(), smtputf8=True)
    dmarc = field.one("dmarc")
    assert dmarc.properties.get("header.from", "").isascii()
    assert dmarc.result != "pass" or any(
        each.result == "pass" and each.method in ("spf", "dkim") for each in field.results
    ), "a pass without a method that passed"


def scene(raw: bytes, *, sender: bytes = b"<any@attack.example>") -> bytes:
    fields, body = parse_message(raw)
    steps = [
        ("C", b"192.0.2.66"),
        ("H", b"mx.attack.example"),
        ("M", sender),
        ("R", b"<v@example.com>"),
    ]
    steps += [("L", each.name + b"\0" + each.value) for each in fields]
    return pack(*steps, ("N", b""), ("B", body), ("E", b""))
