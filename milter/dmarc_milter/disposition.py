"""Local policy: what is done with a message, given what DMARC, ARC and the administrator's rules say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, NamedTuple

from dmarc_milter.dmarc.record import Policy
from dmarc_milter.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome
from dmarc_milter.domain import Domain
from dmarc_milter.message import IPAddress


class Disposition(StrEnum):
    """What was actually done because of DMARC (RFC 9990: `pass` is a pass under an enforcing policy)."""

    NONE = "none"
    PASS = "pass"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class OverrideType(StrEnum):
    """Why the disposition is not the published policy: stored raw, rendered per report format."""

    LOCAL_POLICY = "local_policy"
    MAILING_LIST = "mailing_list"
    TRUSTED_FORWARDER = "trusted_forwarder"
    POLICY_TEST_MODE = "policy_test_mode"
    SAMPLED_OUT = "sampled_out"
    OTHER = "other"


class OverrideReason(NamedTuple):
    type: OverrideType
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One [[policy.rules]] entry: every condition that is given must hold (any of its values). At least one condition;
    names in `dkim`, `spf`, `ptr`, `arc` are proven identities (at or below the given name)."""

    action: Literal["accept", "none", "quarantine", "reject", "tag"]
    comment: str = ""
    author_domains: tuple[Domain, ...] = ()
    include_subdomains: bool = True
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    dkim: tuple[Domain, ...] = ()
    spf: tuple[Domain, ...] = ()
    ptr: tuple[Domain, ...] = ()
    arc: tuple[Domain, ...] = ()
    recipient_domains: tuple[Domain, ...] = ()
    expires: date | None = None
    """The last day on which the rule holds."""
    reason: OverrideType = OverrideType.LOCAL_POLICY
    tag: str = ""


@dataclass(frozen=True, slots=True)
class LocalPolicy:
    """The [policy] section and its neighbours (DESIGN.md, Configuration)."""

    enforce: bool = True
    quarantine_action: Literal["header", "hold", "reject"] = "header"
    reject_action: Literal["reject", "quarantine"] = "reject"
    malformed_from: Literal["strictest", "reject", "quarantine", "accept"] = "strictest"
    testing_key_action: Literal["quarantine", "reject"] = "quarantine"
    honor_pct: bool = True
    on_temperror: Literal["accept", "tempfail"] = "accept"
    trusted_arc_sealers: tuple[Domain, ...] = ()
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What local policy may know besides DMARC: facts of the envelope and identities that were proven."""

    source_ip: IPAddress | None = None
    source_known: bool = True
    """False: behind a trusted relay whose Received field could not be read; DMARC then quarantines at most."""
    recipient_domains: tuple[Domain, ...] = ()
    dkim_domains: tuple[Domain, ...] = ()
    """d= of signatures that passed."""
    spf_domain: Domain | None = None
    """The domain that SPF passed."""
    names: tuple[str, ...] = ()
    """The client's names that resolve back to it, lower-case A-labels."""
    arc_sealers: tuple[Domain, ...] = ()
    """Sealers of a chain that passed, instance 1 first."""
    arc_override: str | None = None
    """The comment of RFC 8617 7.2.2 when trusted sealers saw a DMARC pass of the same author domain."""


class Deferral(NamedTuple):
    """Why a message is answered 451: the DNS of `name` did not answer, others took what we have, or we failed on this message."""

    reason: Literal["dns", "overloaded", "failure"]
    name: str = ""
    """The DNS name that failed, without trailing dot; "" where there is none. The sender may have chosen it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is done with the message. `deferral` excludes everything else: 451, and not counted for reports."""

    disposition: Disposition
    policy: Policy = Policy.NONE
    """The evaluated policy after t, pct and reject_action: policy.dmarc (RFC 9989 9.1)."""
    reasons: tuple[OverrideReason, ...] = ()
    deferral: Deferral | None = None
    tags: tuple[str, ...] = ()
    decided_by: str = ""
    """One sentence for the log, `check` and `why`: which rule decided."""
    would_be: Disposition | None = None
    """In monitor mode: what enforcement would have done."""

    @property
    def tempfail(self) -> bool:
        """Whether the message is answered 451."""
        return self.deferral is not None


