"""What a domain publishes, as the newest decision about it saw it: the dashboard asks no DNS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dmarc_milter.core.check_finding import LEVELS, Finding
from dmarc_milter.core.dmarc.record import Record, parse
from dmarc_milter.core.lint import record as lint
from dmarc_milter.core.stored import Facts, StoredOutcome, StoredPolicy


class PolicyView(NamedTuple):
    """`word` and `kind` are a badge; `text` is the record or "" where there is none; `walk` has a
    line for each name that was asked."""

    word: str
    kind: str
    sentence: str
    text: str
    tags: tuple[lint.TagMeaning, ...]
    findings: tuple[Finding, ...]
    walk: tuple[str, ...]


def badge(facts: Facts | None) -> tuple[str, str]:
    """The policy of an author domain in a word, and how it is coloured."""
    outcome = _outcome(facts)
    if outcome is None:
        return "not known", "none"
    published = outcome.published
    if published is not None and published.invalid_policy:
        return "invalid", "invalid"
    if published is not None:
        return f"{outcome.policy_tag or 'p'}={outcome.policy}", "policy"
    if outcome.status == "temperror":
        return "not known", "temperror"
    return ("invalid", "invalid") if _records(outcome) else ("none", "none")


def policy(facts: Facts | None) -> PolicyView:
    """All that the stored facts tell; None where no message is kept any more."""
    word, kind = badge(facts)
    outcome = _outcome(facts)
    if outcome is None:
        return PolicyView(word, kind, "It is not known what this domain publishes.", "", (), (), ())
    published = outcome.published
    if published is not None:
        record = parse(published.text.encode("utf-8", "replace"))
        text, findings = published.text, _of_record(record, published)
        sentence = _found(outcome, published)
    else:
        broken = _records(outcome)
        record, text = None, "\n".join(broken)
        findings = tuple(finding for line in broken for finding in _of_line(line))
        sentence = _not_found(outcome, bool(broken))
    tags = lint.tags(record) if record is not None else ()
    return PolicyView(word, kind, sentence, text, tags, findings, outcome.trace)


def _outcome(facts: Facts | None) -> StoredOutcome | None:
    """Of the author, or of the first that a malformed From shows."""
    if facts is None:
        return None
    return facts.outcome or next(iter(facts.candidates), None)


def _found(outcome: StoredOutcome, published: StoredPolicy) -> str:
    how = "the tree walk" if published.discovery_method == "treewalk" else "the public suffix list"
    asks = f"{outcome.policy_tag}={outcome.policy}" if outcome.policy_tag else outcome.policy
    invalid = " The record is invalid and is taken as that." if published.invalid_policy else ""
    return f"Found at {published.policy_domain} by {how}; it asks for {asks}.{invalid}"


def _not_found(outcome: StoredOutcome, broken: bool) -> str:
    because = f": {outcome.reason}" if outcome.reason else ""
    if broken:
        return f"What is published is invalid, so no policy applies{because}."
    if outcome.status == "temperror":
        return f"The DNS did not say what is published{because}."
    return f"No policy was found{because}."


def _records(outcome: StoredOutcome) -> tuple[str, ...]:
    """Steps of the walk that met records, though no policy came of them."""
    return tuple(
        step for step in outcome.trace if "v=DMARC1" in step or step.endswith("all discarded")
    )


def _of_record(record: Record | None, published: StoredPolicy) -> tuple[Finding, ...]:
    if record is None:
        return tuple(Finding("warning", "record", error) for error in published.errors)
    return _worst_first(lint.findings(record))


def _of_line(line: str) -> tuple[Finding, ...]:
    """Of a step of the walk: a record that was of no use, or several."""
    where, _, text = line.partition(": ")
    record = parse(text.encode("utf-8", "replace"))
    if record is None:
        return (Finding("error", where, text),)
    return _worst_first(lint.findings(record))


def _worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda one: LEVELS.index(one.level), reverse=True))
