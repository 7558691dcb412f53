"""ARC rows of the attack catalogue through the daemon: a chain proves nothing unless its sealers
are trusted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fakes.attack import ATTACK_SIGNER, Case, Mail, Stage, Verdict, ids, refused, spoof
from fakes.dns_server import Spec
from fakes.sealer import seal
from fakes.signer import Signer, Style

LIST, RELAY = Signer("list.example"), Signer("relay.example")
KEYS: dict[str, Spec] = {each.key_name: {"TXT": [each.record()]} for each in (LIST, RELAY)}
TRUST = {"authentication": {"trusted_arc_sealers": ["list.example"]}}
TRUST_BOTH = {"authentication": {"trusted_arc_sealers": ["list.example", "relay.example"]}}
OVERRIDDEN = Verdict(
    250, "fail", "legit.example", ("arc=pass", "dis=none", "policy.override=local_policy")
)
FAILED = refused("legit.example", "arc=fail")
PASSED = refused("legit.example", "arc=pass")
SAW_PASS = "dmarc=pass header.from=legit.example"


def sealed(*signers: Signer, **last: Any) -> Mail:
    """The spoof with one right set for each signer; `last` is for the newest."""
    raw = spoof().raw
    for number, signer in enumerate(signers, 1):
        raw = seal(raw, signer, **(last if number == len(signers) else {}))
    return spoof().of(raw)


def case(
    row: str, letter: Mail, verdict: Verdict, note: str = "", tables: Any = TRUST, **rest: Any
) -> Case:
    return Case(row, letter, verdict, KEYS, tables, note=note, variants=False, **rest)


def added(letter: Mail, name: bytes, value: bytes) -> Mail:
    return letter.top((name, value))


def without(letter: Mail, number: int) -> Mail:
    return replace(letter, fields=letter.fields[:number] + letter.fields[number + 1 :])


def swapped(letter: Mail, old: bytes, new: bytes) -> Mail:
    return replace(
        letter, fields=tuple((name, value.replace(old, new)) for name, value in letter.fields)
    )


JUNK_SETS = tuple(
    (name, b" i=%d; a=rsa-sha256; d=j%d.example; s=s; cv=pass; b=AAAA; bh=AAAA; h=from" % (n, n))
    for n in range(330)
    for name in (b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results")
)
ODD_RESULTS = (
    "(null)=pass",
    "dara=neutral",
    "dmarc=pass header.i.x=1",
    "dmarc=pass header.from.toString.z=1 value.x=1",
    "__proto__=pass; __class__.__init__=x",
    "dmarc=pass header.from=" + "x" * 9000,
)

ARC = [
    case("ARC-01", sealed(ATTACK_SIGNER), PASSED, "one set"),
    case(
        "ARC-01",
        sealed(ATTACK_SIGNER, LIST, results="dmarc=fail header.from=legit.example"),
        PASSED,
        "trusted on top of the attacker's",
    ),
    case("ARC-02", sealed(LIST), OVERRIDDEN),
    case("ARC-02", sealed(LIST, LIST), OVERRIDDEN, "twice"),
    case("ARC-02", sealed(LIST, RELAY), OVERRIDDEN, "both trusted", TRUST_BOTH),
    case(
        "ARC-02",
        sealed(LIST, results="dmarc=fail header.from=legit.example"),
        PASSED,
        "it saw a failure",
    ),
    case(
        "ARC-02",
        sealed(
            LIST,
            results="dmarc=pass header.from=legit.example; dmarc=fail header.from=legit.example",
        ),
        PASSED,
        "two words",
    ),
    case(
        "ARC-02",
        sealed(LIST, results="spf=pass smtp.mailfrom=legit.example"),
        PASSED,
        "it saw no dmarc",
    ),
    case("ARC-03", sealed(LIST, RELAY), PASSED, "an untrusted hop after"),
    case("ARC-03", sealed(LIST, ATTACK_SIGNER), PASSED, "the attacker after"),
    case(
        "ARC-04",
        swapped(sealed(LIST), b"<admin@legit.example>", b"<other@legit.example>"),
        FAILED,
        "From changed",
    ),
    case("ARC-04", replace(sealed(LIST), body=b"Pay.\r\n"), FAILED, "body changed"),
    case("ARC-04", sealed(LIST, headers=("to", "subject")), FAILED, "From not sealed"),
    *(
        case("ARC-05", sealed(LIST, instance=number), FAILED, f"i={number[:12]}")
        for number in ("0", "01", "-1", "2", "51", "9" * 5000, "99999999", "x", "1.0", "+1", "²")
    ),
    case(
        "ARC-05",
        added(
            sealed(LIST), b"ARC-Seal", b" i=1; cv=none; a=rsa-sha256; d=list.example; s=sel; b=AAAA"
        ),
        FAILED,
        "a seal more",
    ),
    *(
        case("ARC-05", without(sealed(LIST), number), FAILED, f"without field {number}")
        for number in range(3)
    ),
    case("ARC-05", sealed(LIST, cv="pass"), FAILED, "cv=pass at 1"),
    case("ARC-05", sealed(LIST, cv="fail"), FAILED, "cv=fail"),
    case("ARC-05", sealed(LIST, LIST, cv="none"), FAILED, "cv=none at 2"),
    case("ARC-05", sealed(LIST, seal_tags={"cv": None}), FAILED, "no cv"),
    case("ARC-05", sealed(LIST, seal_tags={"h": "from"}), FAILED, "h= in the seal"),
    *(
        case("ARC-06", sealed(LIST, style=style, first=first), OVERRIDDEN, f"{number} {first}")
        for number, style in enumerate((Style(lead=""), Style(lead="\t"), Style(equals=" = ")))
        for first in (("i",), ("a", "b"))
    ),
    case(
        "ARC-06",
        swapped(sealed(LIST, style=Style(lead="")), b"admin@", b"other@"),
        FAILED,
        "altered",
    ),
    case("ARC-07", spoof().top(*JUNK_SETS), FAILED, "990 fields", queries=20, seconds=0.5),
    case("ARC-08", added(spoof(), b"ARC-Seal", b" x"), FAILED, "x"),
    case("ARC-08", added(spoof(), b"ARC-Seal", b" i=1; none"), FAILED, "none"),
    case(
        "ARC-08",
        added(spoof(), b"ARC-Authentication-Results", b" i=1; " + b"x" * 70_000),
        FAILED,
        "70 KB",
    ),
    case(
        "ARC-08",
        sealed(LIST, aar=" i=1; mx.list.example; " + "x=y; " * 14_000),
        PASSED,
        "70 KB sealed",
    ),
    *(
        case("ARC-09", sealed(LIST, results=text), PASSED, text[:30])
        for text in ODD_RESULTS[:2] + ODD_RESULTS[3:]
    ),
    case(
        "ARC-10",
        sealed(LIST, results="dmarc=pass header.from=other.example"),
        PASSED,
        "another From",
    ),
    case(
        "ARC-10",
        sealed(LIST, results="dmarc=pass header.from=sub.legit.example"),
        PASSED,
        "a subdomain",
    ),
    case("ARC-10", sealed(LIST, results="dmarc=pass"), PASSED, "no From"),
    case(
        "ARC-10",
        sealed(
            LIST,
            results='dmarc=pass (header.from=legit.example) reason="header.from=legit.example"',
        ),
        PASSED,
        "elsewhere",
    ),
    *(
        case(row, sealed(LIST, results=SAW_PASS + rest), PASSED, rest[:30])
        for row, rest in (
            ("RES-70", f" {'policy.x=1 ' * 20} header.from=attack.example"),
            ("RES-70", f" header.from={'a' * 300}@attack.example"),
            ("RES-70", f"; {'dkim=pass; ' * 40}dmarc=fail header.from=legit.example"),
            ("RES-70", " dmarc=fail header.from=legit.example"),
            ("RES-71", " <a@attack.example>"),
            ("RES-71", "(c).attack.example"),
        )
    ),
    case(
        "RES-72",
        sealed(LIST, results="dmarc=pass(p=none) action=none header.from=<admin@legit.example>"),
        OVERRIDDEN,
        "genuine",
    ),
]


@pytest.mark.parametrize("case", ARC, ids=ids)
def test_a_chain(stage: Stage, case: Case) -> None:
    """RFC 8617 5.2, and the override only by sealers that the administrator trusts."""
    stage.check(case)


def test_a_chain_is_asked_about_no_more_than_allowed(stage: Stage) -> None:
    """ARC-07: not one key is asked for where the structure is wrong; a sound chain asks once for
    each key."""
    for note, limit in (("990 fields", 0), ("twice", 1)):
        case = next(each for each in ARC if each.note == note)
        stage.script(case.zone)
        stage.running("enforce", TRUST).send(case.mail)
        assert len([name for name, _ in stage.dns.queries if "_domainkey" in name]) == limit, note


def test_without_arc_nothing_is_looked_at(stage: Stage) -> None:
    """Detachable: with arc = false no chain is read, named or trusted."""
    stage.script(KEYS)
    running = stage.running(
        "monitor", {"authentication": {"arc": False, "trusted_arc_sealers": ["list.example"]}}
    )
    heard = running.send(sealed(LIST))
    assert heard.ours is not None
    assert heard.ours.of("arc") == []
    assert "policy.override" in heard.dmarc.properties  # monitor
    assert not [name for name, _ in stage.dns.queries if "_domainkey" in name]
