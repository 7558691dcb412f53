"""What stock pymilter 1.0.6 and libmilter do to a milter without fences: each test fails when
upstream mends one, and its fence may go."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.daemon import free_port, wait_for
from fakes.milter_client import Answer, Gone, MilterClient

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    number = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "fakes.plain_milter", str(number)],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stderr=subprocess.DEVNULL,
    )
    assert wait_for(lambda: _answers(number))
    yield number
    process.kill()
    process.wait()


def _answers(number: int) -> bool:
    try:
        MilterClient(("127.0.0.1", number)).close()
    except OSError:
        return False
    return True


def sent(port: int, name: bytes, value: bytes = b" x") -> Answer:
    with MilterClient(("127.0.0.1", port), timeout=5) as mta:
        mta.negotiate()
        mta.connect("mx.attack.example", "192.0.2.66")
        mta.helo("mx.attack.example")
        mta.mail("<a@attack.example>")
        mta.rcpt("<v@example.com>")
        answer = mta.header(name, value)
        if answer is not None and answer.code != 250:
            return answer
        mta.eoh()
        return mta.eom()


def test_a_header_name_is_decoded_strictly(port: int) -> None:
    """SECURITY.md, Defects of the libraries, HDR-04: 451 for ever, and no callback is called.
    Fence: Callbacks' excepthook and `undecodable`."""
    answer = sent(port, b"X-\xe9")
    assert answer.code == 451
    assert "untrapped exception" in answer.text


def test_an_exception_is_told_to_the_sender(port: int) -> None:
    """SECURITY.md, Defects of the libraries: 451 with pymilter's own text. Fence:
    session/guard.py around every callback, CONTINUE as the exception policy."""
    answer = sent(port, b"X-Raise")
    assert answer.code == 451
    assert "untrapped exception" in answer.text


def test_a_reply_with_a_percent_or_a_line_end_is_an_exception(port: int) -> None:
    """ARI-09: so a domain in the text could turn a refusal into 451. Fence: actions.Reply takes one
    plain line only."""
    assert sent(port, b"X-A").values("X-Seen") == [" X-A refused refused"]


def test_a_large_field_drops_the_connection(port: int) -> None:
    """HDR-01: Postfix sends up to 102,400 octets; libmilter takes 64 KiB unless told otherwise.
    Fence: MAX_DATA."""
    with pytest.raises(Gone):
        sent(port, b"X-A", b"x" * 70_000)
