"""Signs messages as a sender would, by the text of RFC 6376, 8463 and 8617 and by nothing that the
package under test uses.

    legit = Signer("legit.example")                      # one key for each (domain, selector,
    algorithm, bits), made once
    zone = Zone(legit.records())
    raw = legit.sign(b"From: a@legit.example\\r\\n\\r\\nhello\\r\\n", tags={"x": "1700000000", "i":
    None})
    fields, body = header_fields(raw)

Every tag can be replaced (a str), left out (None) or added; nothing is checked, so that wrong
signatures can be made too.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from dmarc_milter.core.mail.message import HeaderField

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Field = tuple[bytes, bytes]
SIGNED = ("from", "to", "subject", "date", "message-id")
SIGNED_AT = 1_700_000_000


class Style(NamedTuple):
    """How a signature field is spelled."""

    lead: str = " "
    separator: str = "; "
    equals: str = "="
    end: str = ""


@cache
def private_key(name: str, kind: str = "rsa", bits: int = 2048) -> PrivateKey:
    """The key of this name, `rsa` or `ed25519`; made once in a test session."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    return rsa.generate_private_key(65537, bits)


def public_text(key: PrivateKey, *, pkcs1: bool = False) -> str:
    """p= of the key's record: SubjectPublicKeyInfo or RSAPublicKey, or the 32 octets of RFC
    8463."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return base64.b64encode(
            key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        ).decode()
    form = PublicFormat.PKCS1 if pkcs1 else PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, form)).decode()


def header_fields(raw: bytes) -> tuple[list[HeaderField], bytes]:
    """The header fields of a message with CRLF line ends, and its body."""
    header, _, body = raw.partition(b"\r\n\r\n")
    fields: list[Field] = []
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] = (fields[-1][0], fields[-1][1] + b"\r\n" + line)
        elif line:
            name, _, value = line.partition(b":")
            fields.append((name, value))
    return [HeaderField(name.rstrip(b" \t"), value) for name, value in fields], body


def canonical_field(field: Field, mode: str) -> bytes:
    """One field with CRLF (RFC 6376 3.4.1, 3.4.2)."""
    name, value = field
    if mode == "simple":
        return name + b":" + value + b"\r\n"
    unfolded = value.replace(b"\r\n", b"")
    return (
        name.rstrip(b" \t").lower()
        + b":"
        + re.sub(rb"[ \t]+", b" ", unfolded).strip(b" ")
        + b"\r\n"
    )


def canonical_body(body: bytes, mode: str) -> bytes:
    """The whole body (RFC 6376 3.4.3, 3.4.4), line by line."""
    if mode == "relaxed":
        body = re.sub(rb"[ \t]+", b" ", body)
    lines = body.split(b"\r\n")
    if mode == "relaxed":
        lines = [line.rstrip(b" ") for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        return b"" if mode == "relaxed" else b"\r\n"
    return b"\r\n".join(lines) + b"\r\n"


def selected(fields: Sequence[Field], names: Sequence[str]) -> list[Field]:
    """What h= covers, in its order, from the bottom up (RFC 6376 5.4.2)."""
    left = list(fields)
    chosen = []
    for name in names:
        for index in range(len(left) - 1, -1, -1):
            if left[index][0].lower() == name.lower().encode():
                chosen.append(left.pop(index))
                break
    return chosen


class Signer:
    """One domain with one key. `bits` below 1024 cannot be made here: publish such a record by
    hand. `key` is one that was made before."""

    def __init__(
        self,
        domain: str,
        selector: str = "sel",
        algorithm: str = "rsa-sha256",
        bits: int = 2048,
        *,
        key: PrivateKey | None = None,
    ) -> None:
        self.domain = domain
        self.selector = selector
        self.algorithm = algorithm
        kind = algorithm.partition("-")[0]
        self.key = key or private_key(f"{selector}._domainkey.{domain}", kind, bits)

    @property
    def key_name(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"

    def record(self, extra: str = "", *, pkcs1: bool = False) -> str:
        """The key record; `extra` stands between v= and p=, such as "t=y; "."""
        kind = "ed25519" if isinstance(self.key, ed25519.Ed25519PrivateKey) else "rsa"
        return f"v=DKIM1; k={kind}; {extra}p={public_text(self.key, pkcs1=pkcs1)}"

    def records(self, extra: str = "") -> dict[str, dict[str, list[str]]]:
        """The key record as the start of a Zone."""
        return {self.key_name: {"TXT": [self.record(extra)]}}

    def sign(self, raw: bytes, **how: object) -> bytes:
        """`raw` with a DKIM-Signature field on top; `how` as for `field`."""
        name, value = self.field(raw, **how)  # type: ignore[arg-type]
        return name + b":" + value + b"\r\n" + raw

    def field(
        self,
        raw: bytes,
        *,
        headers: Sequence[str] = SIGNED,
        c: str = "relaxed/relaxed",
        length: int | None = None,
        tags: Mapping[str, str | None] | None = None,
        style: Style = Style(),
        name: bytes = b"DKIM-Signature",
        first: Sequence[str] = (),
    ) -> Field:
        """A DKIM-Signature field for the message `raw` (CRLF line ends).

        `headers` is h=, and what is hashed; `length` signs that many octets of the body and says
        so. `tags` overrides what the field says, not what is hashed; the tags named in `first`
        stand before the others.
        """
        fields, body = header_fields(raw)
        header_mode, _, body_mode = c.partition("/")
        hashed = canonical_body(body, body_mode or "simple")[:length]
        stated: dict[str, str | None] = dict.fromkeys(first) | {
            "v": "1",
            "a": self.algorithm,
            "c": c,
            "d": self.domain,
            "s": self.selector,
            "t": str(SIGNED_AT),
            "l": None if length is None else str(length),
            "h": ":".join(headers),
            "bh": (
                base64.b64encode(
                    hashlib.new(self.algorithm.rpartition("-")[2], hashed).digest()
                ).decode()
            ),
            "b": "",
        }
        stated.update(tags or {})
        return self.complete(
            name,
            stated,
            b"".join(canonical_field(each, header_mode) for each in selected(fields, headers)),
            header_mode,
            style,
        )

    def complete(
        self,
        name: bytes,
        stated: Mapping[str, str | None],
        covered: bytes,
        mode: str,
        style: Style = Style(),
    ) -> Field:
        """The field with these tags; b= signs `covered` and the field itself (RFC 6376 3.7). An
        explicit b= stays."""
        if stated.get("b") is None:
            return name, self._spell(stated, style, "")
        octets = self.signature(
            covered
            + canonical_field((name, self._spell(stated, style, "")), mode).removesuffix(b"\r\n")
        )
        return name, self._spell(stated, style, stated["b"] or base64.b64encode(octets).decode())

    def signature(self, data: bytes) -> bytes:
        """b= over `data`, before base64."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(hashlib.sha256(data).digest())
        if self.algorithm == "rsa-sha1":
            return self.key.sign(hashlib.sha1(data).digest(), padding.PKCS1v15(), Prehashed(SHA1()))
        return self.key.sign(hashlib.sha256(data).digest(), padding.PKCS1v15(), Prehashed(SHA256()))

    @property
    def pem(self) -> bytes:
        """The private key as dkimpy wants it."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return base64.b64encode(
                self.key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
            )
        return self.key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )

    @staticmethod
    def _spell(stated: Mapping[str, str | None], style: Style, signature: str) -> bytes:
        # White space around the value of b= is not hashed (RFC 6376 3.5): "\0" marks where it goes.
        shown = {**stated, "b": None if stated.get("b") is None else signature or "\0"}
        text = style.separator.join(
            f"{tag}{style.equals}{value}" for tag, value in shown.items() if value is not None
        )
        return (style.lead + re.sub("[ \t\r\n]*\0[ \t\r\n]*", "", text + style.end)).encode(
            "utf-8", "surrogateescape"
        )
