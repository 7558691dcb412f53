"""What a name server makes of our questions, and what it says of names that are aliases: nothing of
it helps a forger."""

from __future__ import annotations

import time

import pytest

from fakes.attack import (
    LEGIT_SIGNER,
    Case,
    RunningDaemon,
    Stage,
    delivered,
    good,
    ids,
    mail,
    refused,
    spoof,
)
from fakes.dns_server import Spec

POLICY = "_dmarc.legit.example"
NO_EDNS = ("formerr", "notimp", "badvers", "header", "cut", "opt", "ignored")


def without_edns(word: str) -> list[Case]:
    """A resolver that does not know OPT, for a forgery and for the domain's own mail."""
    behaviour = f"no_edns_{word}"
    return [
        Case(
            "DNS-50",
            spoof(),
            refused(),
            behaviour=behaviour,
            note=f"{word}, forged",
            variants=False,
        ),
        Case(
            "DNS-50",
            good(),
            delivered("dkim=pass"),
            behaviour=behaviour,
            note=f"{word}, signed",
            variants=False,
        ),
    ]


def alias(row: str, record: str, verdict: object, note: str, zone: dict[str, Spec]) -> Case:
    """A forgery of x.legit.example, whose owner publishes `record`."""
    return Case(
        row,
        mail(b"<a@x.legit.example>"),
        verdict,
        {POLICY: {"TXT": [record]}, **zone},
        note=note,
        variants=False,
    )  # type: ignore[arg-type]


TO_NOTHING: dict[str, Spec] = {"x.legit.example": {"CNAME": "gone.example"}}
ALONE: dict[str, Spec] = {"x.legit.example": {"CNAME": "gone.example", "follow": False}}
TREE: dict[str, Spec] = {"legit.example": {"DNAME": "gone.example", "TXT": ["v=spf1 -all"]}}
STRICT_WHERE_IT_EXISTS = "v=DMARC1; p=reject; sp=reject; np=none"

CASES = [
    *(case for word in NO_EDNS for case in without_edns(word)),
    Case(
        "DNS-51",
        spoof(),
        refused(),
        {
            POLICY: {"TXT": ["v=DMARC1; p=reject"], "behaviour": "forged_formerr"},
            LEGIT_SIGNER.key_name: {"behaviour": "forged_formerr"},
        },
        note="forged FORMERR first",
        variants=False,
    ),
    alias("DNS-52", STRICT_WHERE_IT_EXISTS, refused(), "alias of nothing", TO_NOTHING),
    alias(
        "DNS-52", STRICT_WHERE_IT_EXISTS, refused(), "alias of nothing, alone in its answer", ALONE
    ),
    alias("DNS-52", STRICT_WHERE_IT_EXISTS, refused(), "below a DNAME", TREE),
    alias("DNS-52", STRICT_WHERE_IT_EXISTS, delivered(result="fail"), "no alias, no name", {}),
    alias(
        "DNS-53",
        "v=DMARC1; p=reject; sp=none; np=reject",
        delivered(result="fail"),
        "alias of nothing",
        TO_NOTHING,
    ),
    alias("DNS-53", "v=DMARC1; p=reject; sp=none; np=reject", refused(), "no alias, no name", {}),
]


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_what_the_name_server_says(stage: Stage, case: Case) -> None:
    """RFC 6891 6.2.2: OPT is left out where it is not understood. RFC 6604 3, RFC 8020 2: an alias
    exists, so np is not for it."""
    stage.check(case)


# Answers past their time


def brief(**more: Spec) -> dict[str, Spec]:
    """The victim's policy and key with a second to live."""
    names: dict[str, Spec] = {
        POLICY: {"TXT": ["v=DMARC1; p=reject"], "ttl": 1},
        LEGIT_SIGNER.key_name: {"TXT": [LEGIT_SIGNER.record()], "ttl": 1},
    }
    return {**names, **more}


def failing() -> dict[str, Spec]:
    return {name: {"behaviour": "servfail"} for name in (POLICY, LEGIT_SIGNER.key_name)}


def logged(running: RunningDaemon, number: int) -> list[bytes]:
    """So many lines about messages; the log is written beside the answers."""
    lines: list[bytes] = []
    for _ in range(200):
        lines += [line for line in running.new_lines() if b"event=message" in line]
        if len(lines) >= number:
            break
        time.sleep(0.01)
    assert len(lines) == number, lines
    return lines


def remembering(stage: Stage, hours: float = 24.0) -> RunningDaemon:
    """A daemon that has seen the victim's mail and whose answers have run out since."""
    running = stage.running("enforce", {"dns": {"cache_entries": 1000, "stale_hours": hours}})
    stage.script(brief())
    assert running.send(good()).dmarc.result == "pass"
    time.sleep(1.1)
    running.new_lines()
    return running


def test_a_policy_outlives_the_failure_of_its_dns(stage: Stage) -> None:
    """DNS-56: whoever silences the victim's DNS and then forges meets the policy that was known;
    the log says how old it is."""
    running = remembering(stage)
    stage.script(failing())
    heard = running.send(spoof())
    assert heard.answer.code == 550, heard.show()
    (line,) = logged(running, 1)
    assert b"stale=_dmarc.legit.example(" in line


def test_a_key_outlives_the_failure_of_its_dns(stage: Stage) -> None:
    """DNS-57: nobody attacks, the victim's DNS is lame for a day: its signed mail passes."""
    running = remembering(stage)
    stage.script(failing())
    heard = running.send(good())
    assert (heard.answer.code, heard.dmarc.result) == (250, "pass"), heard.show()
    stage.script(brief())
    assert running.send(good()).dmarc.result == "pass"
    assert [b"stale=" in line for line in logged(running, 2)] == [True, False]


def test_a_revoked_key_is_not_revived(stage: Stage) -> None:
    """DNS-58: the key was withdrawn, we have seen that, and then the DNS fails: the old signature
    gives nothing."""
    running = remembering(stage)
    stage.script(brief(**{LEGIT_SIGNER.key_name: {"TXT": [], "no_soa": True}}))
    assert running.send(good()).answer.code == 550
    time.sleep(1.1)
    stage.script({**brief(), LEGIT_SIGNER.key_name: {"behaviour": "servfail"}})
    heard = running.send(good())
    assert heard.answer.code != 250 or heard.dmarc.result == "temperror", heard.show()
    running.new_lines()


def test_nothing_outlives_its_time_where_that_is_off(stage: Stage) -> None:
    """DNS-59: `stale_hours = 0`: a key that cannot be looked up verifies nothing."""
    running = remembering(stage, hours=0)
    stage.script({**brief(), LEGIT_SIGNER.key_name: {"behaviour": "servfail"}})
    heard = running.send(good())
    assert heard.answer.code != 250 or heard.dmarc.result == "temperror", heard.show()
    running.new_lines()


def test_mail_of_a_thousand_names_flushes_no_policy(stage: Stage) -> None:
    """DNS-60: an attacker fills the memory with policies of his own before he silences the victim's
    DNS."""
    running = stage.running("enforce", {"dns": {"cache_entries": 60}})
    names: dict[str, Spec] = {"*.attack.example": {"TXT": ["v=DMARC1; p=none"], "ttl": 60}}
    stage.script({**brief(), **names})
    assert running.send(good()).dmarc.result == "pass"
    for number in range(100):
        running.send(mail(b"<a@a%d.attack.example>" % number))
    running.new_lines()
    stage.script({**failing(), **names})
    assert running.send(spoof()).answer.code == 550
    running.new_lines()
