"""What a name server makes of our questions, and what it says of names that are aliases: nothing of it helps a forger."""

from __future__ import annotations

import pytest

from fakes.attack import OK, Case, L, R, Stage, good, ids, mail, spoof
from fakes.dns_server import Spec

POLICY = "_dmarc.legit.example"
NO_EDNS = ("formerr", "notimp", "badvers", "header", "cut", "opt", "ignored")


def without_edns(word: str) -> list[Case]:
    """A resolver that does not know OPT, for a forgery and for the domain's own mail."""
    behaviour = f"no_edns_{word}"
    return [
        Case("DNS-50", spoof(), R(), behaviour=behaviour, note=f"{word}, forged", variants=False),
        Case("DNS-50", good(), OK("dkim=pass"), behaviour=behaviour, note=f"{word}, signed", variants=False),
    ]


def alias(row: str, record: str, verdict: object, note: str, zone: dict[str, Spec]) -> Case:
    """A forgery of x.legit.example, whose owner publishes `record`."""
    return Case(row, mail(b"<a@x.legit.example>"), verdict, {POLICY: {"TXT": [record]}, **zone}, note=note, variants=False)  # type: ignore[arg-type]


TO_NOTHING: dict[str, Spec] = {"x.legit.example": {"CNAME": "gone.example"}}
ALONE: dict[str, Spec] = {"x.legit.example": {"CNAME": "gone.example", "follow": False}}
TREE: dict[str, Spec] = {"legit.example": {"DNAME": "gone.example", "TXT": ["v=spf1 -all"]}}
STRICT_WHERE_IT_EXISTS = "v=DMARC1; p=reject; sp=reject; np=none"

CASES = [
    *(case for word in NO_EDNS for case in without_edns(word)),
    Case(
        "DNS-51",
        spoof(),
        R(),
        {POLICY: {"TXT": ["v=DMARC1; p=reject"], "behaviour": "forged_formerr"}, L.key_name: {"behaviour": "forged_formerr"}},
        note="forged FORMERR first",
        variants=False,
    ),
    alias("DNS-52", STRICT_WHERE_IT_EXISTS, R(), "alias of nothing", TO_NOTHING),
    alias("DNS-52", STRICT_WHERE_IT_EXISTS, R(), "alias of nothing, alone in its answer", ALONE),
    alias("DNS-52", STRICT_WHERE_IT_EXISTS, R(), "below a DNAME", TREE),
    alias("DNS-52", STRICT_WHERE_IT_EXISTS, OK(result="fail"), "no alias, no name", {}),
    alias("DNS-53", "v=DMARC1; p=reject; sp=none; np=reject", OK(result="fail"), "alias of nothing", TO_NOTHING),
    alias("DNS-53", "v=DMARC1; p=reject; sp=none; np=reject", R(), "no alias, no name", {}),
]


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_what_the_name_server_says(stage: Stage, case: Case) -> None:
    """RFC 6891 6.2.2: OPT is left out where it is not understood. RFC 6604 3, RFC 8020 2: an alias exists, so np is not for it."""
    stage.check(case)
