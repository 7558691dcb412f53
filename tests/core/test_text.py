"""Text of unknown origin made fit to be shown: the one place where it is escaped."""

import pytest

from dmarc_milter.core.text import is_printable, printable, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("legit.example", "legit.example"),
        ("a\r\nX: y", "a\\r\\nX: y"),
        ("\x1b[2J", "\\x1b[2J"),
        ("b\u00fccher", "b\\xfccher"),
        ("a\u202eb", "a\\u202eb"),
        ("\udcff", "\\udcff"),
    ],
)
def test_only_printable_ascii_is_shown_as_it_is(text: str, shown: str) -> None:
    """Line ends, terminal sequences, other scripts, direction marks, undecodable bytes."""
    assert printable(text, 100) == shown


def test_an_escape_does_not_make_a_text_longer_than_its_limit() -> None:
    assert printable("\x00" * 50, 10) == "\\x00\\x00\\x"
    assert printable("a" * 50, 10) == "a" * 10


def test_other_scripts_may_stay_but_nothing_that_acts_on_a_terminal() -> None:
    assert printable("b\u00fccher\x1b\u202e", ascii_only=False) == "b\u00fccher\\x1b\\u202e"


def test_a_record_keeps_its_length() -> None:
    """Reports quote records: every byte that is not printable ASCII is one question mark."""
    assert visible(b"v=spf1 \xc3\xbc\r\n-all") == "v=spf1 ????-all"


@pytest.mark.parametrize("text", ["", "a\n", "\u00e4", "\x7f"])
def test_a_reply_takes_nothing_but_printable_ascii(text: str) -> None:
    assert not is_printable(text)
    assert is_printable("550 5.7.1 refused")
