"""What the MTA does after us: Sendmail looks the domain in From up and writes where the sender's
DNS leads, unless it is told not to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.config import Config
from dmarc_milter.config.schema_policy import Authentication
from dmarc_milter.daemon.wiring import canonify
from dmarc_milter.mta.sendmail_watch import Watched
from fakes.attack import (
    ATTACK_SIGNER,
    LEGIT_SIGNER,
    Case,
    Heard,
    Mail,
    Stage,
    delivered,
    mail,
    refused,
)
from fakes.dns_server import Spec
from fakes.signer import Signer

SENDMAIL = {"v": "8.17.1.9/8.17.1.9/Debian-2+deb12u2"}
POSTFIX = {"v": "Postfix 3.7.11"}
B = Signer("brand.example")
ZONE: dict[str, Spec] = {
    "x.attack.example": {"CNAME": "legit.example"},
    "chain.attack.example": {"CNAME": "x.attack.example"},
    "*.w.attack.example": {"CNAME": "legit.example"},
    "apart.attack.example": {"CNAME": "legit.example", "follow": False},
    "dangling.attack.example": {"CNAME": "nowhere.legit.example"},
    "own.attack.example": {"CNAME": "mail.attack.example"},
    "mail.attack.example": {"A": ["192.0.2.67"]},
    "lame.attack.example": {"A": ["192.0.2.66"], "behaviour": {"AAAA": "servfail"}},
    "loop.attack.example": {"CNAME": "loop2.attack.example"},
    "loop2.attack.example": {"CNAME": "loop.attack.example"},
    "odd.attack.example": {"CNAME": "a\\b.legit.example"},
    "plain.attack.example": {"A": ["192.0.2.66"]},
    "brand.example": {"A": ["198.51.100.77"]},
    "_dmarc.brand.example": {"TXT": ["v=DMARC1; p=reject"]},
    B.key_name: {"TXT": [B.record()]},
    "news.brand.example": {"CNAME": "x.esp.example"},
    "x.esp.example": {"A": ["203.0.113.50"]},
    "www.brand.example": {"CNAME": "brand.example"},
}
BECAUSE_OF_THE_DNS = ("x", "chain", "a.w", "apart", "dangling", "lame", "loop", "odd")


def letter(host: str, *macros: Mapping[str, str], signer: Signer = ATTACK_SIGNER) -> Mail:
    """A message of that host's, which passes by its own signature, through an MTA that says what it
    is."""
    made = mail(f"<admin@{host}>".encode()).signed(signer)
    return Mail(made.fields, ip="203.0.113.9", macros=macros[0] if macros else SENDMAIL)


@pytest.fixture(scope="module")
def rewriting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sendmail.cf that every test of this module may read: the daemon that reads it is shared
    too."""
    file = tmp_path_factory.mktemp("rewriting") / "sendmail.cf"
    file.write_text(REWRITING)
    return file


@pytest.fixture(scope="module")
def prevented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with what keeps Sendmail from it."""
    file = tmp_path_factory.mktemp("prevented") / "sendmail.cf"
    file.write_text(PREVENTED)
    return file


@pytest.fixture
def cf(tmp_path: Path) -> Path:
    return tmp_path / "sendmail.cf"


def tables(way: str = "yes", cf: Path | None = None) -> dict[str, dict[str, Any]]:
    return {
        "authentication": {
            "sendmail_expands_aliases": way,
            **({"sendmail_cf": str(cf)} if cf else {}),
        }
    }


def sent(
    stage: Stage, message: Mail, settings: Mapping[str, Mapping[str, Any]], mode: str = "enforce"
) -> Heard:
    stage.script(ZONE)
    running = stage.running(mode, settings)
    heard = running.send(message)
    assert not [line for line in running.new_lines() if b"event=failure" in line]
    return heard


def marked(heard: Heard) -> bool:
    return bool(heard.answer.values("X-DMARC-Quarantine"))


@pytest.mark.parametrize("host", BECAUSE_OF_THE_DNS)
def test_an_alias_of_somebody_else_is_no_pass(stage: Stage, host: str) -> None:
    """MTA-01..03: chains, wildcards, aliases of names that do not exist, loops; what a failing
    look-up would say is unknown."""
    heard = sent(stage, letter(f"{host}.attack.example"), tables())
    assert heard.answer.code == 250
    assert heard.dmarc.result in ("fail", "temperror"), heard.show()
    assert marked(heard)
    watched = sent(stage, letter(f"{host}.attack.example"), tables(), "monitor")
    assert watched.dmarc.result in ("fail", "temperror")
    assert not marked(watched)


@pytest.mark.parametrize("host", ["plain.attack.example", "own.attack.example", "attack.example"])
def test_what_stays_in_the_organization_passes(stage: Stage, host: str) -> None:
    """MTA-04: an alias within the author's organization, and no alias at all."""
    heard = sent(stage, letter(host), tables())
    assert heard.dmarc.result == "pass", heard.show()
    assert not marked(heard)


