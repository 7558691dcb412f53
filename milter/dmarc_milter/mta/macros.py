"""What an MTA's macros say, read: a client's address, a queue id, whose MTA it is."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from dmarc_milter.core.mail import ip_address
from dmarc_milter.core.mail.ip_address import IPAddress

SENDMAIL_VERSION = re.compile(r"(?:[^\s/]+/)?[0-9]+\.[0-9]")
"""8.17.1.9/8.17.1.9/Debian-2, 8.14.4+Sun, AIX7.2/8.14.4."""
MAX_ADDRESS = 100
"""Characters of an address that are looked at: more than any has."""


@lru_cache(maxsize=1024)
def _parsed(bare: str) -> IPAddress | None:
    return ip_address.parse_address(bare)


def parse_address(text: str) -> IPAddress | None:
    """An address as an MTA's macro has it (core/mail/ip_address.py). The same clients come
    again."""
    return _parsed(text[:MAX_ADDRESS])


def mta_named(version: str) -> Literal["", "sendmail", "postfix"]:
    """From the macro v: Postfix writes its name, which mail_name may change, and its version,
    Sendmail its version alone."""
    if version.lower().startswith("postfix"):
        return "postfix"
    return "sendmail" if SENDMAIL_VERSION.match(version[:MAX_ADDRESS]) else ""


def queue_id(text: str) -> str:
    """A queue id fit to print: ASCII letters, digits, - and _, at most 64; "" otherwise."""
    bare = text.replace("-", "").replace("_", "")
    return text if len(text) <= 64 and text.isascii() and (bare.isalnum() or not bare) else ""
