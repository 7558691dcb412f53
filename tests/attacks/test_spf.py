"""SPF rows of the attack catalogue through the daemon: records served by a real DNS server, verdict
and number of questions."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from fakes.attack import Case, Stage, deferred, delivered, ids, mail, refused, spoof
from fakes.dns_server import Spec

LEGIT = b"<a@legit.example>"
INSIDE = "198.51.100.10"


def record(
    row: str,
    text: str | bytes | list[Any],
    result: str,
    note: str = "",
    *,
    zone: dict[str, Spec] | None = None,
    **rest: Any,
) -> Case:
    """MAIL FROM and From are legit.example's, which publishes this; `result` is SPF's, and DMARC
    follows."""
    verdict = {"pass": delivered("spf=pass"), "temperror": deferred("spf=temperror")}.get(
        result, refused("legit.example", f"spf={result} ")
    )
    texts = text if isinstance(text, list) and text and isinstance(text[0], tuple) else [text]
    served = {
        "legit.example": {
            "TXT": [list(each) if isinstance(each, tuple) else each for each in texts]
        }
    }
    return Case(
        row,
        spoof(mail_from=LEGIT, ip=INSIDE),
        verdict,
        served | (zone or {}),
        note=note or str(text)[:40],
        **rest,
    )


def by_attacker(row: str, verdict: Any, note: str = "", **envelope: Any) -> Case:
    return Case(row, spoof(**envelope), verdict, note=note or str(envelope)[:40])


V = "v=spf1 "
HOSTS: dict[str, Spec] = {f"m{n}.legit.example": {"A": [f"203.0.113.{n}"]} for n in range(12)}
TEN_MX = {
    f"x{n}.legit.example": {"MX": [[10, f"m{n}-{k}.legit.example"] for k in range(10)]}
    for n in range(10)
} | {"*.legit.example": {"A": ["203.0.113.1"]}}

SPF = [
    record(
        "SPF-01",
        V + " ".join(f"include:i{n}.legit.example" for n in range(11)) + " -all",
        "permerror",
        "11 includes",
        zone={"*.legit.example": {"TXT": ["v=spf1 -all"]}},
        queries=20,
    ),
    record(
        "SPF-01",
        V + " ".join(f"include:i{n}.legit.example" for n in range(9)) + f" ip4:{INSIDE} -all",
        "pass",
        "9 includes",
        zone={"*.legit.example": {"TXT": ["v=spf1 -all"]}},
    ),
    record(
        "SPF-02",
        V + "a:x1.legit.example a:x2.legit.example a:x3.legit.example -all",
        "permerror",
        "3 void",
        queries=12,
    ),
    record(
        "SPF-02", V + f"a:x1.legit.example a:x2.legit.example ip4:{INSIDE} -all", "pass", "2 void"
    ),
    record(
        "SPF-03",
        [("v=spf1 mx -all",)],
        "permerror",
        "11 MX",
        zone={
            "legit.example": {
                "TXT": ["v=spf1 mx -all"],
                "MX": [[n, f"m{n}.legit.example"] for n in range(11)],
            },
            **HOSTS,
        },
        queries=20,
    ),
    record(
        "SPF-03",
        V + " ".join(f"mx:x{n}.legit.example" for n in range(10)) + " -all",
        "fail",
        "ten times ten",
        zone=TEN_MX,
        queries=125,
        seconds=4,
    ),
    record(
        "SPF-04",
        V + "ptr -all",
        "fail",
        "100 names",
        zone={"10.100.51.198.in-addr.arpa": {"PTR": [f"p{n}.evil.example" for n in range(100)]}},
        queries=30,
    ),
    record("SPF-05", V + "exp=%{p}.x.legit.example -all", "fail", "exp", queries=8),
    record(
        "SPF-05",
        V + f"foo=%{{p}}.x.legit.example ip4:{INSIDE} exp=%{{ir}}.y.legit.example -all",
        "pass",
        "unknown modifier",
        queries=8,
    ),
    record(
        "SPF-06",
        V + "include:b.legit.example -all",
        "permerror",
        "loop",
        zone={"b.legit.example": {"TXT": ["v=spf1 include:legit.example -all"]}},
        queries=20,
    ),
    record("SPF-06", V + "include:legit.example -all", "permerror", "self", queries=20),
    record("SPF-06", V + "redirect=legit.example", "permerror", "redirect", queries=20),
    record("SPF-07", [("v=spf1 +all",), ("v=spf1 -all",)], "permerror", "two records"),
    Case(
        "SPF-07",
        spoof(mail_from=LEGIT, ip=INSIDE),
        delivered("spf=pass"),
        {
            "legit.example": {"CNAME": "c.legit.example"},
            "c.legit.example": {"TXT": [f"v=spf1 ip4:{INSIDE} -all"]},
        },
        note="CNAME",
    ),
    record("SPF-07", f"V=SPF1 IP4:{INSIDE} -ALL", "pass"),
    *(
        record("SPF-07", text, "none")
        for text in ("v=spf10 +all", " v=spf1 +all", "v=spf1\t+all", "v=spf1,+all")
    ),
    *(
        record("SPF-08", V + text, "permerror", f"{text[:12]}")
        for text in (
            "exists:%{l" + "9" * 5000 + "r}.a",
            "ip4:1.1.1.1/" + "9" * 3000,
            "exists:%{d2147483648",
            "exists:%{i-1}.a",
            "exists:%{d0}.a",
        )
    ),
    record("SPF-09", V + "a:x." + "a" * 60_000 + "!", "permerror", "60 KB", seconds=0.5),
    record("SPF-09", V + "exists:%%" + ".a" * 30_000, "permerror", "dots", seconds=0.5),
    record(
        "SPF-09",
        V + " ".join(f"m{n}=x" for n in range(8000)),
        "permerror",
        "modifiers",
        seconds=0.5,
    ),
    record("SPF-09", V + "a:x." + "a" * 3000 + "!", "permerror", "3 KB", seconds=0.5),
    *(
        Case(
            "SPF-10",
            mail(b"<a@legit.example>", mail_from=path, ip=INSIDE),
            refused("legit.example", word),
            {"legit.example": {"TXT": ["v=spf1 exists:%{L}.x.legit.example -all"]}},
            note=repr(path),
        )
        for path, word in (
            (b"<\xff\xfe@legit.example>", "spf=permerror"),
            ("<用户@legit.example>".encode(), "spf=fail"),
            (b"<a\x80b@legit.example>", "spf=permerror"),
        )
    ),
    *(
        by_attacker("SPF-11", refused("legit.example", "spf=none"), mail_from=path)
        for path in (
            b"<a@" + b"abcdefghi." * 25 + b"legit.example>",
            b"<a@\xff.legit.example>",
            b"<a@x..legit.example>",
            b"<a@[192.0.2.1]>",
            b"<a@x\\.legit.example>",
            b"<a@" + b"x" * 64 + b".legit.example>",
            b"<a@.>",
            b"<a@legit.example..>",
        )
    ),
    Case(
        "SPF-12",
        spoof(mail_from=b"<a@nonexist.legit.example>"),
        refused("legit.example", "spf=none"),
        {"*.corp.example": {"TXT": ["v=spf1 +all"]}, "*.example": {"TXT": []}},
    ),
    by_attacker(
        "SPF-13", delivered("spf=pass"), "mapped", mail_from=LEGIT, ip="::ffff:198.51.100.10"
    ),
    by_attacker(
        "SPF-13",
        refused("legit.example", "spf=fail"),
        "mapped attacker",
        mail_from=LEGIT,
        ip="::ffff:192.0.2.66",
    ),
    by_attacker(
        "SPF-13", refused("legit.example", "spf=fail"), "IPv6", mail_from=LEGIT, ip="2001:db8::1"
    ),
    by_attacker(
        "SPF-13",
        refused("legit.example", "spf=none"),
        "unix socket",
        mail_from=LEGIT,
        ip="/run/x",
        family="L",
    ),
    by_attacker(
        "SPF-13", refused("legit.example", "spf=none"), "unknown", mail_from=LEGIT, ip=None
    ),
    *(
        record("SPF-14", text, "permerror", repr(text))
        for text in (
            b"v=spf1 a:\xff.legit.example -all",
            b"v=spf1 \x00 +all",
            b"v=spf1 +all\r",
            "v=spf1 é +all",
        )
    ),
    record(
        "SPF-14",
        [tuple(["v=spf1"] + [" ip4:203.0.", "113.1"] * 140 + [" -all"])],
        "fail",
        "282 strings",
    ),
    record("SPF-14", [("v=spf1 ip4:198.51.", "100.10 -all")], "pass", "joined without space"),
    record("SPF-14", [("",)], "none", "empty string"),
    record(
        "SPF-15",
        V + f"ip4:{INSIDE} include:broken.legit.example -all",
        "pass",
        "match before",
        zone={"broken.legit.example": {"behaviour": "servfail"}},
    ),
    record(
        "SPF-15",
        V + f"include:broken.legit.example ip4:{INSIDE} -all",
        "temperror",
        "failure before",
        zone={"broken.legit.example": {"behaviour": "servfail"}},
    ),
    Case(
        "SPF-16",
        spoof(
            extra=[
                (
                    b"Received-SPF",
                    b" pass (mailfrom) identity=mailfrom; envelope-from=a@legit.example",
                )
            ]
        ),
        refused("legit.example", "spf=pass smtp.mailfrom=attack.example"),
    ),
    Case(
        "SPF-16",
        spoof(
            mail_from=LEGIT,
            extra=[
                (
                    b"Authentication-Results",
                    b" mx.example.com; spf=pass smtp.mailfrom=legit.example",
                )
            ],
        ),
        refused("legit.example", "spf=fail"),
        note="results",
    ),
]


@pytest.mark.parametrize("case", SPF, ids=ids)
def test_an_spf_record(stage: Stage, case: Case) -> None:
    """RFC 7208 to the letter, within its limits, whatever stands in the record."""
    stage.check(case)


def test_a_slow_record_is_a_temperror(stage: Stage) -> None:
    """SPF-17: every answer late, ten legal look-ups one after the other: the budget ends it, nobody
    else waits."""
    tables = {"dns": {"timeout": 1.0, "budget": 2.0}}
    chain = [f"h{n}.slow.legit.example" for n in range(9)]
    zone: dict[str, Spec] = {
        name: {"TXT": [f"{V}include:{after} -all"], "delay": 0.9}
        for name, after in pairwise(["legit.example", *chain])
    }
    case = Case(
        "SPF-17", spoof(mail_from=LEGIT), deferred("spf=temperror"), zone, tables, seconds=4
    )
    for mode in ("enforce", "tempfail"):
        stage.check_in(case, mode)
