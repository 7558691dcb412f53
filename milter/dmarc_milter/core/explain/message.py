"""A decision as a person would explain it: what the message said, what was found, which rule
decided, what would change it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from dmarc_milter.core.deferrals import DEFERRALS, deferral_text
from dmarc_milter.core.explain.deferral_rule import CAUTION, rule
from dmarc_milter.core.explain.done import DONE, became, done, is_stopped
from dmarc_milter.core.explain.senders import identities
from dmarc_milter.core.stored import DkimFact, Facts, StoredOutcome, StoredPolicy

PAD = "  "


def explain(facts: Facts) -> list[str]:
    """Lines of printable ASCII, at most some dozens; nothing in them is the sender's unvalidated
    text."""
    return [
        *_envelope(facts),
        *_spf(facts),
        *_dkim(facts),
        *_arc(facts),
        *_dmarc(facts),
        *_stale(facts),
        *_verdict(facts),
        *_advice(facts),
    ]


def sentence(facts: Facts) -> str:
    """The decision in one sentence, for lists and the log."""
    author = facts.author_domain or "no readable author"
    word = _done(facts)
    return (
        f"Mail from {author} by {facts.source_ip or 'an unknown client'}: dmarc={facts.status},"
        f" {word}" + (f" ({facts.decided_by})" if facts.decided_by else "")
    )


def _sender(facts: Facts) -> str:
    if facts.envelope_from is None:
        return "an address without a usable domain"
    return facts.envelope_from or "the null sender <>"


def _envelope(facts: Facts) -> Iterator[str]:
    at = datetime.fromtimestamp(facts.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    yield f"Message {facts.queue_id or facts.id}, {at}" + (
        f", Message-ID <{facts.message_id}>" if facts.message_id else ""
    )
    yield (
        f"{PAD}came from {facts.source_ip or 'an unknown address'}, HELO {facts.helo or '(none)'},"
        f" MAIL FROM {_sender(facts)}"
    )
    if not facts.source_known:
        yield f"{PAD}through one of our relays, whose Received field did not tell the real client"
    if facts.malformed_from:
        seen = ", ".join(candidate.author_domain for candidate in facts.candidates) or "none"
        yield (
            f"From: cannot be trusted ({facts.malformed_from}); domains that a reader could see:"
            f" {seen}"
        )
    else:
        yield f"From: names {facts.author_domain}"


def _spf(facts: Facts) -> Iterator[str]:
    spf = facts.spf
    if spf is None:
        return
    identity = "HELO" if spf.scope == "helo" else "MAIL FROM"
    detail = f", by {spf.mechanism}" if spf.mechanism else f": {spf.reason}" if spf.reason else ""
    yield f"SPF: {spf.result} for {spf.domain or 'no domain'} ({identity}){detail}"


def _dkim(facts: Facts) -> Iterator[str]:
    if not facts.dkim:
        yield "DKIM: not signed"
    for signature in facts.dkim:
        yield f"DKIM: {signature.result} for {_signer(signature)}" + (
            f": {signature.reason}" if signature.reason else ""
        )
        if signature.result == "pass" and signature.unsigned:
            yield f"{PAD}not covered by it: {', '.join(signature.unsigned)}"


def _signer(fact: DkimFact) -> str:
    where = fact.domain or "an unreadable domain"
    strength = f", {fact.key_bits} bits" if fact.key_bits else ""
    return where + (f" (selector {fact.selector}{strength})" if fact.selector else "")


def _arc(facts: Facts) -> Iterator[str]:
    if facts.arc is not None and facts.arc.status != "none":
        by = f", sealed by {', '.join(facts.arc.sealers)}" if facts.arc.sealers else ""
        yield f"ARC: {facts.arc.status}{by}" + (f": {facts.arc.reason}" if facts.arc.reason else "")


def _dmarc(facts: Facts) -> Iterator[str]:
    for outcome in (facts.outcome,) if facts.outcome else facts.candidates:
        yield f"DMARC for {outcome.author_domain}: {outcome.status}" + (
            f": {outcome.reason}" if outcome.reason else ""
        )
        yield from (PAD + step for step in outcome.trace)
        if outcome.published is not None:
            yield PAD + _policy(outcome, outcome.published)
        if outcome.psl_organizational_domain:
            yield (
                f"{PAD}the public suffix list would give the organizational domain"
                f" {outcome.psl_organizational_domain}, the tree walk"
                f" {outcome.organizational_domain}"
            )
    if facts.outcome is None:
        yield f"DMARC: {facts.status}" + (f": {facts.reason}" if facts.reason else "")


def _stale(facts: Facts) -> Iterator[str]:
    for answer in facts.stale:
        yield f"DNS: {answer.name} did not answer; used an answer of {ago(answer.seconds)} ago"


def ago(seconds: float) -> str:
    """A time span in the one unit that suits it."""
    for unit, length in (("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= length or length == 1:
            number = int(seconds // length)
            return f"{number} {unit}" + ("" if number == 1 else "s")
    return ""


def _policy(outcome: StoredOutcome, published: StoredPolicy) -> str:
    tag = f"{outcome.policy_tag}=" if outcome.policy_tag else ""
    return f"policy of {published.policy_domain} asks for {tag}{outcome.policy}: {published.text}"


def _done(facts: Facts) -> str:
    """The word, with the reply code where there was one."""
    word = became(facts)
    excuse = DEFERRALS.get(facts.deferral)
    code = {"refused": "550", "deferred": excuse.code if excuse else "451"}.get(word)
    return f"{word} ({code})" if code else word


def _verdict(facts: Facts) -> Iterator[str]:
    yield f"Decision: {_done(facts)}" + (
        f", because {facts.decided_by}" if facts.decided_by else ""
    )
    if facts.deferral:
        yield f"{PAD}{deferral_text(facts.deferral, facts.failing_name)}"
    for reason in facts.reasons:
        yield f"{PAD}the published policy was overridden: {reason.type}" + (
            f" ({reason.comment})" if reason.comment else ""
        )
    yield from _otherwise(facts)


def _otherwise(facts: Facts) -> Iterator[str]:
    """What would have been done."""
    if facts.would_be == "tempfail":
        yield (
            f"{PAD}it would have been deferred (451), but nothing is in monitor mode or from a"
            f" trusted relay: it was {done(facts.disposition)}"
        )
    elif facts.would_be and facts.would_be != facts.disposition:
        why = (
            "from a trusted relay: otherwise"
            if facts.disposition == "quarantine"
            else "monitor mode: it was delivered; with enforcement"
        )
        yield f"{PAD}{why} it would have been {DONE.get(facts.would_be, facts.would_be)}"


def _advice(facts: Facts) -> Iterator[str]:
    """What would change the decision; only where mail was not simply delivered."""
    if not is_stopped(facts):
        return
    yield "What would change it:"
    yield from (PAD + line for line in changes(facts))
    yield from (PAD + line for line in _by_rule(facts))


def changes(facts: Facts) -> Iterator[str]:
    """What the sender could do so that his next message is delivered."""
    if facts.status == "temperror" and facts.counted and facts.disposition == "reject":
        yield "a message that takes fewer DNS queries, or a higher [limits] dns_queries"
    elif not facts.counted or facts.status == "temperror":
        yield _ends_waiting(facts)
    elif facts.malformed_from:
        yield "one From field with one address in standard form"
    else:
        yield from (*_by_spf(facts), *_by_dkim(facts))


def _ends_waiting(facts: Facts) -> str:
    """What a message that was not judged waits for."""
    if facts.deferral in ("overloaded", "failure"):
        return "nothing that the sender does: his server will try again" + (
            "; the log of this host says what went wrong" if facts.deferral == "failure" else ""
        )
    return (
        f"the DNS{f' of {facts.failing_name}' if facts.failing_name else ''} answering: the"
        " sender's server will try again"
    )


def _by_spf(facts: Facts) -> Iterator[str]:
    """SPF helps only where the name that it checks aligns."""
    spf, author = facts.spf, facts.author_domain
    client = facts.source_ip or "the client"
    if spf is None:
        return
    if not spf.domain or not _would_align(facts, spf.domain, "aspf"):
        passed = (
            f"SPF passed for {spf.domain}, which does not align with {author}: "
            if spf.result == "pass"
            else ""
        )
        yield f"{passed}an envelope sender in {author}" + (
            "" if passed else f", and an SPF record there that lists {client}"
        )
    elif spf.result == "none":
        yield f"an SPF record at {spf.domain} that lists {client}"
    elif spf.result in ("permerror", "policy"):
        yield (
            f"a sound SPF record at {spf.domain} that lists {client} (now:"
            f" {spf.reason or spf.result})"
        )
    elif spf.result != "pass":
        yield f"{spf.domain}'s SPF record listing {client}" + (
            f" (now it matches {spf.mechanism})" if spf.mechanism else ""
        )


def _by_dkim(facts: Facts) -> Iterator[str]:
    author = facts.author_domain
    passing = [
        signature.domain
        for signature in facts.dkim
        if signature.result == "pass" and not signature.aligned
    ]
    broken = [
        signature
        for signature in facts.dkim
        if signature.result != "pass"
        and signature.domain
        and _would_align(facts, signature.domain, "adkim")
    ]
    if passing:
        yield (
            f"DKIM passed for {', '.join(dict.fromkeys(passing))}, which does not align: a"
            f" signature with d={author} would"
        )
    for signature in broken[:1]:
        yield (
            f"the signature of {signature.domain} verifying (now:"
            f" {signature.result}{f', {signature.reason}' if signature.reason else ''})"
        )
    if not passing and not broken:
        yield f"a DKIM signature with d={author} that survives transport"


def _would_align(facts: Facts, name: str, mode: Literal["adkim", "aspf"]) -> bool:
    """Whether a pass for `name` would have counted, as far as the stored facts tell."""
    outcome = facts.outcome
    if outcome is None:
        return False
    published = outcome.published
    if name == outcome.author_domain or (published is not None and getattr(published, mode) == "s"):
        return name == outcome.author_domain
    organization = outcome.organizational_domain
    return bool(organization) and (name == organization or name.endswith("." + organization))


def _by_rule(facts: Facts) -> Iterator[str]:
    """The administrator's own way, resting on what this message proved where it proved
    something."""
    wanted = rule(facts.author_domain, facts.deferral, facts.failing_name, facts.at)
    if wanted:
        yield f"or, for a domain that you know, a rule. {CAUTION}"
        yield from (PAD + line for line in wanted.split("\n"))
        return
    signers = (identity for identity in identities(facts) if identity.method in ("dkim", "arc"))
    proven = next(signers, None)
    if proven is None or not facts.counted or facts.malformed_from:
        yield (
            "a [[policy.rules]] entry that matches this sender by network, DKIM, SPF, client name"
            " or ARC sealer"
        )
    else:
        yield (
            f'if you know {proven.domain}: a [[policy.rules]] entry with action = "accept" and'
            f' {proven.method} = ["{proven.domain}"]'
        )
