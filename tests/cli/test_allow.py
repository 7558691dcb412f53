"""`allow` and `rules test`: a rule for one sender that rests on something proven, and rules tried
on mail that was judged already."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dmarc_milter.cli.running import reload_daemon
from dmarc_milter.config import load
from dmarc_milter.core.arc import ArcHop, ArcResult, ArcStatus
from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.policy.verdict import Deferral, Disposition, Verdict
from dmarc_milter.core.spf.check import SpfResult, SpfStatus
from fakes import commands
from fakes.commands import Ask, asking, with_store
from fakes.evaluations import evaluation

NOW = datetime.now(UTC)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return with_store(tmp_path)


@pytest.fixture
def ask(config: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    return asking(config, capsys)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., None]:
    return lambda *evaluations: commands.record(
        tmp_path, [replace(each, at=NOW) for each in evaluations]
    )


def signed(*names: str, **changes: Any) -> Evaluation:
    """A message From legit.example that failed, with signatures of others that verified."""
    return evaluation(
        dkim=tuple(DkimResult(DkimStatus.PASS, Domain(name), "s") for name in names),
        **{
            "spf": SpfResult(SpfStatus.FAIL, Domain("legit.example")),
            "queue_id": "4QX",
            "source_ip": "198.51.100.7",
        }
        | changes,
    )


def spf_pass(name: str) -> SpfResult:
    return SpfResult(SpfStatus.PASS, Domain(name))


SEALED = ArcResult(ArcStatus.PASS, (ArcHop(1, Domain("relay.example"), "s"),))


@pytest.mark.parametrize(
    ("message", "condition"),
    [
        (signed("lists.example"), 'dkim = ["lists.example"]'),
        (signed("amazonses.com", "shop.example"), 'dkim = ["shop.example"]'),
        (signed("amazonses.com", spf=spf_pass("news.example")), 'spf = ["news.example"]'),
        (signed(spf=spf_pass("news.example")), 'spf = ["news.example"]'),
        (signed(spf=spf_pass("gmail.com")), 'networks = ["198.51.100.7/32"]'),
        (signed("sendgrid.net"), 'networks = ["198.51.100.7/32"]'),
        (signed(), 'networks = ["198.51.100.7/32"]'),
        (signed(arc=SEALED), 'networks = ["198.51.100.7/32"]'),
    ],
)
def test_the_rule_rests_on_what_is_proven_and_never_on_the_author_alone(
    ask: Ask, record: Callable[..., None], message: Evaluation, condition: str
) -> None:
    record(message)
    code, out, _ = ask("allow", "4QX")
    assert code == 0
    assert condition in out
    assert 'author_domains = ["legit.example"]' in out
    conditions = [line.split(" =")[0] for line in out.split("\n") if " = [" in line]
    assert set(conditions) > {"author_domains"}


def test_a_trusted_sealer_of_an_arc_chain_is_proof(
    ask: Ask, record: Callable[..., None], config: Path
) -> None:
    config.write_text(
        config.read_text() + '[authentication]\ntrusted_arc_sealers = ["relay.example"]\n'
    )
    record(signed(arc=SEALED))
    code, out, _ = ask("allow", "4QX")
    assert code == 0
    assert 'arc = ["relay.example"]' in out
    assert "author_domains" not in out


def test_a_list_is_let_in_for_all_its_authors(ask: Ask, record: Callable[..., None]) -> None:
    record(signed("lists.example", facts=MessageFacts(list_id="dev.lists.example")))
    code, out, _ = ask("allow", "4QX", "--for", "always")
    assert code == 0
    assert "author_domains" not in out
    assert "expires" not in out
    assert 'reason = "mailing_list"' in out


def test_where_nothing_is_proven_there_is_no_rule(ask: Ask, record: Callable[..., None]) -> None:
    unknown = signed()
    record(replace(unknown, envelope=replace(unknown.envelope, source_ip=None)))
    code, out, err = ask("allow", "4QX")
    assert (code, out) == (1, "")
    assert "nothing about that message is proven" in err


@pytest.mark.parametrize("changes", [{}, {"facts": MessageFacts(list_id="dev.lists.example")}])
def test_where_no_author_can_be_read_there_is_no_rule(
    ask: Ask, record: Callable[..., None], changes: dict[str, Any]
) -> None:
    """It would have no author_domains: whoever sends from there could write anything into From."""
    message = signed("lists.example", **changes)
    dmarc = DmarcResult(DmarcStatus.TEMPERROR, None, None)
    record(replace(message, author=Author(None), dmarc=dmarc))
    code, out, err = ask("allow", "4QX")
    assert (code, out) == (1, "")
    assert "nothing can be allowed: that message names no author" in err


def test_a_claimed_list_is_no_reason_to_let_in_every_author(
    ask: Ask, record: Callable[..., None]
) -> None:
    """Anybody can write List-Id (RFC 2919); here nothing but the client's address is proven."""
    record(signed(facts=MessageFacts(list_id="dev.lists.example")))
    code, out, _ = ask("allow", "4QX")
    assert code == 0
    assert 'networks = ["198.51.100.7/32"]' in out
    assert 'author_domains = ["legit.example"]' in out


