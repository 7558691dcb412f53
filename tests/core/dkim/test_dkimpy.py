"""dkimpy 1.1.8's defects, shown on dkimpy itself: each test fails when upstream mends one, and its
fence may go."""

import base64
import re
import time
from collections.abc import Callable

import dkim as dkimpy
import pytest
from dkim.canonicalization import Relaxed

from fakes.dns_zone import Zone
from fakes.received import chain, checked
from fakes.sealer import seal
from fakes.signer import SIGNED, Signer, Style, header_fields

LEGIT = Signer("legit.example")
SHA1 = Signer("legit.example", algorithm="rsa-sha1")
LETTER = b"From: a@legit.example\r\nTo: b@c.example\r\nSubject: x\r\n\r\ntext\r\n"


def dkimpy_says(raw: bytes, record: str | None = None) -> bool:
    """dkimpy's verdict with this key record."""
    return bool(
        dkimpy.DKIM(raw).verify(dnsfunc=lambda name, timeout=5: (record or LEGIT.record()).encode())
    )


def ours(raw: bytes, record: str | None = None) -> str:
    (result,) = checked(raw, Zone({LEGIT.key_name: {"TXT": [record or LEGIT.record()]}}))
    return str(result.status)


def larger(raw: bytes) -> bytes:
    """The same message with b= replaced by s + n (RPL-02)."""
    text = raw[raw.index(b"b=", raw.index(b"bh=") + 3) + 2 : raw.index(b"\r\nFrom")]
    s = int.from_bytes(base64.b64decode(text), "big")
    n = LEGIT.key.public_key().public_numbers().n  # type: ignore[union-attr]
    return raw.replace(text, base64.b64encode((s + n).to_bytes(257, "big")))


