"""SPF's look-ups are started as soon as their names are known, and never more of them than the
evaluation itself could ask."""

from __future__ import annotations

from ipaddress import ip_address

from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.spf.check import check
from fakes.dns_zone import Zone
from fakes.scripted_dns import Scripted

SENT = Envelope(ip_address("192.0.2.1"), "mx.example", ReversePath("a", Domain("author.example")))


def asked(records: dict[str, str]) -> tuple[str, list[str]]:
    """The result, and every name whose TXT was asked for, in order."""
    resolver = Scripted(Zone({name: {"TXT": [text]} for name, text in records.items()}), {})
    result = check(SENT, resolver.for_message())
    return result.status, [name for name, rdtype in resolver.sent if rdtype == "TXT"]


def test_an_include_that_has_come_is_followed_before_its_turn() -> None:
    """The second provider's own includes go out with the first one's: three round trips for any
    number of providers, not one more each."""
    status, names = asked(
        {
            "author.example": "v=spf1 include:one.example include:two.example -all",
            "one.example": "v=spf1 include:one-a.example include:one-b.example -all",
            "two.example": "v=spf1 include:two-a.example include:%{l}.two.example -all",
            "one-b.example": "v=spf1 ip4:192.0.2.1 -all",
        }
    )
    assert status == "permerror"  # one-a.example has no record; what was asked is what matters here
    assert names == [
        "author.example",
        "one.example",
        "two.example",
        "one-a.example",
        "one-b.example",
        "two-a.example",
    ]


def test_what_is_followed_early_stays_within_the_ten() -> None:
    """I7: five providers with five includes each: ten hints in all, so no more than eleven more
    names than were evaluated."""
    records = {
        "author.example": "v=spf1 " + " ".join(f"include:p{n}.example" for n in range(5)) + " -all"
    }
    for n in range(5):
        records[f"p{n}.example"] = (
            "v=spf1 " + " ".join(f"include:p{n}-{m}.example" for m in range(5)) + " -all"
        )
        records |= {f"p{n}-{m}.example": "v=spf1 -all" for m in range(5)}
    status, names = asked(records)
    assert status == "permerror"
    assert len(names) <= 1 + 10 + 10


def test_a_record_that_is_not_valid_is_not_followed() -> None:
    """Hints come from records that would be evaluated, nothing else."""
    _, names = asked(
        {
            "author.example": "v=spf1 include:one.example include:two.example -all",
            "one.example": "v=spf1 include:one-a.example include:one-b.example -all",
            "two.example": "v=spf1 include:two-a.example oops:x -all",
            "one-a.example": "v=spf1 -all",
            "one-b.example": "v=spf1 ip4:192.0.2.1 -all",
        }
    )
    assert "two-a.example" not in names
