"""DNS that fails: for every question whose answer could have given an aligned pass, and for every
one that could not.

The first half is the promise that trouble in the DNS neither refuses nor waves through; the second
that an attacker cannot make trouble of his own to escape a policy. Then hostile answers and the
budgets.
"""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from fakes.attack import (
    ATTACK_SIGNER,
    LEGIT_SIGNER,
    Case,
    Mail,
    Stage,
    deferred,
    delivered,
    good,
    ids,
    mail,
    refused,
    spoof,
    unanswered,
)
from fakes.dns_server import Spec
from fakes.sealer import seal
from fakes.signer import Signer

QUICK = {"dns": {"timeout": 0.4, "budget": 1.5}}
FAILURES = ("silent", "servfail", "truncated_reset", "truncated_silent", "garbage")
LEGIT = b"<a@legit.example>"
SUB = Signer("other.legit.example")
SUB_KEY: dict[str, Spec] = {SUB.key_name: {"TXT": [SUB.record()]}}
INCLUDING: dict[str, Spec] = {"legit.example": {"TXT": ["v=spf1 include:inc.legit.example -all"]}}
ATTACKER_INCLUDES: dict[str, Spec] = {
    "attack.example": {"TXT": ["v=spf1 include:inc.attack.example -all"]}
}

ALIGNED: list[tuple[str, Mail, str, dict[str, Spec]]] = [
    ("policy", spoof(), "_dmarc.legit.example", {}),
    ("policy, signed", spoof().signed(LEGIT_SIGNER), "_dmarc.legit.example", {}),
    ("policy of the organization", mail(b"<a@sub.legit.example>"), "_dmarc.legit.example", {}),
    ("policy walk, first step", mail(b"<a@sub.legit.example>"), "_dmarc.sub.legit.example", {}),
    ("SPF record", spoof(mail_from=LEGIT), "legit.example", {}),
    (
        "SPF record of HELO",
        spoof(mail_from=b"<>", helo=b"mail.legit.example"),
        "mail.legit.example",
        {},
    ),
    ("SPF include", spoof(mail_from=LEGIT), "inc.legit.example", INCLUDING),
    ("DKIM key", spoof().signed(LEGIT_SIGNER), LEGIT_SIGNER.key_name, {}),
    ("DKIM key below", mail(b"<a@legit.example>").signed(SUB), SUB.key_name, {}),
    ("DKIM key beside", mail(b"<a@sub.legit.example>").signed(SUB), SUB.key_name, {}),
    (
        "walk of the signer",
        mail(b"<a@sub.legit.example>").signed(SUB),
        "_dmarc.other.legit.example",
        SUB_KEY,
    ),
]
UNALIGNED: list[tuple[str, Mail, str, dict[str, Spec]]] = [
    ("SPF record", spoof(), "attack.example", {}),
    ("SPF include", spoof(), "inc.attack.example", ATTACKER_INCLUDES),
    ("SPF of a HELO beside MAIL FROM", spoof(helo=b"mail.legit.example"), "mail.legit.example", {}),
    ("DKIM key", spoof().signed(ATTACK_SIGNER), ATTACK_SIGNER.key_name, {}),
    ("walk of the signer", spoof().signed(ATTACK_SIGNER), "_dmarc.attack.example", {}),
    (
        "walk of MAIL FROM",
        spoof(mail_from=b"<a@x.attack.example>"),
        "_dmarc.x.attack.example",
        {"x.attack.example": {"TXT": ["v=spf1 +all"]}},
    ),
    (
        "DKIM key, strict",
        mail(b"<a@strict.example>").signed(Signer("sub.strict.example")),
        "sel._domainkey.sub.strict.example",
        {},
    ),
    ("ARC key", spoof().of(seal(spoof().raw, ATTACK_SIGNER)), ATTACK_SIGNER.key_name, {}),
]


def failing(row: tuple[str, Mail, str, dict[str, Spec]], failure: str, aligned: bool) -> Case:
    where, letter, name, zone = row
    spec = zone.get(name, {})
    policy = "strict.example" if "strict" in name else "legit.example"
    verdict = refused(policy)
    if aligned:  # without any record that answered no policy is known
        verdict = unanswered() if name == "_dmarc.legit.example" else deferred()
    return Case(
        "DNS matrix",
        letter,
        verdict,
        {**zone, name: {**spec, "behaviour": failure}},
        QUICK,
        note=f"{where} {failure}",
        seconds=4,
        variants=False,
    )


MATRIX = [
    failing(row, failure, aligned=True) for row, failure in itertools.product(ALIGNED, FAILURES)
]
MATRIX += [
    failing(row, failure, aligned=False) for row, failure in itertools.product(UNALIGNED, FAILURES)
]


