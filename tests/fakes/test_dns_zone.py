"""The scripted DNS keeps `lookup.Resolver`'s promises, or the tests that stand on it prove
nothing."""

import pytest

from dmarc_milter.core.resolver import (
    LimitExceeded,
    LookupFailed,
    NoData,
    NoSuchName,
    Question,
    Resolver,
)
from fakes.dns_zone import Zone

ZONE = """
    ; a comment
    Example.COM.     TXT   "v=spf1 " "-all"
    example.com      MX    10 mx.example.com.
    mx.example.com   A     192.0.2.1
    mx.example.com   AAAA  2001:db8::1
    www.example.com  CNAME mx.example.com
    a.b.c.example    TXT   "deep"
    *.wild.example   TXT   "any"
    x.wild.example   A     192.0.2.2
    loop.example     CNAME loop.example
    bad.example      FAIL
    half.example     A     192.0.2.3
    half.example     FAIL  TXT
    1.2.0.192.in-addr.arpa  PTR mx.example.com.
"""


def test_answers_come_in_the_types_of_the_protocol() -> None:
    """Each method of `Resolver`; names without case or trailing dot; CNAMEs followed."""
    zone: Resolver = Zone.parse(ZONE)
    assert zone.txt("eXample.com.") == (b"v=spf1 -all",)
    assert zone.mx("example.com") == ((10, "mx.example.com"),)
    assert zone.addresses("www.example.com", "A") == ("192.0.2.1",)
    assert zone.addresses("mx.example.com", "AAAA") == ("2001:db8::1",)
    assert zone.ptr("1.2.0.192.in-addr.arpa") == ("mx.example.com",)
    assert zone.txt("q.r.wild.example") == (b"any",)


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("nothing.example", NoSuchName),
        ("mx.example.com", NoData),
        ("c.example", NoData),
        ("x.wild.example", NoData),
        ("y.x.wild.example", NoSuchName),
        ("loop.example", LookupFailed),
        ("bad.example", LookupFailed),
        ("half.example", LookupFailed),
        ("a..example", NoSuchName),
        ("a" * 64 + ".example", NoSuchName),
        ("t\tab.example", NoSuchName),
        ("", NoSuchName),
    ],
)
def test_missing_answers_tell_how_they_are_missing(name: str, failure: type[Exception]) -> None:
    """NXDOMAIN, no data (also an empty non-terminal), failure; a name that cannot be asked does not
    exist."""
    with pytest.raises(failure) as caught:
        Zone.parse(ZONE).txt(name)
    assert caught.type is failure


def test_a_share_ends_without_touching_what_was_answered() -> None:
    """`Resolver.share`: different questions count, here and in the parent."""
    zone = Zone.parse(ZONE)
    outer = zone.share(queries=3, seconds=9.0)
    inner = outer.share(queries=2, seconds=9.0)
    for _ in range(3):
        inner.txt("example.com")
    inner.prefetch([Question("example.com", "MX"), Question("mx.example.com", "A")])
    assert zone.prefetched == [Question("example.com", "MX")]
    with pytest.raises(LimitExceeded):
        inner.mx("mx.example.com")
    assert inner.txt("example.com")
    outer.addresses("mx.example.com", "A")
    with pytest.raises(LimitExceeded):
        outer.ptr("1.2.0.192.in-addr.arpa")


def test_time_passes_only_as_the_script_says() -> None:
    """`latency` moves the pretended clock that ends a share."""
    share = Zone.parse(ZONE, latency=2.0).share(queries=9, seconds=3.0)
    share.txt("example.com")
    share.mx("example.com")
    with pytest.raises(LimitExceeded):
        share.txt("half.example")