ENFORCING = (Disposition.QUARANTINE, Disposition.REJECT)
STRICTNESS = (Disposition.NONE, Disposition.PASS, Disposition.QUARANTINE, Disposition.REJECT)
LENIENT_RULES = ("accept", "none")


def decide(dmarc: DmarcResult, context: Context, policy: LocalPolicy, *, sample: float, today: date) -> Verdict:
    """What is done with a message: the published policy, softened by t, pct and caution; then trusted ARC, local rules, monitor mode.

    `sample` is uniform in [0, 100): a record's pct applies to samples below it (RFC 7489 6.6.4). Never raises.
    """
    published = dmarc.outcome.policy if dmarc.outcome and dmarc.status is not DmarcStatus.NONE else Policy.NONE
    verdict, firm = _by_dmarc(dmarc, policy, sample)
    if context.arc_override and dmarc.status is DmarcStatus.FAIL and verdict.disposition in ENFORCING:
        verdict = _change(verdict, Disposition.NONE, context.arc_override, "a trusted ARC chain says that the message passed before")
    ruled = _by_rules(verdict, dmarc, context, policy.rules, today)
    firm = firm and ruled.disposition is verdict.disposition
    verdict = ruled
    if verdict.disposition is Disposition.QUARANTINE and policy.quarantine_action == "reject" and not firm:
        verdict = _change(verdict, Disposition.REJECT, "quarantine_action=reject")
    if verdict.disposition is Disposition.REJECT and not context.source_known:
        verdict = _change(verdict, Disposition.QUARANTINE, "source behind a trusted relay not readable")
    if verdict.disposition == published.value:
        verdict = replace(verdict, reasons=())
    return verdict if policy.enforce else _monitored(verdict)


def _monitored(verdict: Verdict) -> Verdict:
    """enforce = false: nothing is refused, deferred or quarantined; what would have been is kept."""
    would_be = verdict.disposition
    if would_be in ENFORCING:
        verdict = _change(verdict, Disposition.NONE, "monitor")
    return replace(verdict, deferral=None, would_be=would_be)


def _change(verdict: Verdict, disposition: Disposition, comment: str, why: str = "") -> Verdict:
    """Local policy does something else. The clause in decided_by grows by `why`, or else by the comment."""
    reason = OverrideReason(OverrideType.LOCAL_POLICY, comment)
    return replace(
        verdict, disposition=disposition, reasons=(*verdict.reasons, reason), decided_by=f"{verdict.decided_by}; {why or comment}"
    )


class _Draft(NamedTuple):
    """`firm`: quarantine is the most that may be done, even with quarantine_action = "reject"."""

    verdict: Verdict
    firm: bool = False


def _by_dmarc(dmarc: DmarcResult, policy: LocalPolicy, sample: float) -> _Draft:
    """What the DMARC result asks for, before anything that is known only here."""
    outcome = dmarc.outcome
    if outcome is None:
        return _malformed(dmarc, policy, sample)
    match outcome.status:
        case DmarcStatus.PASS:
            # RFC 9990 3.1.1.7: `pass` where the published policy would have done something
            done = Disposition.NONE if outcome.policy is Policy.NONE else Disposition.PASS
            return _Draft(Verdict(done, outcome.policy, decided_by="DMARC passed"))
        case DmarcStatus.FAIL:
            return _failed(outcome, policy, sample)
        case DmarcStatus.TEMPERROR:
            return _Draft(_temperror(outcome, policy, sample))
        case _:
            return _Draft(Verdict(Disposition.NONE, decided_by=f"DMARC does not apply: {outcome.reason}"))


def _failed(outcome: DomainOutcome, policy: LocalPolicy, sample: float) -> _Draft:
    """A failure: the published policy, one level lower for t=y or where pct left the message out, then our own caution."""
    asked, verdict = outcome.policy, _published(outcome, policy, sample)
    where = outcome.published.policy_domain if outcome.published else outcome.author_domain
    verdict = replace(verdict, decided_by=f"DMARC failed and {where} asks for {outcome.policy_tag}={asked}{verdict.decided_by}")
    verdict = _cautious(verdict, policy)
    if outcome.testing_key_only and verdict.disposition is Disposition.REJECT and policy.testing_key_action == "quarantine":
        return _Draft(_change(verdict, Disposition.QUARANTINE, "testing key", "the only aligned pass is by a testing key"), firm=True)
    return _Draft(verdict)