@pytest.mark.parametrize("case", MATRIX, ids=ids)
def test_a_failure_counts_only_where_the_answer_could_have_given_a_pass(
    stage: Stage, case: Case
) -> None:
    """RFC 9989 5.3.6: temperror (451 where so configured), never 550 and never none; for other
    identifiers fail and the policy."""
    for mode in ("enforce", "tempfail"):
        stage.check_in(case, mode)


BEHAVIOURS = (
    "wrong_id",
    "wrong_question",
    "not_a_response",
    "no_question",
    "compression_loop",
    "huge_count",
    "truncated_silent",
)
BEHAVIOURS += (
    "empty",
    "header_only",
    "garbage",
    "truncated_reset",
    "truncated_garbage",
    "truncated_dribble",
    "formerr",
    "notimp",
    "refused",
    "yxdomain",
)

HOSTILE = [
    *(
        Case(
            "DNS-02",
            spoof(mail_from=LEGIT).signed(LEGIT_SIGNER),
            unanswered(),
            {
                "_dmarc.legit.example": {"behaviour": word},
                LEGIT_SIGNER.key_name: {"behaviour": word},
            },
            QUICK,
            note=word,
            seconds=4,
            variants=False,
        )
        for word in BEHAVIOURS
    ),
    Case(
        "DNS-02",
        spoof().signed(LEGIT_SIGNER),
        delivered("dkim=pass"),
        {LEGIT_SIGNER.key_name: {"TXT": [LEGIT_SIGNER.record()], "behaviour": "spoofed_first"}},
        note="forged packets first",
        variants=False,
    ),
    Case(
        "DNS-02",
        spoof().signed(LEGIT_SIGNER),
        delivered("dkim=pass"),
        {LEGIT_SIGNER.key_name: {"TXT": [LEGIT_SIGNER.record()], "behaviour": "truncated"}},
        note="over TCP",
        variants=False,
    ),
    Case(
        "DNS-02",
        spoof(),
        unanswered(),
        {"_dmarc.legit.example": {"TXT": [*["x"] * 1749, "v=DMARC1; p=reject"]}},
        note="1750 records",
        variants=False,
    ),
    Case(
        "DNS-02",
        spoof(mail_from=LEGIT),
        refused("legit.example", "spf=permerror"),
        {"legit.example": {"TXT": ["v=spf1 " + "x" * 65_000]}},
        note="64 KB",
        variants=False,
    ),
    Case(
        "DNS-02",
        spoof(),
        unanswered(),
        {"_dmarc.legit.example": {"CNAME": "_dmarc.legit.example", "follow": False}},
        note="CNAME to itself",
        variants=False,
    ),
    Case(
        "DNS-03",
        spoof(),
        refused(),
        {"_dmarc.legit.example": {"TXT": ["v=DMARC1; p=reject"], "ttl": 2**31 - 1}},
        note="endless TTL",
        variants=False,
    ),
    Case(
        "DNS-03",
        spoof(),
        refused(),
        {"_dmarc.legit.example": {"TXT": ["v=DMARC1; p=reject"], "ttl": 2**32 - 1}},
        note="TTL over 2^31",
        variants=False,
    ),
    *(
        Case(
            "DNS-05",
            spoof().signed(LEGIT_SIGNER, tags={"d": d, "s": s}),
            refused("legit.example", "dkim=permerror"),
            note=repr((d, s)),
            variants=False,
        )
        for d, s in (
            ("a b.example", "sel"),
            ("a\\046b.example", "sel"),
            ("legit.example", "*"),
            ("legit.example", "a\\.b"),
            ("legit.example", "é"),
            ("a\x00.example", "sel"),
        )
    ),
    *(
        Case(
            "DNS-05",
            spoof(mail_from=path),
            refused(),
            {"attack.example": {"TXT": ["v=spf1 exists:%{l}.x.attack.example -all"]}},
            note=repr(path),
            variants=False,
        )
        for path in (
            b"<a b@attack.example>",
            b"<a\\b@attack.example>",
            b"<*@attack.example>",
            b'<"a b"@attack.example>',
            b"<a\xff@attack.example>",
        )
    ),
    Case(
        "DNS-06",
        spoof(),
        refused(),
        {
            "attack.example": {
                "TXT": [
                    "v=spf1 "
                    + " ".join(f"include:i{n}.victim.example" for n in range(10))
                    + " -all"
                ]
            },
            "*.victim.example": {"TXT": ["v=spf1 mx mx:a mx:b -all"]},
        },
        queries=125,
        note="ten includes",
        variants=False,
    ),
]


@pytest.mark.parametrize("case", HOSTILE, ids=ids)
def test_a_hostile_answer(stage: Stage, case: Case) -> None:
    """Classified, bounded by the look-up's time, and never an exception."""
    stage.check(case)


