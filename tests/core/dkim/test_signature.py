"""DKIM-Signature fields as values (RFC 6376 3.5): what is remembered of them changes nothing."""

import itertools

import pytest

from dmarc_milter.core.dkim import DkimOptions
from dmarc_milter.core.dkim import signature as signature_field
from dmarc_milter.core.dkim.signature import MAX_REMEMBERED, parse

TAGS = {
    "v": ("1", "2"),
    "a": ("rsa-sha256", "rsa-sha1"),
    "d": ("example.com", "exa mple"),
    "b": ("AAAA", "A"),
    "h": ("from:to", "to"),
    "i": ("@example.com", "@example.net"),
    "q": ("dns/txt", "http"),
    "t": ("5", "x"),
}
OTHERS = b"; s=one; bh=AAAA; c=relaxed/relaxed"


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    signature_field._remembered.cache_clear()


def test_of_two_flaws_the_first_in_the_order_of_reading_is_the_reason() -> None:
    """Whether the tags beside them are known already or not (RFC 6376 3.5, 6.1.1)."""
    reasons = {name: parse(field(**{name: wrong})).error for name, (_, wrong) in TAGS.items()}
    assert all(reasons.values())
    for first, second in itertools.combinations(TAGS, 2):
        value = field(**{first: TAGS[first][1], second: TAGS[second][1]})
        assert parse(value).error == parse(value).error == reasons[first]


def test_a_known_signer_s_next_signature_has_its_own_hashes_and_times() -> None:
    first, second = parse(field(b="AAAA", t="5")), parse(field(b="BBBB", t="6", i="@a.example.com"))
    assert (first.text, first.signed_at) == ("AAAA", 5)
    assert (second.text, second.signed_at) == ("BBBB", 6)
    assert first.domain == second.domain
    assert second.identifier is not None
    assert second.identifier.name == "a.example.com"


def test_what_one_set_of_limits_refuses_is_not_remembered_for_another() -> None:
    assert parse(field()).error == ""
    assert parse(field(), DkimOptions(max_names=1)).error == "too many names in h="


def test_an_arc_message_signature_is_no_dkim_signature_of_the_same_text() -> None:
    """It has no v=, and its i= is a number (RFC 8617 4.1.2)."""
    value = field(i="1")
    assert parse(value, of_arc=True).error == ""
    assert parse(value).error == "i= is not an identifier"


def test_nothing_long_is_remembered() -> None:
    """A stranger's fields must not fill the memory."""
    parse(field(h="from:" + "x" * MAX_REMEMBERED))
    assert signature_field._remembered.cache_info().currsize == 0
    parse(field())
    assert signature_field._remembered.cache_info().currsize == 1


def field(**changes: str) -> bytes:
    """A signature field without flaws, but for what is changed."""
    tags = {name: right for name, (right, _) in TAGS.items()} | changes
    return "; ".join(f"{name}={value}" for name, value in tags.items()).encode() + OTHERS
