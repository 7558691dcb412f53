"""Three reasons to wait, three codes, and the rule that ends the waiting of a sender whose DNS is
broken."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.config import parse
from dmarc_milter.core.actions.plan import deferral_reply
from dmarc_milter.core.deferrals import DEFERRALS, deferral_text
from dmarc_milter.core.explain import explain
from dmarc_milter.core.explain.deferral_rule import FOR, rule
from dmarc_milter.core.policy.decide import Deferral
from dmarc_milter.core.stored import Facts, StoredOutcome
from dmarc_milter.core.text import printable
from dmarc_milter.core.toml import quoted

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
REASONS = {"dns": "451 4.4.3", "overloaded": "451 4.3.2", "failure": "451 4.3.0"}


def waiting(**changes: object) -> Facts:
    outcome = StoredOutcome("bank.example", "temperror")
    base: dict[str, object] = {
        "status": "temperror",
        "outcome": outcome,
        "counted": False,
        "deferral": "dns",
    }
    return Facts(id="1", at=NOON.timestamp(), **(base | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("reason", "code"), REASONS.items())
def test_a_reason_has_one_code_in_reply_and_why(reason: str, code: str) -> None:
    """RFC 3463 3.4, 3.5: the network's trouble, this system's, and a failure on this message."""
    reply = deferral_reply(Deferral(reason, "_dmarc.bank.example"))  # type: ignore[arg-type]
    assert f"{reply.code} {reply.enhanced}" == code == DEFERRALS[reason].code
    text = "\n".join(explain(waiting(deferral=reason, failing_name="_dmarc.bank.example")))
    assert f"Decision: deferred ({code})" in text
    clause = deferral_text(reason, "_dmarc.bank.example").partition(": ")[2]
    assert clause in text
    assert clause in reply.text
    assert ("_dmarc.bank.example" in clause) == (reason == "dns")


def test_why_names_the_dns_name_and_gives_the_rule() -> None:
    """What a postmaster reads when a bank calls."""
    text = "\n".join(explain(waiting(failing_name="_spf.bank.example")))
    for words in (
        "the DNS of _spf.bank.example did not answer",
        'author_domains = ["bank.example"]',
        'expires = "2026-11-27"',
        "forgeries",
    ):
        assert words in text


def test_why_says_what_would_have_waited_in_monitor_mode() -> None:
    """With the same reason and rule, and that it was delivered."""
    text = "\n".join(
        explain(waiting(counted=True, would_be="tempfail", failing_name="_spf.bank.example"))
    )
    assert "Decision: would be deferred" in text
    assert "would have been deferred" in text
    assert "it was delivered" in text
    assert "the DNS of _spf.bank.example did not answer" in text
    assert 'action = "accept"' in text


@pytest.mark.parametrize(
    ("author", "reason"),
    [
        ("", "dns"),
        ("bank.example", "overloaded"),
        ("bank.example", "failure"),
        ("bank.example", ""),
    ],
)
def test_no_rule_where_it_would_not_help(author: str, reason: str) -> None:
    """Our own overload is mended here; an author that nobody can read has no name."""
    assert rule(author, reason, "", NOON.timestamp()) == ""


def test_a_suggested_rule_is_one_that_the_configuration_takes() -> None:
    """It holds for a week, for the domain itself."""
    config = parse(rule("bank.example", "dns", "_dmarc.bank.example", NOON.timestamp()))
    (found,) = config.policy.rules
    assert (found.action, found.author_domains, found.include_subdomains) == (
        "accept",
        ["bank.example"],
        False,
    )
    assert date.fromisoformat(found.expires) == NOON.date() + FOR


@given(st.text(max_size=300))
def test_whatever_the_failing_name_is_the_rule_stays_one_rule(name: str) -> None:
    """A sender makes up names by SPF's macros: quotes, line ends and brackets must not add a line
    to the file."""
    text = rule("bank.example", "dns", printable(name, 253), NOON.timestamp())
    (found,) = tomllib.loads(text)["policy"]["rules"]
    assert set(found) == {"action", "author_domains", "include_subdomains", "expires", "comment"}
    assert len(found["comment"]) <= 200
    assert len(text.split("\n")) == 6


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=50))
def test_a_quoted_string_is_read_back(text: str) -> None:
    """TOML 1.0, basic strings."""
    written = quoted(text)
    assert written.isascii()
    assert written.isprintable()
    assert tomllib.loads(f"x = {written}") == {"x": text}
