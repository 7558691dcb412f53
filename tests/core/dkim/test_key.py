"""Key records: RFC 6376 3.6.1, RFC 8301, RFC 8463."""

import base64
import hashlib
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.dkim import key
from dmarc_milter.core.dkim.key import Key
from dmarc_milter.core.mail.domain import Malformed
from fakes.signer import Signer, private_key, public_text

P = public_text(private_key("key test"))
ED = public_text(private_key("key test", "ed25519"))


def length(count: int) -> bytes:
    if count < 128:
        return bytes([count])
    octets = count.to_bytes((count.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


def element(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + length(len(content)) + content


def integer(value: int) -> bytes:
    return element(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def rsa_record(n: int, e: int) -> bytes:
    """RSAPublicKey with any numbers."""
    return b"p=" + base64.b64encode(element(0x30, integer(n) + integer(e)))


USABLE = {
    f"p={P}": (2048, False, False),
    f"v=DKIM1; p={P}": (2048, False, False),
    f"v=DKIM1;k=rsa;p={P};": (2048, False, False),
    f"v=DKIM1; p={P}; t=y": (2048, True, False),
    f"v=DKIM1; p={P}; t=s:y": (2048, True, True),
    f"v=DKIM1; p={P}; t=x:s": (2048, False, True),
    f"v=DKIM1; p={P}; t=Y": (2048, False, False),
    f"v=DKIM1; h=sha1:sha256; p={P}": (2048, False, False),
    f"v=DKIM1; s=other:email; p={P}": (2048, False, False),
    f"v=DKIM1; s=*; p={P}": (2048, False, False),
    f"v=DKIM1; g=; n=notes here; p={P}; unknown=1": (2048, False, False),
    f"k=rsa; p={P[:40]} {P[40:]}": (2048, False, False),
    f"v=DKIM1; k=ed25519; p={ED}": (256, False, False),
}
UNUSABLE = {
    "": "key record syntax",
    "v=spf1 -all": "key version",
    f"p={P}; v=DKIM1": "key version",
    f"v=DKIM2; p={P}": "key version",
    f"v=dkim1; p={P}": "key version",
    f"v=DKIM1 p={P}": "key version",
    f"v=DKIM1; p={P}; p={P}": "key record syntax",
    f"v=DKIM1; k=dsa; p={P}": "key type unknown",
    f"v=DKIM1; k=RSA; p={P}": "key type unknown",
    f"v=DKIM1; h=sha1; p={P}": "key not for sha256",
    f"v=DKIM1; h=; p={P}": "key not for sha256",
    f"v=DKIM1; s=other; p={P}": "key not for email",
    f"v=DKIM1; s=tlsrpt; p={P}": "key not for email",
    "v=DKIM1": "key missing in record",
    "v=DKIM1; p=": "key revoked",
    "v=DKIM1; p= ;": "key revoked",
    "v=DKIM1; p=!!!": "key not base64",
    f"v=DKIM1; p={P[:-1]}": "key not base64",
    "v=DKIM1; p=AAAA": "key unusable",
    f"v=DKIM1; p={P}\x00": "key record syntax",
    f"v=DKIM1; n=ä; p={P}": "key record syntax",
    f'"v=DKIM1; p={P}"': "key record syntax",
    f"v=DKIM1; k=ed25519; p={P}": "key unusable",
    f"v=DKIM1; k=rsa; p={ED}": "key unusable",
}


@pytest.mark.parametrize("record", USABLE)
def test_a_usable_record_gives_its_key_and_flags(record: str) -> None:
    """RFC 6376 3.6.1; unknown tags, flags, services and hashes are passed over."""
    found = key.parse(record.encode())
    assert isinstance(found, Key)
    assert (found.bits, found.testing, found.same_domain) == USABLE[record]


@pytest.mark.parametrize("record", UNUSABLE)
def test_any_other_record_says_why_it_gives_no_key(record: str) -> None:
    """DKM-05, DKM-08."""
    assert key.parse(record.encode()) == Malformed(UNUSABLE[record])


def test_both_encodings_of_an_rsa_key_are_read() -> None:
    """RFC 6376 3.6.1 says RSAPublicKey, everybody publishes SubjectPublicKeyInfo."""
    signer = Signer("legit.example")
    one, other = key.parse(signer.record().encode()), key.parse(signer.record(pkcs1=True).encode())
    assert isinstance(one, Key)
    assert isinstance(other, Key)
    assert one.bits == other.bits == 2048
    digest = hashlib.sha256(b"text").digest()
    assert one.verifies(signer.signature(b"text"), digest)
    assert other.verifies(signer.signature(b"text"), digest)


@pytest.mark.parametrize(
    ("n", "e", "reason"),
    [
        (2**511 + 1, 65537, "RSA key too short"),
        (2**767 + 1, 65537, "RSA key too short"),
        (2**1022 + 1, 65537, "RSA key too short"),
        (2**1023 + 1, 65537, ""),
        (2**8191 + 1, 65537, ""),
        (2**8192 + 1, 65537, "RSA key too long"),
        (2**16383 + 1, 65537, "RSA key too long"),
        (2**16383 + 1, 2**16382 + 1, "RSA key too long"),
        (2**8191 + 1, 2**8190 + 1, "key unusable"),
        (2**2047 + 1, 3, ""),
        (2**2047 + 1, 2**32 - 1, ""),
        (2**2047 + 1, 2**32 + 1, "key unusable"),
        (2**2047 + 1, 4, "key unusable"),
        (2**2047 + 1, 2, "key unusable"),
        (2**2047 + 1, 1, "key unusable"),
        (2**2047 + 1, 0, "key unusable"),
        (2**2047 + 1, -3, "key unusable"),
        (2**2047, 65537, "key unusable"),
        (-(2**2047) - 1, 65537, "key unusable"),
        (1, 65537, "key unusable"),
        (0, 65537, "key unusable"),
    ],
    ids=lambda value: f"{value.bit_length()} bits" if isinstance(value, int) else value,
)
def test_numbers_are_judged_before_they_are_used(n: int, e: int, reason: str) -> None:
    """DKM-03, DKM-18, DKM-19: 1024 to 8192 bits, an odd exponent of at most 32 bits, and no time
    spent on others."""
    begun = time.process_time()
    found = key.parse(rsa_record(n, e))
    assert (found.reason if isinstance(found, Malformed) else "") == reason
    if isinstance(found, Key):
        assert not found.verifies(b"\x01" * (found.bits // 8), bytes(32))
    assert time.process_time() - begun < 0.2


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30",
        b"\x30\x80\x00\x00",
        b"\x30\xff" + b"\xff" * 127,
        b"\x30\x88" + b"\xff" * 8,
        b"\x30\x03\x02\x01",
        element(0x30, integer(2**2047 + 1)),
        element(0x30, integer(2**2047 + 1) + integer(65537)) + b"tail",
        element(0x30, element(2, b"") + integer(65537)),
        element(
            0x30,
            element(0x30, bytes.fromhex("06092a864886f70d0101010500")) + element(3, b"\x07\x00"),
        ),
        element(0x30, element(0x30, bytes.fromhex("06092a864886f70d0101010500")) + element(3, b"")),
    ],
    ids=lambda der: der[:12].hex(),
)
def test_broken_encodings_are_unusable_keys(der: bytes) -> None:
    """DKM-19: lengths beyond the record, truncation, unused bits, trailing octets."""
    found = key.parse(b"p=" + base64.b64encode(der))
    assert isinstance(found, Malformed)


def test_a_key_of_another_kind_is_refused() -> None:
    """DKM-04: an elliptic-curve key under k=rsa."""
    der = (
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    assert key.parse(b"p=" + base64.b64encode(der)) == Malformed("key type differs")


def double(x: int, y: int) -> tuple[int, int]:
    """Twice a point of edwards25519 (RFC 8032 5.1.4)."""
    p = key.ED25519_PRIME
    d = -121665 * pow(121666, -1, p)
    t = d * x * x * y * y
    return 2 * x * y * pow(1 + t, -1, p) % p, (y * y + x * x) * pow(1 - t, -1, p) % p


def test_small_order_is_what_doubling_three_times_makes_of_it() -> None:
    """DKM-20: each listed y belongs to a point P with 8P = 0."""
    p = key.ED25519_PRIME
    root = pow(2, (p - 1) // 4, p)
    for y in key.ED25519_SMALL_ORDER:
        square = (y * y - 1) * pow(-121665 * pow(121666, -1, p) * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        x = x if x * x % p == square else x * root % p
        assert x * x % p == square
        point = (x, y)
        for _ in range(3):
            point = double(*point)
        assert point == (0, 1)


@pytest.mark.parametrize(
    "y",
    [*sorted(key.ED25519_SMALL_ORDER), key.ED25519_PRIME, key.ED25519_PRIME + 1, 2**255 - 1],
    ids=hex,
)
@pytest.mark.parametrize("sign", [0, 1])
def test_points_that_prove_nothing_are_refused(y: int, sign: int) -> None:
    """DKM-20: small order, and encodings beyond the field."""
    octets = (y | sign << 255).to_bytes(32, "little")
    assert key.parse(b"k=ed25519; p=" + base64.b64encode(octets)) == Malformed("key unusable")


@pytest.mark.parametrize("count", [0, 31, 33, 64])
def test_an_ed25519_key_has_32_octets(count: int) -> None:
    """RFC 8463 4.2, DKM-20."""
    assert isinstance(key.parse(b"k=ed25519; p=" + base64.b64encode(b"\x09" * count)), Malformed)


@pytest.mark.parametrize("algorithm", ["rsa-sha256", "ed25519-sha256"])
def test_only_the_signature_itself_verifies(algorithm: str) -> None:
    """RPL-02 (RFC 8017 8.2.2): neither s+n, nor padding, nor a wrong length."""
    signer = Signer("legit.example", "only", algorithm)
    found = key.parse(signer.record().encode())
    assert isinstance(found, Key)
    good, digest = signer.signature(b"text"), hashlib.sha256(b"text").digest()
    assert found.verifies(good, digest)
    wrong = [
        b"",
        good[:-1],
        b"\x00" + good,
        good + b"\x00",
        b"\x00" * 300 + good,
        bytes(len(good)),
        b"\xff" * len(good),
    ]
    if algorithm == "rsa-sha256":
        n = found.public.public_numbers().n  # type: ignore[union-attr]
        wrong.append((int.from_bytes(good, "big") + n).to_bytes(257, "big"))
        if int.from_bytes(good, "big") + n < 2**2048:
            wrong.append((int.from_bytes(good, "big") + n).to_bytes(256, "big"))
    assert not any(found.verifies(each, digest) for each in wrong)
    assert not found.verifies(good, hashlib.sha256(b"text!").digest())


@given(
    st.binary(max_size=80) | st.text(alphabet="vkpthsDKIM1=; yAB/+", max_size=80).map(str.encode)
)
def test_any_record_is_a_key_or_a_reason(record: bytes) -> None:
    """Nothing raises, whatever the DNS says."""
    assert is_key_or_reason(key.parse.__wrapped__(record))


@given(st.binary(max_size=300))
def test_any_der_is_a_key_or_a_reason(der: bytes) -> None:
    """Nothing in p= raises, as RSA or as Ed25519."""
    assert is_key_or_reason(key.parse.__wrapped__(b"p=" + base64.b64encode(der)))
    ed25519 = b"k=ed25519; p=" + base64.b64encode(der[:32])
    assert is_key_or_reason(key.parse.__wrapped__(ed25519))


def is_key_or_reason(found: Key | Malformed) -> bool:
    """A key of a size that counts, or words of ours."""
    if isinstance(found, Key):
        return found.bits >= 1024 or found.bits == 256
    return found.reason.isascii() and found.reason.isprintable()
