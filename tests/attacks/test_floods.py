"""Forged fields by the thousand: what the MTA would have to take out, and what telling them apart
costs us (RFC 8601 5)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from fakes.attack import AID, LEGIT_SIGNER, Field, Heard, Mail, Stage, good, spoof
from fakes.daemon import wait_for
from fakes.milter_client import MilterClient

LIMIT = 200
FORGED = (b"Authentication-Results", b" " + AID + b"; dmarc=pass header.from=legit.example")
FOREIGN = (
    b"Authentication-Results",
    b" other.example; dmarc=pass (p=reject dis=none) header.from=legit.example",
)
NESTED = (b"Authentication-Results", b" " + b"(" * 60 + b")" * 60 + b" other.example. ; x")
MARK = (b"X-DMARC-Quarantine", b" no")
HEAVY = (b"Authentication-Results", b" " + b"()" * 4000 + b" other.example. ; x")
OTHER = (b"X-A", b" b")
SPELLINGS = (
    FORGED,
    (b"authentication-results", FORGED[1]),
    (b"AUTHENTICATION-RESULTS", b"\r\n\t" + AID.upper() + b"\r\n\t;none"),
    (b"Authentication-results ", b" (c) " + AID + b" 1; dmarc=pass"),
    (b"Authentication-Results", b' "' + AID + b'"; dmarc=pass'),
    (b"Authentication-Results", b" " + b"(" * 100),
    MARK,
    (b"x-dmarc-quarantine", b"\r\n yes"),
)
Tables = Mapping[str, Mapping[str, Any]]
NO_TABLES: Tables = {}
EXEMPT: Tables = {"authentication": {"trusted_networks": ["192.0.2.0/24", "203.0.113.0/24"]}}
KEEPS: Tables = {"authentication": {"keep_results_from": ["203.0.113.9"]}}
SECONDS = 3.0


def many(*fields: Field, count: int) -> Mail:
    """A message that passes, under so many such fields."""
    return good().top(*[fields[number % len(fields)] for number in range(count)])


def sent(stage: Stage, letter: Mail, mode: str = "enforce", tables: Tables = NO_TABLES) -> Heard:
    """The answer, which comes soon; the next message passes as ever."""
    stage.script({})
    running = stage.running(mode, tables)
    begin = time.monotonic()
    heard = running.send(letter)
    assert time.monotonic() - begin < SECONDS
    assert running.daemon.workers() == [running.pid]
    if not tables:
        assert running.send(good()).dmarc.result == "pass"
    assert not [line for line in running.new_lines() if b"event=failure" in line]
    return heard


def left(heard: Heard) -> list[Field]:
    """Forged fields and marks that would be delivered."""
    names = (b"authentication-results", b"x-dmarc-quarantine")
    return [
        each
        for each in heard.answer.headers[1:]
        if each[0].strip().lower() in names and AID in each[1].lower()
    ]


def assert_refused(heard: Heard) -> None:
    assert heard.answer.text.startswith("550 5.6.0 "), heard.show()
    assert "removable_fields" in heard.answer.text
    assert str(LIMIT) in heard.answer.text
    assert heard.answer.modifications == ()


@pytest.mark.parametrize("mode", ["enforce", "monitor", "reject"])
def test_forged_fields_up_to_the_limit_are_removed_and_one_more_is_refused(
    stage: Stage, mode: str
) -> None:
    """ARF-14: 550 5.6.0 names the limit, before any edit, in monitor mode too."""
    heard = sent(stage, many(FORGED, count=LIMIT), mode)
    assert heard.dmarc.result == "pass"
    assert left(heard) == []
    assert_refused(sent(stage, many(FORGED, count=LIMIT + 1), mode))


@pytest.mark.parametrize("macros", [{}, {"{auth_authen}": "alice"}], ids=["network", "login"])
def test_trusted_clients_are_refused_too(stage: Stage, macros: dict[str, str]) -> None:
    """ARF-14: it protects the MTA, whoever sends."""
    letter = many(FORGED, count=LIMIT)
    tables = NO_TABLES if macros else EXEMPT
    exempt = Mail(letter.fields, mail_macros=macros)
    heard = sent(stage, exempt, tables=tables)
    assert heard.answer.code == 250
    assert heard.ours is None
    assert_refused(sent(stage, Mail(exempt.top(FORGED).fields, mail_macros=macros), tables=tables))


def test_fields_that_stay_are_not_counted(stage: Stage) -> None:
    """ARF-14: keep_results_from hands back what we wrote; fields of others are nobody's
    business."""
    assert sent(stage, many(FORGED, count=LIMIT + 50), tables=KEEPS).answer.code == 250
    heard = sent(stage, many(FOREIGN, count=LIMIT + 300))
    assert heard.dmarc.result == "pass"
    assert len(heard.answer.values("Authentication-Results")) == LIMIT + 301


def test_the_limit_is_the_administrators(stage: Stage) -> None:
    """ARF-14: [limits] removable_fields."""
    tables: Tables = {"limits": {"removable_fields": 3}}
    assert sent(stage, many(FORGED, count=3), tables=tables).dmarc.result == "pass"
    assert sent(stage, many(FORGED, count=4), tables=tables).answer.text.startswith(
        "550 5.6.0 More than 3 "
    )


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda each: repr(each[0] + each[1])[:50])
def test_every_spelling_counts(stage: Stage, spelling: Field) -> None:
    """ARF-15: case and space of the name, folds, comments, quotations, what has no end; marks."""
    heard = sent(stage, many(spelling, count=LIMIT), "monitor")
    assert heard.dmarc.result == "pass"
    assert left(heard) == []
    assert_refused(sent(stage, many(spelling, count=LIMIT + 1), "monitor"))


def test_results_and_marks_count_together(stage: Stage) -> None:
    """ARF-15: the MTA looks for either from the top."""
    assert sent(stage, many(FORGED, MARK, count=LIMIT)).dmarc.result == "pass"
    assert_refused(sent(stage, many(FORGED, MARK, FOREIGN, count=LIMIT * 3 // 2 + 2)))


@pytest.mark.parametrize("count", [999, 1_990, 10_000, 20_000, 120_000])
@pytest.mark.parametrize(
    "flood", [FORGED, NESTED, MARK], ids=["forged", "nested comments", "marks"]
)
def test_thousands_of_them_are_refused_quickly(stage: Stage, flood: Field, count: int) -> None:
    """ARF-16: also beyond the header limits, where only their places are kept."""
    if count == 120_000 and flood is not FORGED:
        return
    assert seconds_to_refuse(stage, many(flood, count=count)) < 1.0


def seconds_to_refuse(stage: Stage, letter: Mail) -> float:
    """Seconds from the end of the message to the refusal."""
    stage.script({})
    running = stage.running()
    with MilterClient(running.daemon.address, timeout=60) as mta:
        mta.negotiate()
        mta.connect(letter.hostname, letter.ip)
        mta.helo(letter.helo)
        mta.mail(letter.mail_from)
        mta.rcpt("<v@example.com>")
        for name, value in letter.fields:
            mta.header(name, value)
        begin = time.monotonic()
        mta.eoh(macros={"i": "4FLOOD"})
        answer = mta.eom(macros={"i": "4FLOOD"})
        seconds = time.monotonic() - begin
    assert answer.text.startswith("550 5.6.0 "), answer.text
    assert answer.modifications == ()
    running.new_lines()
    return seconds


def test_what_is_not_told_apart_in_time_counts_as_ours(stage: Stage) -> None:
    """ARF-17: fields that are dear to read use up the budget; a forged one below them goes all the
    same, and so do they."""
    heard = sent(stage, many(HEAVY, count=12))
    kept = heard.answer.values("Authentication-Results")[1:]
    assert 0 < len(kept) < 12
    heard = sent(stage, Mail((*[HEAVY] * 12, *good().fields, FORGED)))
    assert left(heard) == []


def test_the_usual_fields_of_others_cost_nothing(stage: Stage) -> None:
    """ARF-17: however many and long they are, they stay, and a forged one among them goes."""
    long = (FOREIGN[0], FOREIGN[1] + b"; dkim=pass (2048-bit key) header.d=legit.example" * 3)
    heard = sent(stage, many(long, count=500).top(FORGED))
    assert left(heard) == []
    assert len(heard.answer.values("Authentication-Results")) == 501


@pytest.mark.parametrize("place", ["above", "below"])
def test_forged_fields_among_a_great_many_others(stage: Stage, place: str) -> None:
    """HDR-21: for each removal the MTA passes every field above it. A few among many are removed,
    150 among 20,000 are not."""
    junk = [OTHER] * 20_000

    def letter(count: int) -> Mail:
        fields = good().signed(LEGIT_SIGNER).fields
        flood = [FORGED] * count
        return Mail((*flood, *fields, *junk) if place == "above" else (*fields, *junk, *flood))

    heard = sent(stage, letter(3), "monitor")
    assert heard.answer.code == 250
    assert left(heard) == []
    assert_refused(sent(stage, letter(150), "monitor"))


def test_a_refused_flood_is_not_a_judged_message(stage: Stage) -> None:
    """ARF-14: nothing is recorded for the domain's report; the log has a line of its own."""
    stage.script({})
    running = stage.running()
    running.new_lines()
    running.send(many(FORGED, count=LIMIT + 1))
    lines: list[bytes] = []
    assert wait_for(lambda: lines.extend(running.new_lines()) or lines, 5.0)
    assert [b"event=over_limit" in line for line in lines] == [True]
    assert b"limit=removable_fields" in lines[0]


def test_a_spoof_under_a_flood_is_refused(stage: Stage) -> None:
    """ARF-18: the flood does not change whose mail it is."""
    heard = sent(stage, spoof().top(*[FORGED] * LIMIT))
    assert heard.answer.text.startswith("550 5.7.1 ")
    assert_refused(sent(stage, spoof().top(*[FORGED] * (LIMIT + 1))))
