"""[[policy.rules]]: which of the administrator's own rules holds for a message, and what it
does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date

from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.policy.deferral import deferral_of
from dmarc_milter.core.policy.verdict import (
    Context,
    Disposition,
    LocalPolicy,
    OverrideReason,
    Rule,
    Verdict,
)

LENIENT_RULES = ("accept", "none")


def by_rules(
    verdict: Verdict, dmarc: DmarcResult, context: Context, policy: LocalPolicy, today: date
) -> Verdict:
    """The first rule that matches decides; `tag` rules only add their tag. A pass is never changed,
    and where the DNS prevented a judgement nothing is refused or quarantined: a rule for forgeries
    of a domain must not hit its genuine mail then. But such a rule is a policy that is known, so
    the message waits (on_temperror)."""
    for number, rule in enumerate(policy.rules, 1):
        if not matches(rule, dmarc, context, today):
            continue
        if rule.action == "tag":
            verdict = replace(
                verdict,
                tags=(*verdict.tags, rule.tag) if rule.tag not in verdict.tags else verdict.tags,
            )
        elif dmarc.status is DmarcStatus.TEMPERROR and rule.action in ("quarantine", "reject"):
            if verdict.over_limit:
                return verdict
            if verdict.deferral or policy.on_temperror != "accept":
                return _waiting(verdict, rule, number, dmarc)
        elif dmarc.status is not DmarcStatus.PASS:
            of_author = rule.action != "reject" or matches(
                rule, replace(dmarc, written=()), context, today
            )
            if not of_author and verdict.disposition is Disposition.REJECT:
                return verdict
            # What only our own MTA makes of the author is never refused.
            return _apply(
                verdict, rule if of_author else replace(rule, action="quarantine"), number, policy
            )
    return verdict


def _waiting(verdict: Verdict, rule: Rule, number: int, dmarc: DmarcResult) -> Verdict:
    """A strict rule for a message that could not be judged."""
    deferral = verdict.deferral or deferral_of(dmarc.outcome.missing if dmarc.outcome else None)
    because = f"{verdict.decided_by}; local rule {number} says {rule.action}"
    return replace(
        verdict, policy=Policy(rule.action), reasons=(), deferral=deferral, decided_by=because
    )


def _apply(verdict: Verdict, rule: Rule, number: int, policy: LocalPolicy) -> Verdict:
    """`accept` delivers even what would be deferred; so does `none`, unless all that could not be
    judged waits by choice."""
    done = Disposition.NONE if rule.action in LENIENT_RULES else Disposition(rule.action)
    deferral = (
        verdict.deferral if rule.action == "none" and policy.on_temperror == "tempfail" else None
    )
    if done is verdict.disposition and deferral == verdict.deferral:
        return verdict
    comment = rule.comment or f"rule {number}"
    return replace(
        verdict,
        disposition=done,
        deferral=deferral,
        over_limit=False,
        reasons=(*verdict.reasons, OverrideReason(rule.reason, comment)),
        decided_by=f"local rule {number} says {rule.action}"
        + (f" ({rule.comment})" if rule.comment else ""),
    )


def matches(rule: Rule, dmarc: DmarcResult, context: Context, today: date) -> bool:
    """Every condition given holds, and at least one is given."""
    if rule.expires is not None and today > rule.expires:
        return False
    recipients = context.recipient_domains
    spf = (context.spf_domain,) if context.spf_domain else ()
    conditions = (
        (rule.author_domains, _author_matches(rule, dmarc)),
        (
            rule.networks,
            context.source_ip is not None
            and any(context.source_ip in network for network in rule.networks),
        ),
        (rule.dkim, _any_at_or_below(context.dkim_domains, rule.dkim)),
        (rule.spf, _any_at_or_below(spf, rule.spf)),
        (rule.ptr, _any_at_or_below(map(Domain, context.names), rule.ptr)),
        # Only the newest seal proves who sent this message here: older ones may have been copied
        # from another message.
        (rule.arc, any(sealer in rule.arc for sealer in context.arc_sealers[-1:])),
        (
            rule.recipient_domains,
            bool(recipients)
            and context.recipients_known
            and set(recipients) <= set(rule.recipient_domains),
        ),
    )
    given = [holds for condition, holds in conditions if condition]
    return bool(given) and all(given)


def _author_matches(rule: Rule, dmarc: DmarcResult) -> bool:
    """A malformed From has no author: any domain in it is enough for a strict rule, none for a
    lenient one."""
    authors = (
        [dmarc.author_domain]
        if dmarc.author_domain
        else [outcome.author_domain for outcome in dmarc.candidates]
    )
    if rule.action in (*LENIENT_RULES, "tag"):
        if not dmarc.author_domain:
            return False
    else:
        authors += [outcome.author_domain for outcome in dmarc.written]  # what readers will see
    if rule.include_subdomains:
        return _any_at_or_below(authors, rule.author_domains)
    return any(author in rule.author_domains for author in authors)


def _any_at_or_below(names: Iterable[Domain], anchors: tuple[Domain, ...]) -> bool:
    return any(name.is_at_or_below(anchor) for name in names for anchor in anchors)
