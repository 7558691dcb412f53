"""What redaction knows of words: which are a host or a domain, and what stands for a name."""

from __future__ import annotations

import hmac
import re
from base64 import b32encode
from hashlib import sha256

TOKEN = 12
REDACTED = "[redacted]"
QUOTED = r'"(?:[^"\\]|\\.)*+"'
HOST = r"[A-Za-z0-9._-]{1,255}"
# Letters alone are a name: Ada and Bea are hexadecimal too.
IP = r"(?:[Ii][Pp]v6:)?(?=[0-9A-Fa-f]*+[.:])[0-9A-Fa-f.:]{2,45}(?:%[A-Za-z0-9]{1,16})?"
LITERAL = rf"\[{IP}\](?::[0-9]{{1,5}})?"
LAST_MAILBOX = re.compile(rf"<?(?P<local>{QUOTED}|[^\s<>\"@]++)?@(?P<host>{HOST})>?", re.DOTALL)
DOMAIN = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*+)\.)+(?P<top>[A-Za-z0-9-]{2,63})\.?")
TOPS = frozenset(
    (
        *("com", "net", "org", "edu", "gov", "mil", "int", "info", "biz", "arpa"),
        *("example", "test", "invalid", "local", "lan", "localdomain", "internal", "corp", "home"),
    )
)
"""Besides those of two letters and of A-labels. A user may be called ada.lovelace."""
DATE = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?[0-9]{1,2} [A-Z][a-z]{2} [0-9]{2,4}"
    r" [0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?(?: [+-][0-9]{4}| ZONE\b)?(?: \(ZONE\))?".replace(
        "ZONE",
        "(?:UTC|GMT|UT|Z|[ECMP][SD]T|BST|IST|CES?T|EES?T|WES?T|MES?T|MSK|JST|KST|HKT|SGT|SAST|AES?T"
        "|AEDT|NZ[SD]T|AK[SD]T|HST)",
    )
)


def token(local: bytes, key: bytes) -> str:
    """The same for the same local part as long as the key stays, and telling nothing of it (RFC
    6590 3)."""
    digest = hmac.digest(key, local.lower(), sha256)
    return b32encode(digest)[:TOKEN].decode().lower()


def named(local: str, host: str, key: bytes) -> str:
    """The mailbox, its local part replaced."""
    return f"{token(local.encode('latin-1'), key)}@{host.lower()}"


def is_domain(text: str) -> bool:
    """Whether the text is rather a domain than a user with a full stop in the name."""
    match = DOMAIN.fullmatch(text)
    if match is None or len(text) > 255:
        return False
    top = match["top"].lower()
    return top in TOPS or top.startswith("xn--") or (len(top) == 2 and top.isalpha())


def one_mailbox(text: str, key: bytes, *, bare: bool = False) -> str:
    """A path or addr-spec, its local part replaced; with `bare` a plain domain too; else nothing
    that was there."""
    match = LAST_MAILBOX.fullmatch(text)
    if match:
        host = match["host"].lower()
        return named(match["local"], host, key) if match["local"] else f"@{host}"
    return text.lower() if bare and is_domain(text) else REDACTED
