"""Key records (RFC 6376 3.6.1, RFC 8301, RFC 8463): every number is checked before it is computed
with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from dmarc_milter.core.dkim import tags
from dmarc_milter.core.mail.domain import Malformed

MAX_EXPONENT = 2**32 - 1
ED25519_OCTETS = 32
ED25519_PRIME = 2**255 - 19
ED25519_ORDER_EIGHT = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
ED25519_SMALL_ORDER = frozenset(
    {0, 1, ED25519_PRIME - 1, ED25519_ORDER_EIGHT, ED25519_PRIME - ED25519_ORDER_EIGHT}
)
"""The y coordinates of the eight points under which anyone can sign anything (RFC 8032 5.1.7,
cofactor 8)."""
SHA256_PKCS1 = (PKCS1v15(), Prehashed(SHA256()))


@dataclass(frozen=True, slots=True)
class Key:
    """A usable public key and what its record allows."""

    public: RSAPublicKey | Ed25519PublicKey
    algorithm: Literal["rsa-sha256", "ed25519-sha256"]
    """The one a= that goes with this key (RFC 6376 6.1.2 step 6)."""
    bits: int
    testing: bool = False
    """t=y"""
    same_domain: bool = False
    """t=s: the domain of i= must be d= itself."""

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Whether `signature` is this key's over the SHA-256 `digest`.

        RSA: RFC 8017 8.2.2, with the length and range checks that dkimpy's own arithmetic leaves
        out. Ed25519: RFC 8463 3, PureEdDSA over the digest.
        """
        try:
            if isinstance(self.public, RSAPublicKey):
                self.public.verify(signature, digest, *SHA256_PKCS1)
            else:
                self.public.verify(signature, digest)
        except (InvalidSignature, ValueError):
            return False
        return True


@lru_cache(maxsize=1024)
def parse(record: bytes, min_bits: int = 1024, max_bits: int = 8192) -> Key | Malformed:
    """The key of one TXT record; Malformed with the reason of a permerror when it cannot be used.

    RSA keys outside `min_bits`..`max_bits` are not usable. The caller bounds the size of the
    record.
    """
    listed = tags.parse(record, utf8=False)
    if isinstance(listed, Malformed):
        return Malformed("key record syntax")
    reason = _refusal(listed.values)
    if reason:
        return Malformed(reason)
    octets = tags.decode_base64(listed.values[b"p"])
    if octets is None:
        return Malformed("key not base64")
    public = (
        _ed25519(octets)
        if listed.values.get(b"k") == b"ed25519"
        else _rsa(octets, min_bits, max_bits)
    )
    if isinstance(public, Malformed):
        return public
    flags = tags.items(listed.values.get(b"t", b""))
    testing, same_domain = b"y" in flags, b"s" in flags
    if isinstance(public, RSAPublicKey):
        return Key(public, "rsa-sha256", public.key_size, testing, same_domain)
    return Key(public, "ed25519-sha256", 8 * ED25519_OCTETS, testing, same_domain)


def _refusal(values: dict[bytes, bytes]) -> str:
    """Why a record with these tags gives no key, before the key itself is looked at; "" when
    nothing speaks against it."""
    if b"v" in values and (next(iter(values)) != b"v" or values[b"v"] != b"DKIM1"):
        return "key version"
    if values.get(b"k", b"rsa") not in (b"rsa", b"ed25519"):
        return "key type unknown"
    if b"h" in values and b"sha256" not in tags.items(values[b"h"]):
        return "key not for sha256"
    if b"s" in values and not {b"*", b"email"} & set(tags.items(values[b"s"])):
        return "key not for email"
    if b"p" not in values:
        return "key missing in record"
    return "" if values[b"p"] else "key revoked"


def _rsa(der: bytes, min_bits: int, max_bits: int) -> RSAPublicKey | Malformed:
    """SubjectPublicKeyInfo, as everybody publishes, or RSAPublicKey, as RFC 6376 3.6.1 says."""
    try:
        public = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return Malformed("key unusable")
    if not isinstance(public, RSAPublicKey):
        return Malformed("key type differs")
    if public.key_size < min_bits:
        return Malformed("RSA key too short")
    if public.key_size > max_bits:
        return Malformed("RSA key too long")
    numbers = public.public_numbers()
    if not (3 <= numbers.e <= MAX_EXPONENT and numbers.e % 2 and numbers.n % 2):
        return Malformed("key unusable")
    return public


def _ed25519(octets: bytes) -> Ed25519PublicKey | Malformed:
    """A point in its one canonical encoding, and none of small order."""
    if len(octets) != ED25519_OCTETS:
        return Malformed("key unusable")
    y = int.from_bytes(octets, "little") & (2**255 - 1)
    if y >= ED25519_PRIME or y in ED25519_SMALL_ORDER:
        return Malformed("key unusable")
    try:
        return Ed25519PublicKey.from_public_bytes(octets)
    except (ValueError, UnsupportedAlgorithm):
        return Malformed("key unusable")
