"""No reader of From fields shows somebody whom we let in: other people's readers against the whole
core, by a grammar of forgeries.

Seconds here, twenty in continuous integration, a million values by `make soak`. What it found once
is tests/vectors/from-found.txt.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import pytest

from dmarc_milter.core.mail import author
from fakes.soak import LONG, chance
from fuzz import clients
from fuzz.clients import Client, Clients
from fuzz.differential import Differential, for_seconds, judged, let_in
from fuzz.grammar import Grammar
from fuzz.mends import MENDS, Mend
from fuzz.test_fuzz import SECONDS

VALUES = 1_000_000
"""Distinct ones, in the long form."""
USUALLY, USUAL_SEED = 20_000, 20261001
"""Of the short form, so that it says of a change what it would have said before."""
WITHIN = 60.0
"""Seconds in which a mend that is switched off is missed."""

pytestmark = [
    pytest.mark.processor,
    pytest.mark.slow,
    pytest.mark.timeout(4 * 3600 if LONG else SECONDS + 240),
]


@pytest.fixture(scope="module")
def readers() -> Iterator[Clients]:
    if not clients.installed():
        pytest.fail(
            "the readers to compare with are not here: run `make test`, or tools/setup_readers.sh"
        )
    with Clients() as all_of_them:
        yield all_of_them


@pytest.mark.soak
def test_nobody_is_shown_whom_we_let_in(readers: Clients) -> None:
    """Of a domain that asks for p=reject no reader shows an address unless we refuse the message or
    it is that domain's own."""
    seed = (
        chance("fuzz from").randrange(1 << 32)
        if LONG or "DMARC_MILTER_SEED" in os.environ
        else USUAL_SEED
    )
    run = Differential(readers, seed)
    time_is_left = for_seconds(SECONDS)
    found = [
        str(each)
        for each in run.findings(
            lambda: run.distinct < (VALUES if LONG else USUALLY) and (LONG or time_is_left())
        )
    ]
    print(
        f"{run.distinct} distinct values, of {run.elsewhere} somebody else is shown, {len(found)}"
        " found"
    )
    assert not found, "\n".join(found[:20])
    assert run.elsewhere > run.distinct / 4, "the grammar has lost its victims"
    lost = {
        each.name: each.lost for each in readers.all if len(each.lost) > 1 + run.distinct // 1000
    }
    assert not lost, "a reader that is always away finds nothing"


@pytest.mark.parametrize("mend", MENDS, ids=lambda mend: mend.name)
def test_a_mend_that_is_switched_off_is_missed(mend: Mend, readers: Clients) -> None:
    """The fuzz's own proof: it finds again the forgery for which the mend was made, which with the
    mend is refused."""
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        mend.switch_off(patch)
        for found in Differential(readers, seed=1).findings(for_seconds(WITHIN)):
            if not mend.explains(found):
                continue
            patch.undo()
            if not let_in(author.author([found.value]), found.victim):
                print(f"{mend.name}: after {time.monotonic() - started:.1f} s {found}")
                return
            mend.switch_off(patch)
    pytest.fail(f"{mend.name}: nothing in {WITHIN:.0f} s")


@pytest.mark.parametrize("mend", MENDS, ids=lambda mend: mend.name)
def test_the_example_of_a_mend_is_refused_with_it_alone(
    mend: Mend, readers: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader shows the victim; with the mend nobody is let in."""
    (shown,) = readers.read([mend.example])
    assert judged(mend.example, shown) is None
    mend.switch_off(monkeypatch)
    assert judged(mend.example, shown)


def test_a_run_is_repeatable() -> None:
    """The same seed gives the same values."""
    one, other, third = Grammar(7), Grammar(7), Grammar(8)
    values = [one.value() for _ in range(500)]
    assert values == [other.value() for _ in range(500)]
    assert values != [third.value() for _ in range(500)]
    assert len(set(values)) > 450


STUB = """
import base64, json, sys, time
for line in sys.stdin:
    values = [base64.b64decode(each) for each in json.loads(line)]
    if b"crash" in values: sys.exit(1)
    if b"hang" in values: time.sleep(60)
    shown = json.dumps([{"stub": [each.decode()]} for each in values])
    print("nonsense" if b"nonsense" in values else shown, flush=True)
"""


@pytest.mark.parametrize("bad", [b"crash", b"hang", b"nonsense"])
def test_a_reader_that_fails_is_started_again(bad: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """One value costs its own answer and no other's."""
    monkeypatch.setattr(clients, "PATIENCE", 2.0)
    client = Client("stub", [sys.executable, "-c", STUB], {})
    try:
        values = [b"a", bad, b"b"]
        client.ask(values)
        assert client.answer(values) == [{"stub": ["a"]}, {}, {"stub": ["b"]}]
        assert client.lost == [bad]
    finally:
        client.close()
