"""A small world: senders with their DNS, and messages whose right treatment is known. The demo and
the live tests share it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from fakes.signer import Signer
from live.sendmail import ADDRESSES
from live.smtp import Client

AUTHSERV_ID = "mx.test.example"

SENDER = Client("203.0.113.7", "mail.sender.example")
SENDER_6 = Client("2001:db8::5", "mail.sender.example")
STRANGER = Client("203.0.113.66", "host.forwarder.example")
"""A client that only forwarder.example's SPF record names."""


@cache
def zone() -> dict[str, dict[str, Any]]:
    """The DNS of this world, as fakes.dns_server takes it."""
    sender = f"ip4:203.0.113.7 ip4:{ADDRESSES['203.0.113.7']} ip6:2001:db8::5"
    forwarder = f"ip4:203.0.113.66 ip4:{ADDRESSES['203.0.113.66']}"
    names: dict[str, dict[str, Any]] = {
        "sender.example": {"TXT": [f"v=spf1 {sender} -all"]},
        "_dmarc.sender.example": {"TXT": ["v=DMARC1; p=reject"]},
        **Signer("sender.example").records(),
        "forwarder.example": {"TXT": [f"v=spf1 {forwarder} -all"]},
        "host.forwarder.example": {"A": ["203.0.113.66"]},
        "mail.sender.example": {"A": ["203.0.113.7"]},
    }
    for policy in ("none", "quarantine", "reject"):
        names[f"{policy}.example"] = {"TXT": ["v=spf1 -all"]}
        names[f"_dmarc.{policy}.example"] = {"TXT": [f"v=DMARC1; p={policy}"]}
    return names


def signed(message: bytes, domain: str = "sender.example") -> bytes:
    """The message with a DKIM signature by that domain on top, CRLF line ends."""
    return Signer(domain).sign(re.sub(rb"\r?\n", b"\r\n", message))


def letter(
    author: str, *, subject: str = "Hello", above: str = "", body: str = "Hello.\n"
) -> bytes:
    """A plain message. `above` is put on top of its header block, with its line end."""
    text = (
        f"{above}From: {author}\nTo: bob@test.example\nSubject: {subject}\nDate: Sun, 1 Nov 2026"
        " 12:00:00 +0000\n"
    )
    return (
        f"{text}Message-ID: <{subject.replace(' ', '.').lower()}@sender.example>\n\n{body}".encode()
    )


@dataclass(frozen=True, slots=True)
class Scenario:
    """One message, who hands it over, and what must become of it."""

    name: str
    client: Client
    mail_from: str
    message: bytes
    code: int
    """Of the reply to end of data."""
    dmarc: str
    """The dmarc word of our field; "" when the message is refused."""
    disposition: str
    sentence: str
    gone: bytes = b""
    """Octets of the message that may not arrive."""


FORGED = f"Authentication-Results: {AUTHSERV_ID};\n dmarc=pass header.from=reject.example\n"


@cache
def scenarios() -> tuple[Scenario, ...]:
    """The eight messages of `make demo`."""
    return (
        Scenario(
            "aligned pass by SPF", SENDER, "alice@sender.example",
            letter("Alice <alice@sender.example>", subject="By SPF"),
            250, "pass", "none",
            "The client is named by sender.example's SPF record and MAIL FROM is in the"
            " author's domain.",
        ),
        Scenario(
            "aligned pass by DKIM", STRANGER, "", signed(letter("Alice <alice@sender.example>",
            subject="By DKIM")),
            250, "pass", "none",
            "SPF says nothing for the author's domain, but its own DKIM signature verifies.",
        ),
        Scenario(
            "forwarded", STRANGER, "bounce@forwarder.example",
            signed(letter("Alice <alice@sender.example>", subject="Forwarded")),
            250, "pass", "none",
            "SPF passes for the forwarder, which is not the author; the author's"
            " signature survived the way.",
        ),
        Scenario(
            "spoofed, p=none", STRANGER, "x@forwarder.example", letter("Boss <boss@none.example>",
            subject="Spoofed none"),
            250, "fail", "none",
            "Nothing speaks for none.example, and its owner only asks for reports.",
        ),
        Scenario(
            "spoofed, p=quarantine", STRANGER, "x@forwarder.example",
            letter("Boss <boss@quarantine.example>", subject="Quarantine"),
            250, "fail", "quarantine",
            "Nothing speaks for quarantine.example: delivered, marked for the Junk folder.",
        ),
        Scenario(
            "spoofed, p=reject", STRANGER, "x@forwarder.example",
            letter("Boss <boss@reject.example>", subject="Spoofed reject"),
            550, "", "reject",
            "Nothing speaks for reject.example, and its owner asks that such mail be refused.",
        ),
        Scenario(
            "two From fields", SENDER, "alice@sender.example",
            letter("Alice <alice@sender.example>", above="From: Boss <boss@reject.example>\n",
            subject="Two From"),
            550, "", "reject",
            "A reader may see either author, so neither counts as verified and the"
            " stricter policy decides.",
        ),
        Scenario(
            "forged Authentication-Results", SENDER, "alice@sender.example",
            letter("Alice <alice@sender.example>", above=FORGED, subject="Forged result"),
            250, "pass", "none",
            "The field that claimed to be ours was taken out; the one on top is ours.",
            b"header.from=reject.example",
        ),
    )  # fmt: skip


def our_fields(message: bytes) -> list[str]:
    """The Authentication-Results fields under our id, unfolded, topmost first."""
    head = re.sub(rb"\r\n", b"\n", message).partition(b"\n\n")[0].decode("utf-8", "replace")
    fields = re.findall(
        r"^Authentication-Results:((?:.*)(?:\n[ \t].*)*)", head, re.MULTILINE | re.IGNORECASE
    )
    unfolded = (" ".join(field.split()) for field in fields)
    return [field for field in unfolded if field.lower().startswith(AUTHSERV_ID)]


def field_names(message: bytes) -> list[str]:
    """Names of all fields, in order, lower case."""
    head = re.sub(rb"\r\n", b"\n", message).partition(b"\n\n")[0]
    return [
        name.decode().lower() for name in re.findall(rb"^([!-9;-~]+)[ \t]*:", head, re.MULTILINE)
    ]


def dmarc_word(field: str) -> str:
    """The dmarc result in one of our fields; "" where it has none."""
    found = re.search(r"\bdmarc=([a-z]+)", field)
    return found[1] if found else ""


def disposition_said(field: str) -> str:
    """What `dis=` says; "none" where it says nothing."""
    found = re.search(r"\bdis=([a-z]+)", field)
    return found[1] if found else "none"
