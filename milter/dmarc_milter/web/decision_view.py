"""One decision as the page draws it: a banner, the chain from From to what was done, a rule."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from dmarc_milter.core.explain.allowing import comment, proposal
from dmarc_milter.core.explain.deferral_rule import CAUTION
from dmarc_milter.core.explain.deferral_rule import rule as deferral_rule
from dmarc_milter.core.explain.done import became
from dmarc_milter.core.stored import ArcFact, DkimFact, Facts, SpfFact

RULE_DAYS = timedelta(days=30)
"""For how long a suggested rule holds, as `dmarc-milter allow` has it."""
SIGNATURES = 10
"""Boxes for signatures; more are counted."""
UNFOLDED = 4
"""Of these, so many are seen at once."""


class Box(NamedTuple):
    """One box of the chain. `kind` colours it: pass, fail, warn, wait or none. `word` is its badge,
    "" for none; `domain` stands by itself, so that it can be long; `aligned` is None where that is
    no question."""

    kind: str
    title: str
    word: str
    domain: str
    text: str
    aligned: bool | None = None


class Suggestion(NamedTuple):
    """A rule, TOML; `evidence` and `caution` are sentences, or ""."""

    text: str
    evidence: str
    caution: str


class View(NamedTuple):
    """`kind` colours the banner as in Box; `steps` are the chain's columns, of which the second has
    `folded` signatures below it and leaves `more_signatures` out."""

    done: str
    kind: str
    headline: str
    steps: tuple[tuple[str, tuple[Box, ...]], ...]
    folded: tuple[Box, ...]
    more_signatures: int
    walk: tuple[str, ...]


KINDS = {"refused": "fail", "quarantined": "warn", "deferred": "wait"}


def view(facts: Facts) -> View:
    word = became(facts)
    signatures = [_dkim(facts, fact) for fact in _telling_first(facts.dkim)[:SIGNATURES]]
    checks = (
        *_spf(facts, facts.spf),
        *signatures[:UNFOLDED],
        *(() if facts.dkim else (Box("none", "DKIM", "none", "", "The message is not signed."),)),
        *_arc(facts.arc),
    )
    steps = (
        ("Who it claims to be from", (_author(facts),)),
        ("What was proven", checks),
        ("What the domain asks for", (_policy(facts),)),
        ("What was done", (_verdict(facts, word),)),
    )
    outcomes = (facts.outcome,) if facts.outcome else facts.candidates
    return View(
        word,
        _kind(facts, word),
        _headline(facts, word),
        steps,
        tuple(signatures[UNFOLDED:]),
        max(0, len(facts.dkim) - SIGNATURES),
        tuple(step for outcome in outcomes for step in outcome.trace),
    )


def _kind(facts: Facts, word: str) -> str:
    if word == "delivered":
        return "pass" if facts.status == "pass" else "none"
    return KINDS[word.removeprefix("would be ")]


def _headline(facts: Facts, word: str) -> str:
    """The banner's sentence."""
    author = facts.author_domain or "an author that cannot be read"
    what = {
        "pass": f"It is proven that this message is from {author}",
        "fail": f"Nothing proves that this message is from {author}",
        "none": f"{author} has no policy that says how its mail is proven",
        "temperror": "Whether it is genuine could not be found out at that time",
        "permerror": "Whether it is genuine cannot be found out",
    }.get(facts.status, "It was not judged")
    if facts.malformed_from:
        what = "Its From field cannot be trusted"
    delivered = "; it was delivered" if word == "delivered" else ""
    would = "; it was delivered all the same" if word.startswith("would be ") else ""
    return f"{what}{delivered}{would}."


def _author(facts: Facts) -> Box:
    if facts.malformed_from:
        seen = ", ".join(one.author_domain for one in facts.candidates) or "no domain"
        text = f"Cannot be trusted ({facts.malformed_from}). A reader could see: {seen}."
        return Box("fail", "From", "malformed", "", text)
    if not facts.author_domain:
        return Box("none", "From", "", "", "No author domain could be read.")
    return Box("none", "From", "", facts.author_domain, "What the reader sees as the author.")


def _aligns(aligned: bool, author: str) -> str:
    return f"Aligned with {author}." if aligned else f"Not aligned with {author}."