@pytest.mark.parametrize(
    ("key", "words"), [("4QNONE", "nothing is recorded"), ("4QPASS", "was delivered")]
)
def test_a_message_that_was_not_stopped_needs_no_rule(
    ask: Ask, record: Callable[..., None], key: str, words: str
) -> None:
    record(evaluation(passed=True, queue_id="4QPASS"))
    code, out, err = ask("allow", key)
    assert (code, out) == (1, "")
    assert words in err


def test_a_deferred_message_was_not_delivered(ask: Ask, record: Callable[..., None]) -> None:
    """The DNS of its author fails: a rule on what it proved ends the waiting."""
    waits = Verdict(Disposition.NONE, Policy.REJECT, deferral=Deferral("dns", "legit.example"))
    record(signed("lists.example", verdict=waits))
    code, out, _ = ask("allow", "4QX")
    assert (code, 'dkim = ["lists.example"]' in out) == (0, True)


def test_a_message_that_this_host_deferred_needs_no_rule(
    ask: Ask, record: Callable[..., None]
) -> None:
    waits = Verdict(Disposition.NONE, Policy.REJECT, deferral=Deferral("overloaded"))
    record(signed("lists.example", verdict=waits))
    code, out, err = ask("allow", "4QX")
    assert (code, out, "because of this host" in err) == (1, "", True)


def test_of_several_with_one_id_it_is_said_which(ask: Ask, record: Callable[..., None]) -> None:
    """A queue id comes again, on another host sooner than on the same."""
    delivered = Verdict(Disposition.PASS, Policy.REJECT)
    record(
        signed("lists.example"),
        signed("other.example", source_ip="192.0.2.99"),
        signed("lists.example", verdict=delivered),
    )
    code, out, _ = ask("allow", "4QX")
    assert code == 0
    assert re.search(r"Of 3 decisions with that id, the newest that was stopped: from", out)
    assert "they have different senders" in out
    assert "a signature by other.example verified" in out
    assert "the right message's queue id" in out


LETTER = MessageFacts(message_id="letter@lists.example", list_id="dev.lists.example")


def phish(number: int = 0, **changes: Any) -> Evaluation:
    """Of a member of the list, who knows the letter's Message-ID."""
    facts = MessageFacts(message_id="letter@lists.example")
    usual = {"facts": facts, "queue_id": f"4QP{number}"}
    message = signed("phish.example", **usual | changes)
    return replace(message, id=f"{(1 << 100) + number:032x}")


@pytest.mark.parametrize("copies", [1, 2, 60])
@pytest.mark.parametrize("source_ip", ["198.51.100.7", "192.0.2.99"])
def test_a_message_id_of_several_senders_adds_no_rule(
    ask: Ask, record: Callable[..., None], config: Path, copies: int, source_ip: str
) -> None:
    """A Message-ID is its sender's choice (RFC 5322 3.6.4). A queue id is the mail server's."""
    record(
        signed("lists.example", facts=LETTER, queue_id="4QL"),
        *(phish(number, source_ip=source_ip) for number in range(copies)),
    )
    code, out, err = ask("allow", "letter@lists.example", "--apply")
    assert (code, "no rule is added" in err, "4QP" in out or copies > 50) == (1, True, True)
    assert not load(config).policy.rules
    assert ask("allow", "4QL", "--apply").code == 0
    assert [rule.dkim for rule in load(config).policy.rules] == [["lists.example"]]


