"""No honest From field is called malformed: tests/vectors/from-genuine.txt, line by line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dmarc_milter.core.mail import author
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain

FILE = Path(__file__).parents[2] / "vectors" / "from-genuine.txt"
HEX = re.compile(
    "\N{MATHEMATICAL LEFT WHITE SQUARE BRACKET}([0-9a-f"
    " ]+)\N{MATHEMATICAL RIGHT WHITE SQUARE BRACKET}"
)


def octets(text: str) -> bytes:
    """A value as the file's first lines say."""
    pieces = HEX.split(text)
    texts = [piece.replace("\N{PILCROW SIGN}", "\r\n").encode() for piece in pieces[::2]]
    raw = [bytes.fromhex(piece) for piece in pieces[1::2]] + [b""]
    return b"".join(one + other for one, other in zip(texts, raw, strict=True))


def cases() -> list[tuple[str, bytes]]:
    lines = FILE.read_text(encoding="utf-8").split("\n")
    return [
        (name, octets(value))
        for name, _, value in (
            line.partition("\t") for line in lines if line and not line.startswith("#")
        )
    ]


@pytest.mark.parametrize(("name", "value"), cases())
def test_an_honest_from_field_has_its_one_domain(name: str, value: bytes) -> None:
    """Neither malformed nor of another domain, with the white space after the colon or without (RFC
    5322 3.4, RFC 6854)."""
    assert author.author([value]) == Author(Domain(name))
    assert author.author([b" " + value]) == Author(Domain(name))


def test_there_are_enough_of_them() -> None:
    """300 at least, and no shape twice."""
    values = [value for _, value in cases()]
    assert len(set(values)) == len(values) >= 300