def test_only_names_of_letters_digits_hyphen_and_underscore_are_sent(stage: Stage) -> None:
    """DNS-05: whatever stands in d=, s= or a local part, no other octet reaches the name server."""
    for case in HOSTILE:
        if case.row == "DNS-05":
            stage.script(case.zone)
            stage.running().send(case.mail)
            for name, _ in stage.dns.queries:
                assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_."), name


def tarpit() -> Mail:
    """Ten signatures, SPF with ten look-ups, fifty ARC sets, each with a name of its own."""
    letter = spoof(mail_from=b"<a@slow.attack.example>")
    signers = [Signer(f"d{n}.slow.attack.example") for n in range(10)]
    for each in signers:
        each.key = ATTACK_SIGNER.key
    raw = letter.raw
    sealers = [Signer(f"s{n}.slow.attack.example") for n in range(50)]
    for each in sealers:
        each.key = ATTACK_SIGNER.key
    sealed = raw
    for each in sealers:
        sealed = seal(sealed, each)
    return letter.of(sealed).top(*(each.field(raw) for each in signers))


def test_a_tarpit_holds_nobody_else(stage: Stage) -> None:
    """DNS-01: nothing is ever answered: judged within the budget, while another session is served
    at once."""
    zone: dict[str, Spec] = {
        "*.slow.attack.example": {"behaviour": "silent"},
        "slow.attack.example": {"behaviour": "silent"},
    }
    case = Case("DNS-01", tarpit(), refused(), zone, QUICK, seconds=4.5, variants=False)
    stage.check(case)
    zone["_dmarc.legit.example"] = {"behaviour": "silent"}
    stage.check(
        Case(
            "DNS-01",
            tarpit(),
            unanswered(),
            zone,
            QUICK,
            seconds=4.5,
            variants=False,
            note="policy too",
        )
    )


@pytest.mark.parametrize("timeout", [0.8, 5.0])
@pytest.mark.parametrize(
    "row", [each for each in ALIGNED if "walk" not in each[0]], ids=lambda row: row[0]
)
def test_a_budget_shorter_than_a_look_up_is_no_verdict(
    stage: Stage, row: tuple[str, Mail, str, dict[str, Spec]], timeout: float
) -> None:
    """DNS-01, DKM-23: a name that is never answered is temperror too where the message's seconds
    end before the look-up's own."""
    _, letter, name, zone = row
    stage.script({**zone, name: {**zone.get(name, {}), "behaviour": "silent"}})
    tables = {"dns": {"timeout": timeout, "budget": 0.8}}
    heard = stage.running("accept", tables).send(letter)
    assert (heard.answer.code, heard.dmarc.result) == (250, "temperror"), heard.show()
    assert stage.running("enforce", tables).send(letter).answer.code == (
        250 if name == "_dmarc.legit.example" else 451
    )
    assert stage.running("tempfail", tables).send(letter).answer.code == 451
    stage.script(zone)
    assert stage.running("enforce", tables).send(good()).dmarc.result == "pass", (
        "nothing of it is left for the next message"
    )


def test_many_tarpits_hold_nobody_else(stage: Stage) -> None:
    """DNS-01, I3: with 60 sessions in the tarpit at once a new one is answered within 2 s."""
    running = stage.running("enforce", QUICK)
    stage.script(
        {
            "*.slow.attack.example": {"behaviour": "silent"},
            "slow.attack.example": {"behaviour": "silent"},
        }
    )
    letter = tarpit()
    threads = [threading.Thread(target=running.send, args=(letter,)) for _ in range(60)]
    for each in threads:
        each.start()
    time.sleep(0.3)
    heard = running.send(good())
    assert heard.dmarc.result == "pass"
    waited = heard.seconds
    for each in threads:
        each.join()
    assert waited < 2.0
    running.new_lines()


def test_random_subdomains_fill_no_memory(stage: Stage) -> None:
    """DNS-04: the cache is bounded by entries and octets; 400 messages from names of their own
    leave the worker as it was."""
    running = stage.running("enforce", {"dns": {"cache_entries": 50, "cache_bytes": 65536}})
    stage.script({"*.attack.example": {"TXT": ["v=spf1 -all"]}})
    running.send(mail(b"<a@a.attack.example>"))
    before = running.memory()
    for number in range(400):
        running.send(mail(b"<a@a%d.attack.example>" % number))
    assert running.memory() - before < 16 * 1024 * 1024
    running.new_lines()


def test_dns_that_comes_and_goes(stage: Stage) -> None:
    """DNS-07: with no server at all messages are temperror, and once it answers they pass, without
    a restart."""
    running = stage.running("tempfail", QUICK)
    stage.script({}, behaviour="silent")
    assert running.send(spoof().signed(LEGIT_SIGNER)).answer.code == 451
    stage.script({})
    deadline = time.monotonic() + 5
    while (heard := running.send(spoof().signed(LEGIT_SIGNER))).answer.code != 250:
        assert time.monotonic() < deadline
    assert heard.dmarc.result == "pass"
    running.new_lines()