def test_a_queue_id_as_message_id_stands_for_nothing(
    ask: Ask, record: Callable[..., None], config: Path
) -> None:
    record(
        signed("lists.example", facts=LETTER),
        *(phish(number, facts=MessageFacts(message_id="4QX")) for number in range(60)),
    )
    assert ask("allow", "4QX", "--apply").code == 0
    assert [rule.dkim for rule in load(config).policy.rules] == [["lists.example"]]


def test_attempts_of_one_message_have_one_rule(
    ask: Ask, record: Callable[..., None], config: Path
) -> None:
    """Large senders try again from other addresses; what this host deferred proved nothing."""
    waits = Verdict(Disposition.NONE, Policy.REJECT, deferral=Deferral("overloaded"))
    record(
        signed("lists.example", facts=LETTER, queue_id="4QA"),
        signed("lists.example", facts=LETTER, queue_id="4QB", source_ip="192.0.2.99"),
        signed(facts=LETTER, queue_id="4QC", verdict=waits),
    )
    assert ask("allow", "letter@lists.example", "--apply").code == 0
    assert [rule.dkim for rule in load(config).policy.rules] == [["lists.example"]]


def test_mail_without_a_readable_author_is_counted_too(
    ask: Ask, record: Callable[..., None]
) -> None:
    """A list's rule names no author."""
    nobody = DmarcResult(DmarcStatus.PERMERROR, None)
    facts = MessageFacts(message_id="a@b.example", list_id="list.lists.example")
    record(
        signed("lists.example", facts=facts),
        signed(
            "lists.example",
            author=Author(None, "no From field"),
            dmarc=nobody,
            queue_id="OTHER",
            facts=facts,
        ),
    )
    code, out, _ = ask("allow", "4QX")
    assert code == 0
    assert "legit.example, the latest" in out


@pytest.mark.parametrize(
    "copied",
    ["4QX:", " 4QX, ", "queue_id=4QX", "<1@x.example>", "message-id=<1@x.example>,", "1@x.example"],
)
def test_an_id_is_taken_as_it_stands_in_a_log(
    ask: Ask, record: Callable[..., None], copied: str
) -> None:
    """Postfix's `4QX: milter-reject`, cleanup's `message-id=<...>`, our own `queue_id=`."""
    record(signed("lists.example", facts=MessageFacts(message_id="1@x.example")))
    assert ask("allow", copied)[0] == 0
    assert ask("why", copied)[0] == 0


def test_what_it_would_have_let_in_is_shown(ask: Ask, record: Callable[..., None]) -> None:
    others = [replace(signed("lists.example"), id=f"{n:032x}") for n in range(4)]
    record(*others, evaluation("legit.example"), evaluation("other.example"))
    code, out, _ = ask("allow", "4QX")
    assert code == 0
    assert "it would have let in 4 of 6 stopped messages" in out
    assert "legit.example, the latest" in out


def test_apply_writes_the_rule_beside_the_file_where_the_daemon_reads_it(
    ask: Ask, record: Callable[..., None], config: Path
) -> None:
    before = config.read_text()
    record(signed("lists.example"), signed("b.example", queue_id="4QY"))
    assert ask("allow", "4QX", "--for", "2w", "--apply")[0] == 0
    rules = load(config).policy.rules
    assert len(rules) == 1
    assert rules[0].action == "accept"
    assert rules[0].expires == (NOW.date() + timedelta(days=14)).isoformat()
    assert "4QX" in rules[0].comment
    assert config.read_text() == before
    written = config.parent / "conf.d" / "allowed.toml"
    assert written.stat().st_mode & 0o777 == 0o640
    assert (config.parent / "conf.d").stat().st_mode & 0o777 == 0o750
    code, _, err = ask("allow", "4QX", "--apply")
    assert code == 1
    assert "rule 1 of the configuration decides about this sender already" in err


