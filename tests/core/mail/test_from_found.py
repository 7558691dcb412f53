"""What the differential fuzz of the From field has found, line by line:
tests/vectors/from-found.txt."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmarc_milter.core.mail.author import author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.policy.decide import Disposition
from fuzz.differential import verdict

FILE = Path(__file__).parents[2] / "vectors" / "from-found.txt"


def cases() -> list[tuple[str, bytes]]:
    lines = FILE.read_text(encoding="ascii").split("\n")
    found = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return [
        (victim, value.encode("latin-1").decode("unicode_escape").encode("latin-1"))
        for victim, _, value in found
    ]


@pytest.mark.parametrize(("victim", "value"), cases())
def test_whom_a_reader_shows_decides(victim: str, value: bytes) -> None:
    """Where that organization asks for p=reject the message is refused, though attack.example
    passes (RFC 9989 11.5)."""
    found = verdict(author([value]), Domain(victim))
    assert found.disposition is Disposition.REJECT