def _spf(facts: Facts, spf: SpfFact | None) -> Iterator[Box]:
    if spf is None:
        return
    whose = "HELO" if spf.scope == "helo" else "MAIL FROM"
    client = facts.source_ip or "the client"
    domain = spf.domain or spf.literal
    if spf.result != "pass":
        because = f": {spf.reason or spf.mechanism}" if spf.reason or spf.mechanism else ""
        text = f"The domain in {whose} does not vouch for {client}{because}. Proves nothing."
        yield Box(_bad(spf.result), "SPF", spf.result, domain, text)
        return
    aligned = facts.outcome is not None and facts.outcome.spf_aligned
    text = f"The domain in {whose} vouches for {client}. {_aligns(aligned, facts.author_domain)}"
    yield Box("pass" if aligned else "none", "SPF", spf.result, domain, text, aligned)


def _telling_first(signatures: Collection[DkimFact]) -> list[DkimFact]:
    """Aligned ones first, then those that verify: a sender may add any number."""
    return sorted(signatures, key=lambda one: (one.result != "pass", not one.aligned))


def _dkim(facts: Facts, fact: DkimFact) -> Box:
    selector = f" Selector {fact.selector}." if fact.selector else ""
    if fact.result != "pass":
        because = f": {fact.reason}" if fact.reason else ""
        text = f"The signature does not verify{because}. Proves nothing.{selector}"
        return Box(_bad(fact.result), "DKIM", fact.result, fact.domain, text)
    aligned = bool(fact.aligned)
    text = f"The signature verifies. {_aligns(aligned, facts.author_domain)}{selector}"
    if fact.unsigned:
        text += f" Not covered by it: {', '.join(fact.unsigned)}."
    return Box("pass" if aligned else "none", "DKIM", fact.result, fact.domain, text, aligned)


def _arc(arc: ArcFact | None) -> Iterator[Box]:
    if arc is None or arc.status == "none":
        yield Box("none", "ARC", "none", "", "No forwarder sealed what it found.")
        return
    sealer = arc.sealers[-1] if arc.sealers else ""
    because = f" ({arc.reason})" if arc.reason else ""
    text = (
        f"Chain of {len(arc.sealers)}; the newest seal is this domain's. It counts where that"
        " sealer is trusted."
        if arc.status == "pass"
        else f"The chain is broken{because}. Proves nothing."
    )
    yield Box("none" if arc.status == "pass" else _bad(arc.status), "ARC", arc.status, sealer, text)


def _bad(result: str) -> str:
    return {"none": "none", "neutral": "none", "temperror": "warn", "permerror": "warn"}.get(
        result, "fail"
    )


def _policy(facts: Facts) -> Box:
    outcome = facts.outcome
    if outcome is None:
        reason = f" {facts.reason}." if facts.reason else ""
        return Box("none", "DMARC", facts.status, "", f"Not asked for one author alone.{reason}")
    kind = {"pass": "pass", "fail": "fail", "none": "none"}.get(facts.status, "warn")
    published = outcome.published
    if published is None:
        because = f": {outcome.reason}" if outcome.reason else ""
        return Box(kind, "DMARC", facts.status, "", f"No policy applies{because}.")
    tag = f"{outcome.policy_tag}=" if outcome.policy_tag else ""
    text = f"Asks for {tag}{outcome.policy} where nothing aligned passes."
    if published.invalid_policy or published.errors:
        text += f" The record has errors: {', '.join(published.errors[:3])}."
    return Box(kind, "DMARC", facts.status, published.policy_domain, text)


def _verdict(facts: Facts, word: str) -> Box:
    text = f"Because of {facts.decided_by}." if facts.decided_by else "No rule asked for more."
    for reason in facts.reasons[:3]:
        text += f" The policy was overridden: {reason.type}"
        text += f" ({reason.comment})." if reason.comment else "."
    return Box(_kind(facts, word), "Done", word, "", text)


def suggestion(facts: Facts, trusted_sealers: Collection[str], now: float) -> Suggestion | None:
    """A rule that would let this sender in, where the message was stopped and something about it is
    proven. `now` in seconds since 1970."""
    if became(facts) == "delivered":
        return None
    waits = deferral_rule(facts.author_domain, facts.deferral, facts.failing_name, now)
    if waits:
        return Suggestion(waits, "", CAUTION)
    today = datetime.fromtimestamp(now, UTC).date()
    found = proposal(facts, trusted_sealers, comment(facts, today), today + RULE_DAYS)
    if found is None:
        return None
    evidence = f"It rests on this: {found.evidence}."
    return Suggestion(found.text, evidence, f"Mind: {found.caution}." if found.caution else "")