ACCEPTED: dict[str, tuple[Callable[[], bytes], str | None, str]] = {
    "From not signed (RFC 6376 6.1.1)": (
        lambda: LEGIT.sign(LETTER, headers=("to", "subject")),
        None,
        "permerror",
    ),
    "rsa-sha1 (RFC 8301 3.1)": (lambda: SHA1.sign(LETTER), None, "permerror"),
    "key for sha1 only (RFC 6376 3.6.1)": (
        lambda: LEGIT.sign(LETTER),
        LEGIT.record("h=sha1; "),
        "permerror",
    ),
    "key forbids subdomains": (
        lambda: LEGIT.sign(LETTER, tags={"i": "@sub.legit.example"}),
        LEGIT.record("t=s; "),
        "permerror",
    ),
    "v= of the key not first": (
        lambda: LEGIT.sign(LETTER),
        LEGIT.record().removeprefix("v=DKIM1; ") + "; v=DKIM1",
        "permerror",
    ),
    "a= and k= differ": (
        lambda: LEGIT.sign(LETTER, tags={"a": "ed25519-sha256"}),
        None,
        "permerror",
    ),
    "l= over the body": (lambda: LEGIT.sign(LETTER, length=999), None, "permerror"),
    "l= that leaves octets": (lambda: LEGIT.sign(LETTER, length=0) + b"<p>", None, "policy"),
    "s= with a NUL": (
        lambda: LEGIT.sign(LETTER, tags={"s": "sel._domainkey.attack.example.\0"}),
        None,
        "permerror",
    ),
    "d= with a quote": (
        lambda: LEGIT.sign(LETTER, tags={"d": "legit.example'a.attack.example"}),
        None,
        "permerror",
    ),
    "key in testing, untold": (lambda: LEGIT.sign(LETTER), LEGIT.record("t=y; "), "policy"),
    "signature s + n (RFC 8017 8.2.2)": (lambda: larger(LEGIT.sign(LETTER)), None, "fail"),
    "From with a space before the colon": (
        lambda: b"From : other@attack.example\r\n" + LEGIT.sign(LETTER, headers=("from", *SIGNED)),
        None,
        "fail",
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_dkimpy_accepts_what_it_must_not(name: str) -> None:
    """docs/attacks.md: True there, another word here."""
    make, record, word = ACCEPTED[name]
    assert dkimpy_says(make(), record)
    assert ours(make(), record) == word


RAISED: dict[str, tuple[Callable[[], bytes], str | None, type[Exception]]] = {
    "i= without @": (lambda: LEGIT.sign(LETTER, tags={"i": "legit.example"}), None, IndexError),
    "l= empty": (lambda: LEGIT.sign(LETTER, tags={"l": ""}), None, ValueError),
    "x= of 5,000 digits": (lambda: LEGIT.sign(LETTER, tags={"x": "9" * 5000}), None, ValueError),
    "bh= that is not base64": (lambda: LEGIT.sign(LETTER, tags={"bh": "YWJ!"}), None, ValueError),
    "first line folded": (lambda: b" x\r\n" + LEGIT.sign(LETTER), None, IndexError),
}


@pytest.mark.parametrize("name", RAISED)
def test_dkimpy_raises_what_is_no_error_of_its_own(name: str) -> None:
    """SECURITY.md, Defects of the libraries: none of these is a DKIMException."""
    make, record, error = RAISED[name]
    assert not issubclass(error, dkimpy.DKIMException)
    with pytest.raises(error):
        dkimpy_says(make(), record)
    assert ours(make(), record) in ("permerror", "fail", "pass")


def test_dkimpy_cannot_tell_trouble_from_absence() -> None:
    """SECURITY.md, Defects of the libraries: a key that is not there and a DNS that does not answer
    are both False."""

    def silent(name: bytes, timeout: int = 5) -> bytes:
        raise dkimpy.DnsTimeoutError("no answer")

    assert dkimpy.DKIM(LEGIT.sign(LETTER)).verify(dnsfunc=lambda name, timeout=5: None) is False
    assert dkimpy.DKIM(LEGIT.sign(LETTER)).verify(dnsfunc=silent) is False


def test_dkimpy_removes_a_b_tag_that_is_none() -> None:
    """Its search for b= also finds one inside z=, and leaves white space that follows the value."""
    for tags, end in (({"z": "Subject: b=x"}, ""), ({}, " ;")):
        raw = LEGIT.sign(LETTER, c="simple/simple", tags=tags, style=Style(end=end))
        assert not dkimpy_says(raw)
        assert ours(raw) == "pass"


SLOW: dict[str, Callable[[int], object]] = {
    "relaxed body, one line of spaces": lambda n: Relaxed.canonicalize_body(b" " * n + b"x\r\n"),
    "b= with spaces": lambda n: re.match(rb"[\s0-9A-Za-z+/]+[\s=]*$", b"A" + b" " * n + b"!"),
    "b and folds": lambda n: dkimpy.RE_BTAG.sub(b"", b";b" + b"\r\n " * n),
    "h= against header fields": lambda n: dkimpy.select_headers(
        [(b"x", b"")] * n, [b"n%d" % k for k in range(n // 10)]
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_dkimpy_is_quadratic(name: str) -> None:
    """SECURITY.md, Defects of the libraries: twice the input costs clearly more than twice the
    time."""

    def cost(n: int) -> float:
        begun = time.process_time()
        SLOW[name](n)
        return time.process_time() - begun

    n = 1000
    while cost(n) < 0.005:
        n *= 2
    once = min(cost(n) for _ in range(5))  # a pause of the processor only ever adds
    assert cost(4 * n) / once > 7


@pytest.mark.parametrize("style", [Style(lead=""), Style(equals=" = "), Style(lead="\t")], ids=repr)
def test_dkimpy_reads_one_spelling_of_an_instance(style: Style) -> None:
    """ARC-06: anything but ` i=1;` is an IndexError."""
    raw = seal(LETTER, LEGIT, style=style)
    with pytest.raises(IndexError):
        dkimpy.arc_verify(raw, dnsfunc=lambda name, timeout=5: LEGIT.record().encode())
    assert str(chain(raw, Zone(LEGIT.records())).status) == "pass"


def test_dkimpy_asks_before_it_counts() -> None:
    """ARC-07: a chain of a hundred sets is looked up set by set."""
    asked: list[bytes] = []
    raw = LETTER
    quick = Signer(
        "legit.example", "ed", "ed25519-sha256"
    )  # dkimpy asks for the key before it looks at the signature
    for number in range(1, 101):
        raw = seal(
            raw,
            quick,
            instance=str(number),
            seal_tags={"a": "rsa-sha256"},
            message_tags={"a": "rsa-sha256"},
        )
    dkimpy.arc_verify(raw, dnsfunc=lambda name, timeout=5: asked.append(name))
    assert len(asked) > 100
    assert len(header_fields(raw)[0]) == 303