def test_a_message_that_passes_for_the_target_too_passes(stage: Stage) -> None:
    """MTA-04: both signed."""
    made = letter("x.attack.example")
    both = Mail(made.fields, ip="203.0.113.9", macros=SENDMAIL).signed(LEGIT_SIGNER)
    heard = sent(stage, both, tables())
    assert heard.dmarc.result == "pass", heard.show()


@pytest.mark.parametrize("types", ["AAAA", "A", "MX"])
def test_each_question_that_sendmail_asks_is_asked(stage: Stage, types: str) -> None:
    """MTA-02: a server of the sender's own may give the alias to one question only."""
    host = "split.attack.example"
    answers: dict[str, Spec] = {
        **ZONE,
        host: {"A": ["192.0.2.66"], "AAAA": ["2001:db8::66"], "MX": [[10, "mx.attack.example"]]},
    }
    stage.script(answers)
    running = stage.running("enforce", tables())
    assert running.send(letter(host)).dmarc.result == "pass"
    asked = [rdtype for name, rdtype in stage.dns.queries if name == host]
    assert types in asked
    running.new_lines()


def test_a_policy_that_the_author_lacks_does_not_help(stage: Stage) -> None:
    """MTA-05: no pass for the author either; the policy of the name that is written still asks for
    more than nothing."""
    unsigned = mail(b"<admin@x.attack.example>", macros=SENDMAIL, ip="203.0.113.9")
    heard = sent(stage, unsigned, tables())
    assert heard.dmarc.result == "fail"
    assert marked(heard)


def test_a_refusal_stays_a_refusal(stage: Stage) -> None:
    """MTA-05: what the author's own policy refuses is refused."""
    heard = sent(stage, mail(b"<admin@legit.example>", macros=SENDMAIL, ip="203.0.113.9"), tables())
    assert heard.answer.text.startswith("550 5.7.1 ")


@pytest.mark.parametrize("action", ["header", "reject", "hold"])
def test_it_is_quarantined_however_that_is_done_and_never_refused(
    stage: Stage, action: str
) -> None:
    """MTA-06: it may be genuine mail of a sender with an alias; our own MTA would spoil it."""
    settings = {**tables(), "policy": {"quarantine_action": action}}
    heard = sent(stage, letter("news.brand.example", signer=B), settings)
    assert heard.answer.code == 250
    assert (heard.answer.quarantined is not None) == (action == "hold")
    assert marked(heard) == (action != "hold")
    assert heard.dmarc.result == "fail"
    assert "policy.override" in heard.dmarc.properties


REWRITING = "Scanonify=3\nSCanonify2=96\nR$* $| $* < @ $* > $*\t\t$: $2 < @ $[ $3 $] > $4\n"
PREVENTED = (
    "O DontExpandCnames=True\nScanonify=3\nSCanonify2=96\nR$* $| $* < @ $+.$+ > $*\t$: $2 < @ $3.$4"
    " . > $5\n"
)