def _published(outcome: DomainOutcome, policy: LocalPolicy, sample: float) -> Verdict:
    """RFC 9989 4.7 (t) and RFC 7489 6.6.4 (pct: only where the record has no t). decided_by says what lowered the policy."""
    asked = outcome.policy
    verdict = Verdict(Disposition(asked.value), asked)
    record = outcome.published.record if outcome.published else None
    if record is None or asked is Policy.NONE:
        return verdict
    lower = Policy.QUARANTINE if asked is Policy.REJECT else Policy.NONE
    lowered = replace(verdict, disposition=Disposition(lower.value), policy=lower)
    if record.testing:
        return replace(lowered, reasons=(OverrideReason(OverrideType.POLICY_TEST_MODE, "t=y"),), decided_by=" in test mode (t=y)")
    if record.testing is None and record.pct is not None and policy.honor_pct and sample >= record.pct:
        comment = f"pct={record.pct}"
        reasons = (OverrideReason(OverrideType.SAMPLED_OUT, comment),)
        return replace(lowered, reasons=reasons, decided_by=f", which left this message out ({comment})")
    return verdict


def _cautious(verdict: Verdict, policy: LocalPolicy) -> Verdict:
    """RFC 9989 7.4: p=reject alone need not be reason enough."""
    if verdict.disposition is Disposition.REJECT and policy.reject_action == "quarantine":
        return replace(_change(verdict, Disposition.QUARANTINE, "reject_action=quarantine"), policy=Policy.QUARANTINE)
    return verdict


def _temperror(outcome: DomainOutcome, policy: LocalPolicy, sample: float) -> Verdict:
    """Neither pass nor fail: no policy can be applied (RFC 9989 5.3.6). Deferred if so configured and a policy might ask for more."""
    wanted = _published(outcome, policy, sample).policy
    enforcing = outcome.published is None or wanted is not Policy.NONE
    if outcome.limit_reached or (policy.on_temperror == "tempfail" and enforcing):
        return Verdict(
            Disposition.NONE,
            wanted,
            deferral=Deferral("failure" if outcome.limit_reached else "dns"),
            decided_by=f"DMARC could not be judged: {outcome.reason}",
        )
    reasons = (OverrideReason(OverrideType.OTHER, "dns error"),)
    return Verdict(Disposition.NONE, wanted, reasons, decided_by=f"DMARC could not be judged: {outcome.reason}")


def _malformed(dmarc: DmarcResult, policy: LocalPolicy, sample: float) -> _Draft:
    """malformed_from (RFC 9989 11.5): by default the strictest failing policy of the domains that any reader could see."""
    comment = f"malformed From ({policy.malformed_from})"
    because = f"the From field is malformed ({dmarc.reason})"
    if policy.malformed_from == "strictest" and dmarc.candidates and not dmarc.more_candidates:
        return _strictest(dmarc, policy, sample)
    if policy.malformed_from == "strictest" and dmarc.more_candidates:
        draft = Verdict(Disposition.REJECT, Policy.REJECT, decided_by=f"{because} and names too many domains")
        return _Draft(_explained(_cautious(draft, policy), comment))
    done = {"accept": Disposition.NONE, "reject": Disposition.REJECT}.get(policy.malformed_from, Disposition.QUARANTINE)
    return _Draft(_explained(Verdict(done, decided_by=because), comment))


def _strictest(dmarc: DmarcResult, policy: LocalPolicy, sample: float) -> _Draft:
    drafts = [_failed(each, policy, sample) for each in dmarc.candidates if each.status is DmarcStatus.FAIL]
    undecided = [_temperror(each, policy, sample) for each in dmarc.candidates if each.status is DmarcStatus.TEMPERROR]
    because = f"the From field is malformed ({dmarc.reason})"
    draft = max(
        drafts, key=lambda each: (STRICTNESS.index(each.verdict.disposition), not each.firm), default=_Draft(Verdict(Disposition.NONE))
    )
    if draft.verdict.disposition is not Disposition.REJECT and any(each.tempfail for each in undecided):
        return _Draft(Verdict(Disposition.NONE, deferral=Deferral("dns"), decided_by=f"{because} and a policy in it could not be judged"))
    strictest = draft.verdict.decided_by or "no domain in it fails DMARC"
    verdict = replace(draft.verdict, decided_by=f"{because}; strictest: {strictest}")
    return _Draft(_explained(verdict, "malformed From (strictest)"), draft.firm)


