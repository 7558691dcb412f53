"""How values are written: long names, large numbers, addresses."""

from __future__ import annotations

import pytest

from dmarc_milter.web.words import LONGEST_WORD, NO_BREAK, address, clipped, figure, short

NAME = ".".join(["a" * 63] * 3 + ["b" * 53, "example"])
"""A domain name of 253 characters (RFC 1035 2.3.4)."""


def test_of_a_long_name_a_list_shows_both_ends() -> None:
    """The last labels say whose it is; the whole of it is where the pointer rests."""
    seen = short(f"p=reject of {NAME}")
    shown = clipped(NAME)
    assert len(shown) < LONGEST_WORD
    assert shown.startswith("aaa")
    assert shown.endswith("bbb.example")
    assert f">p=reject of {shown}</span>" in seen
    assert f'title="p=reject of {NAME}"' in seen


@pytest.mark.parametrize("text", ["", "mail.example.org", "w" * LONGEST_WORD, "short words " * 30])
def test_what_can_be_read_is_shown_whole(text: str) -> None:
    assert short(text) == text


@pytest.mark.parametrize("text", ["<b>&\"'", "<b>&\"'" * 20])
def test_no_markup_comes_through(text: str) -> None:
    for said in (short(text), address(text)):
        assert "<b>" not in said
        assert "\"'" not in said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (999_999, "999,999"),
        (1_000_000, "1 M"),
        (1_234_567, "1.2 M"),
        (10_000_019, "10.0 M"),
        (660_001_254, "660 M"),
        (12_000_000_000, "12,000 M"),
    ],
)
def test_a_large_number_fits_its_card(number: int, said: str) -> None:
    assert figure(number).replace(NO_BREAK, " ") == said


def test_an_ipv6_address_can_be_broken_between_its_groups() -> None:
    assert address("2001:db8::1") == "2001:<wbr>db8:<wbr>:<wbr>1"