def test_a_running_daemon_reads_the_rule_at_once(config: Path) -> None:
    """SIGHUP goes to `dmarc-milter serve` with this file, and to nobody else's."""
    program = config.parent / "dmarc-milter"
    program.write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGHUP, lambda *_: sys.exit(7))\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    words = [sys.executable, str(program), "serve", "--config"]
    with (
        subprocess.Popen([*words, str(config)], stdout=subprocess.PIPE) as ours,
        subprocess.Popen([*words, "/elsewhere.toml"], stdout=subprocess.PIPE) as other,
    ):
        for one in (ours, other):
            assert one.stdout is not None
            assert one.stdout.readline() == b"ready\n"
        assert "reads it now" in reload_daemon(config)
        assert ours.wait(10) == 7
        assert other.poll() is None
        other.kill()
    assert "No daemon runs here" in reload_daemon(config)


def test_rules_are_tried_on_what_was_decided(
    ask: Ask, record: Callable[..., None], config: Path
) -> None:
    config.write_text(
        config.read_text()
        + '[[policy.rules]]\naction = "accept"\ndkim = ["lists.example"]\ncomment = "the list"\n'
        + '[[policy.rules]]\naction = "reject"\nauthor_domains = ["bad.example"]\n'
        + '[[policy.rules]]\naction = "accept"\nnetworks = ["203.0.113.0/24"]\n'
    )
    delivered = evaluation("bad.example")
    delivered = replace(
        delivered,
        verdict=replace(delivered.verdict, disposition=type(delivered.verdict.disposition).NONE),
    )
    record(signed("lists.example"), delivered, evaluation("bad.example", passed=True))
    code, out, _ = ask("rules", "test", "--json")
    assert code == 0
    assert json.loads(out)["rules"] == [
        {"decides": 1, "lets_in": 1, "stops": 0, "after_others": 0},
        {"decides": 1, "lets_in": 0, "stops": 1, "after_others": 0},
        {"decides": 0, "lets_in": 0, "stops": 0, "after_others": 0},
    ]
    code, out, _ = ask("rules", "test")
    assert code == 0
    assert "the list" in out


def test_rules_of_a_file_are_tried_before_they_are_in_force(
    ask: Ask, record: Callable[..., None], tmp_path: Path
) -> None:
    record(signed("lists.example"))
    file = tmp_path / "new.toml"
    file.write_text('[[policy.rules]]\naction = "accept"\ndkim = ["lists.example"]\n')
    code, out, _ = ask("rules", "test", "--file", str(file), "--json")
    assert (code, json.loads(out)["rules"][0]["lets_in"]) == (0, 1)


ALL = 'networks = ["0.0.0.0/0"]'


@pytest.mark.parametrize(
    ("rules", "effects", "shown"),
    [
        ([('accept', 'dkim = ["nobody.example"]')], [(0, 0, 0, 0)], ""),
        ([("accept", ALL)], [(2, 2, 0, 0)], ""),
        ([("reject", ALL)], [(2, 0, 0, 0)], ""),  # refused they were
        ([("accept", 'dkim = ["lists.example"]'), ("none", ALL)], [(1, 1, 0, 0), (1, 1, 0, 1)], ""),
        ([("accept", ALL), ("reject", ALL)], [(2, 2, 0, 0), (0, 0, 0, 2)], ""),
        ([("accept", f"{ALL}\nexpires = 2020-01-01"), ("reject", ALL)],
         [(0, 0, 0, 0), (2, 0, 0, 0)], "accept (expired)"),
        ([("tag", f'{ALL}\ntag = "x"'), ("accept", ALL)], [(0, 0, 0, 0), (2, 2, 0, 0)], ""),
    ],
)  # fmt: skip
def test_rules_that_hold_for_none_for_all_together_or_no_more(
    ask: Ask,
    record: Callable[..., None],
    config: Path,
    rules: list[tuple[str, str]],
    effects: list[tuple[int, int, int, int]],
    shown: str,
) -> None:
    """A rule that never decides is told from one that never holds; an expired one is called so."""
    record(signed("lists.example"), signed("other.example"))
    blocks = (f'[[policy.rules]]\naction = "{what}"\n{condition}\n' for what, condition in rules)
    config.write_text(config.read_text() + "".join(blocks))
    found = json.loads(ask("rules", "test", "--json")[1])["rules"]
    names = ("decides", "lets_in", "stops", "after_others")
    assert [tuple(one[name] for name in names) for one in found] == effects
    assert shown in ask("rules", "test")[1]
