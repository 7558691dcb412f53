"""What Python's own readers find in a From field. Lines as in readers.js."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import json
import sys
from collections.abc import Callable
from email import message_from_bytes, policy
from email.headerregistry import Address, AddressHeader, HeaderRegistry
from typing import Any

REGISTRY = HeaderRegistry()
LENIENT = {"strict": False} if getattr(email.utils, "supports_strict_parsing", False) else {}


def by_policy(octets: bytes) -> list[str]:
    return addresses(
        message_from_bytes(b"From:" + octets + b"\n\n", policy=policy.SMTPUTF8)["from"]
    )


def by_registry(octets: bytes) -> list[str]:
    """As a program does it that has unfolded and decoded the octets itself."""
    text = octets.decode("utf-8", "replace").replace("\r\n", "").replace("\n", "")
    return addresses(REGISTRY("From", text.strip()))


def addresses(header: Any) -> list[str]:
    """Of an address that it cannot read the whole stands in the user name."""
    assert isinstance(header, AddressHeader)
    found: tuple[Address, ...] = header.addresses
    return [f"{each.username}@{each.domain}" if each.domain else each.username for each in found]


def by_getaddresses(octets: bytes) -> list[str]:
    """Lenient: the strict form and parseaddr show some of the same addresses or none.

    Lines end as in a file: a quotation that is folded by CRLF ends there for it, so that it takes
    the name of much honest mail for its address.
    """
    text = str(message_from_bytes(b"From:" + octets.replace(b"\r\n", b"\n") + b"\n\n")["from"])
    return [address for _, address in email.utils.getaddresses([text], **LENIENT) if address]


READERS: dict[str, Callable[[bytes], list[str]]] = {
    "email.policy": by_policy,
    "email.headerregistry": by_registry,
    "getaddresses": by_getaddresses,
}


def read(octets: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, reader in READERS.items():
        if reader is by_registry and octets.isascii() and b"\n" not in octets:
            continue  # the same text gives the same header
        found[name] = []
        with contextlib.suppress(Exception):  # a reader that gives up shows nobody
            found[name] = reader(octets)
    return found


def main() -> None:
    for line in sys.stdin:
        print(json.dumps([read(base64.b64decode(each)) for each in json.loads(line)]), flush=True)


if __name__ == "__main__":
    main()