def _explained(verdict: Verdict, comment: str) -> Verdict:
    return replace(verdict, reasons=(*verdict.reasons, OverrideReason(OverrideType.LOCAL_POLICY, comment)))


def _by_rules(verdict: Verdict, dmarc: DmarcResult, context: Context, rules: tuple[Rule, ...], today: date) -> Verdict:
    """The first rule that matches decides; `tag` rules only add their tag. A pass is never changed, and where the DNS prevented
    a judgement nothing is refused or quarantined: a rule for forgeries of a domain must not hit its genuine mail then."""
    for number, rule in enumerate(rules, 1):
        if not _matches(rule, dmarc, context, today):
            continue
        if rule.action == "tag":
            verdict = replace(verdict, tags=(*verdict.tags, rule.tag) if rule.tag not in verdict.tags else verdict.tags)
            continue
        lenient = rule.action in LENIENT_RULES
        if dmarc.status is DmarcStatus.PASS or (dmarc.status is DmarcStatus.TEMPERROR and not lenient):
            continue
        return _apply(verdict, rule, number)
    return verdict


def _apply(verdict: Verdict, rule: Rule, number: int) -> Verdict:
    """`accept` delivers even what would be deferred; `none` acts like p=none."""
    lenient = rule.action in LENIENT_RULES
    done = Disposition.NONE if lenient else Disposition(rule.action)
    deferral = verdict.deferral if rule.action == "none" else None
    if done is verdict.disposition and deferral == verdict.deferral:
        return verdict
    comment = rule.comment or f"rule {number}"
    return replace(
        verdict,
        disposition=done,
        deferral=deferral,
        reasons=(*verdict.reasons, OverrideReason(rule.reason, comment)),
        decided_by=f"local rule {number} says {rule.action}" + (f" ({rule.comment})" if rule.comment else ""),
    )


def _matches(rule: Rule, dmarc: DmarcResult, context: Context, today: date) -> bool:
    """Every condition given holds, and at least one is given."""
    if rule.expires is not None and today > rule.expires:
        return False
    recipients = context.recipient_domains
    spf = (context.spf_domain,) if context.spf_domain else ()
    conditions = (
        (rule.author_domains, _author_matches(rule, dmarc)),
        (rule.networks, context.source_ip is not None and any(context.source_ip in network for network in rule.networks)),
        (rule.dkim, _any_at_or_below(context.dkim_domains, rule.dkim)),
        (rule.spf, _any_at_or_below(spf, rule.spf)),
        (rule.ptr, _any_at_or_below(map(Domain, context.names), rule.ptr)),
        # Only the newest seal proves who sent this message here: older ones may have been copied from another message.
        (rule.arc, _any_at_or_below(context.arc_sealers[-1:], rule.arc)),
        (rule.recipient_domains, bool(recipients) and all(each in rule.recipient_domains for each in recipients)),
    )
    given = [holds for condition, holds in conditions if condition]
    return bool(given) and all(given)


def _author_matches(rule: Rule, dmarc: DmarcResult) -> bool:
    """A malformed From has no author: any domain in it is enough for a strict rule, none for a lenient one."""
    authors = [dmarc.author_domain] if dmarc.author_domain else [each.author_domain for each in dmarc.candidates]
    if not dmarc.author_domain and rule.action in (*LENIENT_RULES, "tag"):
        return False
    if rule.include_subdomains:
        return _any_at_or_below(authors, rule.author_domains)
    return any(author in rule.author_domains for author in authors)


def _any_at_or_below(names: Iterable[Domain], anchors: tuple[Domain, ...]) -> bool:
    return any(name.is_at_or_below(anchor) for name in names for anchor in anchors)