@pytest.mark.parametrize(
    ("way", "text", "mta", "changes"),
    [
        ("auto", REWRITING, "sendmail", True),
        ("auto", PREVENTED, "sendmail", False),
        ("auto", REWRITING, "postfix", False),
        ("auto", REWRITING, "", False),
        ("auto", None, "sendmail", True),
        ("auto", None, "postfix", False),
        ("yes", PREVENTED, "sendmail", True),
        ("yes", PREVENTED, "", True),
        ("yes", PREVENTED, "postfix", False),
        ("no", REWRITING, "sendmail", False),
    ],
)
def test_it_depends_on_the_mta(
    cf: Path, way: str, text: str | None, mta: str, changes: bool
) -> None:
    """MTA-07: auto reads sendmail.cf where the MTA says that it is Sendmail; a file that cannot be
    read is taken for the default."""
    if text is not None:
        cf.write_text(text)
    config = Config(
        authentication=Authentication(sendmail_expands_aliases=way, sendmail_cf=str(cf))
    )  # type: ignore[arg-type]
    how = canonify(config)(mta)
    assert (how is not None and how.looks_up) == changes


@pytest.mark.parametrize(
    ("macros", "text", "word"),
    [(SENDMAIL, REWRITING, "fail"), (SENDMAIL, PREVENTED, "pass"), (POSTFIX, REWRITING, "pass")],
)
def test_the_mta_is_told_by_its_macro(
    stage: Stage, rewriting: Path, prevented: Path, macros: dict[str, str], text: str, word: str
) -> None:
    """MTA-07: v is a bare version for Sendmail, and has a name for Postfix."""
    cf = rewriting if text is REWRITING else prevented
    for host, signer in (("x.attack.example", ATTACK_SIGNER), ("news.brand.example", B)):
        heard = sent(stage, letter(host, macros, signer=signer), tables("auto", cf))
        assert heard.dmarc.result == word, heard.show()
        assert marked(heard) == (word != "pass")


def test_a_changed_sendmail_cf_is_read_again(cf: Path) -> None:
    """MTA-07: who puts the lines in and restarts Sendmail need not think of the milter."""
    cf.write_text(REWRITING)
    watched = Watched(cf)
    assert watched.canonify(0.0) is not None
    cf.write_text(PREVENTED)
    assert watched.canonify(100.0) is None
    cf.unlink()
    assert watched.canonify(200.0) is not None
    cf.write_text(PREVENTED)
    assert watched.canonify(300.0) is None
    cf.write_text("V10/Berkeley\n")
    assert watched.canonify(400.0) is not None  # just being written


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "bank.UUCP", "bank.legit.example.uucp"])
def test_what_every_sendmail_takes_for_itself_is_judged_as_its_own_name(
    stage: Stage, prevented: Path, host: str
) -> None:
    """MTA-12: it writes its own name for localhost and .UUCP whatever its lines say; our own policy
    counts then."""
    stage.script({**ZONE, "_dmarc.example.com": {"TXT": ["v=DMARC1; p=reject"]}})
    running = stage.running("enforce", tables("auto", prevented))
    heard = running.send(letter(host))
    assert heard.answer.code == 250
    assert heard.dmarc.result != "pass"
    assert marked(heard)
    assert not marked(running.send(letter("plain.attack.example")))
    assert not marked(running.send(letter("localhost", POSTFIX)))
    running.new_lines()


def test_exempt_mail_is_left_alone(stage: Stage) -> None:
    """MTA-04: whoever is not evaluated gets no field, and so no pass."""
    settings = {
        "authentication": {**tables()["authentication"], "trusted_networks": ["203.0.113.0/24"]}
    }
    heard = sent(stage, letter("x.attack.example"), settings)
    assert heard.ours is None


@pytest.mark.parametrize("behaviour", ["servfail", "silent", "refused"])
def test_a_failing_dns_never_improves_the_verdict(stage: Stage, behaviour: str) -> None:
    """MTA-03: the alias's look-up fails for us and may work for Sendmail a moment later."""
    for types in ("AAAA", "A", "MX") if behaviour == "servfail" else ("AAAA",):
        zone: dict[str, Spec] = {
            **ZONE,
            "lame.attack.example": {"A": ["192.0.2.66"], "behaviour": {types: behaviour}},
        }
        stage.script(zone)
        running = stage.running("enforce", tables())
        heard = running.send(letter("lame.attack.example"))
        assert heard.dmarc.result != "pass", heard.show()
        assert heard.answer.code == 451 or marked(heard)
        running.new_lines()


RULES = ("reject", "quarantine", "accept", "none", "tag")


