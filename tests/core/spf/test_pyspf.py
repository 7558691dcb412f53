"""pyspf's defects, shown on pyspf itself: each fails when upstream mends it, and the fence named
here may go (SECURITY.md, Defects of the libraries)."""

from __future__ import annotations

import time
from typing import Any

import pytest
import spf as pyspf

from dmarc_milter.core.mail.domain import Malformed
from dmarc_milter.core.spf import record as spf_record

ANSWERS = {("e.example", "TXT"): [(b"explained",)]}


class Counting(pyspf.query):
    """pyspf as it is, on a DNS that knows one name and counts its questions."""

    def __init__(self, local_part: str = "any") -> None:
        super().__init__(i="192.0.2.66", s=f"{local_part}@a-b.example", h="mx.example")
        self.asked: list[tuple[str, str]] = []

    def dns(
        self, name: str, qtype: str, cnames: Any = None, ignore_void: bool = False
    ) -> list[Any]:
        self.asked.append((name, qtype))
        return ANSWERS.get((name, qtype), [])


def test_it_takes_a_line_feed_for_the_end_of_the_version() -> None:
    """Fence: spf_record.select."""
    assert pyspf.RE_SPF.match(b"v=spf1\n")
    assert not spf_record.select([b"v=spf1\n"])


@pytest.mark.parametrize("term", ["exists:%{d0}", "exists:%{d2147483648}"])
def test_it_takes_digits_out_of_range(term: str) -> None:
    """Fence: spf_record.tokens."""
    assert Counting().check(f"v=spf1 {term} ?all")[0] == "neutral"
    assert isinstance(spf_record.parse(f"v=spf1 {term} ?all".encode(), 512), Malformed)


@pytest.mark.parametrize(
    ("record", "local_part"),
    [("v=spf1 exists:%{l" + "9" * 5000 + "r}.x", "any"), ("v=spf1 exists:%{L}.x", "k\udcffse")],
)
def test_it_raises_what_its_callers_do_not_expect(record: str, local_part: str) -> None:
    """Fence: the grammar before, Query._value, and the mapping in spf.py."""
    with pytest.raises(ValueError, match=r"."):
        Counting(local_part).check(record)


@pytest.mark.parametrize(
    ("record", "asked"),
    [
        ("v=spf1 ip4:192.0.2.66 exp=e.example", ("e.example", "TXT")),
        ("v=spf1 ip4:192.0.2.66 foo=%{p}", ("66.2.0.192.in-addr.arpa", "PTR")),
        ("v=spf1 ip4:192.0.2.66 exists:%{p}.x", ("66.2.0.192.in-addr.arpa", "PTR")),
    ],
)
def test_it_looks_up_what_is_not_needed(record: str, asked: tuple[str, str]) -> None:
    """Fence: Query.check0 feeds it one mechanism at a time."""
    query = Counting()
    assert query.check(record)[0] == "pass"
    assert query.asked == [asked]
    assert query.lookups == 0


def test_it_counts_a_redirect_that_is_not_followed() -> None:
    """Fence: Query.check0."""
    query = Counting()
    assert query.check("v=spf1 ip4:192.0.2.66 redirect=x.example")[0] == "pass"
    assert query.lookups == 1


@pytest.mark.parametrize(
    "record", ["v=spf1 x=1 x=2 ?all", "v=spf1 ?all Redirect=i.example Redirect=i.example"]
)
def test_it_refuses_repeated_unknown_modifiers_and_knows_only_lower_case(record: str) -> None:
    """Fence: spf_record.parse."""
    assert Counting().check(record)[0] == "permerror"


@pytest.mark.parametrize(("macro", "wrong"), [("%{o-}", "a-b.example"), ("%{dR}", "a-b.example")])
def test_it_transforms_some_macros_wrongly(macro: str, wrong: str) -> None:
    """Fence: Query.expand."""
    assert Counting().expand(macro) == wrong


def test_it_drops_one_label_only() -> None:
    """Fence: Query.expand."""
    assert len(Counting().expand("x." * 200 + "%{d}")) > 253


def test_it_expands_the_current_domain() -> None:
    """Fence: Directive.plain writes %{d} out."""
    query = Counting()
    query.d = "%{h}.example"
    query.check0("v=spf1 a -all", 0)
    assert query.asked == [("mx.example.example", "A")]


def test_it_splits_at_the_first_at() -> None:
    """Fence: Query.__init__."""
    assert Counting('"a@legit.example"').o == 'legit.example"@a-b.example'


def test_a_failed_look_up_of_the_clients_names_is_a_temperror_to_it() -> None:
    """Fence: Query.validated_ptrs (RFC 7208 5.5)."""

    class Failing(Counting):
        def dns(
            self, name: str, qtype: str, cnames: Any = None, ignore_void: bool = False
        ) -> list[Any]:
            raise pyspf.TempError("failed")

    assert Failing().check("v=spf1 ptr -all")[0] == "temperror"


def test_its_dns_function_is_a_global_with_a_search_list() -> None:
    """Fence: Query.dns. The stock function calls dns.resolver.query, which searches the domains of
    resolv.conf (SPF-12)."""
    assert pyspf.DNSLookup is pyspf.DNSLookup_dnspython
    assert "query" in pyspf.DNSLookup_dnspython.__code__.co_names


@pytest.mark.parametrize("shape", ["a:x.{}!", "exists:%%{}"])
def test_two_of_its_patterns_take_quadratic_time(shape: str) -> None:
    """Fence: spf_record.parse, and Query.expand_domain and Query.expand without those patterns."""

    def seconds(size: int) -> float:
        record = "v=spf1 " + shape.format("a" * size if "!" in shape else ".a" * (size // 2))
        began = time.thread_time()
        Counting().check(record)
        return time.thread_time() - began

    assert seconds(4000) > 6 * min(seconds(1000) for _ in range(5))  # a pause only ever adds