@pytest.mark.parametrize("action", RULES)
def test_a_strict_rule_for_what_readers_will_see(stage: Stage, action: str) -> None:
    """MTA-13: the rule protects a name without a policy; a lenient rule for that name, which nobody
    has proven, helps nobody."""
    rules = [
        {
            "author_domains": [f"{each}.quiet.example"],
            "action": each,
            **({"tag": "t"} if each == "tag" else {}),
        }
        for each in RULES
    ]
    host, target = f"{action}.attack.example", f"{action}.quiet.example"
    stage.script({**ZONE, host: {"CNAME": target}, target: {"A": ["192.0.2.67"]}})
    running = stage.running("enforce", {**tables(), "policy": {"rules": rules}})
    heard = running.send(mail(b"<admin@%s>" % host.encode(), macros=SENDMAIL, ip="203.0.113.9"))
    assert heard.answer.code == 250
    assert marked(heard) == (action in ("reject", "quarantine")), heard.show()
    passed = running.send(letter(host))
    assert passed.dmarc.result != "pass"
    assert marked(passed)
    running.new_lines()


def test_a_relay_is_not_kept_waiting_and_gets_no_pass_either(stage: Stage) -> None:
    """MTA-14: where the author's own key fails and the alias leads to a name with a policy, mail of
    trusted_relays is quarantined."""
    zone: dict[str, Spec] = {**ZONE, ATTACK_SIGNER.key_name: {"behaviour": "servfail"}}
    stage.script(zone)
    trust = {**tables()["authentication"], "trusted_relays": ["203.0.113.9"]}
    running = stage.running("enforce", {"authentication": trust})
    received = (
        b"Received",
        (
            b" from mx.attack.example (mx.attack.example [203.0.113.77]) by relay.example.com"
            b" (Postfix) with ESMTP id 4X"
        ),
    )
    heard = running.send(letter("x.attack.example").top(received))
    assert heard.answer.code == 250
    assert heard.dmarc.result != "pass"
    assert marked(heard), heard.show()
    running.new_lines()


MALFORMED = (
    b"<a@attack.example>, <b@x.attack.example>",
    b'"admin@x.attack.example" : ;, a@attack.example',
    b"x@x.attack.example@attack.example",
)


@pytest.mark.parametrize("value", MALFORMED)
@pytest.mark.parametrize("more", [{}, {"dmarc": {"discovery": "psl"}}], ids=["walk", "psl"])
def test_an_alias_among_several_names(stage: Stage, value: bytes, more: dict[str, Any]) -> None:
    """MTA-15: each name that a reader could see is followed, by the public suffix list too; all of
    them are signed for."""
    heard = sent(
        stage,
        mail(value, macros=SENDMAIL, ip="203.0.113.9").signed(ATTACK_SIGNER),
        {**tables(), **more},
    )
    assert heard.answer.code == 550 or marked(heard), heard.show()


@pytest.mark.parametrize("version", ["Postfix 3.7.11", "Our Mail 3.7.11", ""])
@pytest.mark.parametrize("way", ["auto", "no"])
def test_nothing_is_asked_for_another_mta(
    stage: Stage, rewriting: Path, version: str, way: str
) -> None:
    """MTA-07: the same questions as where the option is off, for whatever calls itself Postfix or
    by a name of its own."""
    stage.script({**ZONE, f"fresh{len(version)}{way}.attack.example": {"CNAME": "legit.example"}})
    running = stage.running("enforce", tables(way, rewriting))
    before = len(stage.dns.queries)
    heard = running.send(
        letter(f"fresh{len(version)}{way}.attack.example", {"v": version} if version else {})
    )
    asked = stage.dns.queries[before:]
    assert heard.dmarc.result == "pass"
    assert not [
        each for each in asked if each[1] in ("A", "AAAA", "MX") and each[0].startswith("fresh")
    ]
    running.new_lines()


SPOOFS = [
    Case("MTA-05", mail(b"<admin@legit.example>"), refused(), tables=tables()),
    Case("MTA-04", letter("plain.attack.example"), delivered(), tables=tables()),
]


@pytest.mark.parametrize("case", SPOOFS, ids=str)
def test_the_rest_is_as_ever(stage: Stage, case: Case) -> None:
    """MTA-04, -05: all invariants, with the option on."""
    stage.check(Case(case.row, case.mail, case.verdict, ZONE, case.tables))
