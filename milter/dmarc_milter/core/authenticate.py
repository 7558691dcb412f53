"""The whole story of one message: what is checked, in which order, and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import NamedTuple

from dmarc_milter.core import arc as arc_module
from dmarc_milter.core import budget
from dmarc_milter.core import dkim as dkim_module
from dmarc_milter.core.arc import ArcOptions, ArcPlan, ArcResult, ArcStatus, trusted_override
from dmarc_milter.core.dkim import BodyHasher, DkimOptions, DkimPlan, DkimResult
from dmarc_milter.core.dmarc import rewritten_from
from dmarc_milter.core.dmarc.author_policy import published
from dmarc_milter.core.dmarc.discovery import questions as policy_questions
from dmarc_milter.core.dmarc.evaluate import DmarcOptions, PublicSuffixes, author_names, evaluate
from dmarc_milter.core.dmarc.result import DmarcResult
from dmarc_milter.core.dmarc.rewritten_from import Canonify
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.iprev import IprevResult, iprev
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.author import author as read_author
from dmarc_milter.core.mail.facts import MessageFacts, message_facts
from dmarc_milter.core.mail.message import Envelope, Headers, Message
from dmarc_milter.core.policy.decide import Context, LocalPolicy, decide
from dmarc_milter.core.quick_dataclass import quick_dataclass
from dmarc_milter.core.resolver import (
    Missing,
    Question,
    Resolver,
    for_policy,
    pause,
    stale_answers,
)
from dmarc_milter.core.spf.check import EarlierSpf, SpfOptions, SpfResult, upgraded


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that the administrator can choose about evaluation."""

    spf: SpfOptions = SpfOptions()
    dkim: DkimOptions = DkimOptions()
    arc: ArcOptions = ArcOptions()
    dmarc: DmarcOptions = DmarcOptions()
    policy: LocalPolicy = LocalPolicy()
    suffixes: PublicSuffixes | None = None
    iprev: bool = False
    seconds: float = budget.MESSAGE_SECONDS
    """The message's budget of DNS time."""


class MethodResults(NamedTuple):
    """What the methods said."""

    spf: SpfResult
    dkim: tuple[DkimResult, ...]
    arc: ArcResult
    iprev: IprevResult | None
    dmarc: DmarcResult


@quick_dataclass(frozen=True, slots=True)
class Plan:
    """What the header fields ask for, known before the body has been read."""

    dkim: DkimPlan
    arc: ArcPlan
    walks: tuple[Question, ...]
    """What leads to the author's policy; to be asked first (resolver.for_policy)."""
    questions: tuple[Question, ...]
    """The rest."""


@quick_dataclass(frozen=True, slots=True)
class Request:
    """One message to be judged. `spf` gives the result of the SPF check, which may have been
    started at MAIL FROM."""

    id: str
    envelope: Envelope
    message: Message
    facts: MessageFacts
    plan: Plan
    spf: Callable[[], SpfResult] = field(compare=False)
    canonify: Canonify | None = None
    """How the MTA changes From after us; None where it does not."""


class Prepared:
    """What the header fields of one message ask for, ready for its body."""

    __slots__ = ("_hasher", "author", "headers", "plan", "wants_body")

    def __init__(self, headers: Headers, author: Author, plan: Plan) -> None:
        self.headers = headers
        self.author = author
        self.plan = plan
        hashes = plan.dkim.body_hashes | plan.arc.body_hashes
        self.wants_body = bool(hashes)
        self._hasher = BodyHasher(hashes)

    def hash(self, piece: bytes) -> None:
        """More of the body."""
        self._hasher.update(piece)

    def request(
        self,
        name: str,
        envelope: Envelope,
        spf: Callable[[], SpfResult],
        *,
        to_reporting: bool = False,
        from_reporting: bool = False,
        canonify: Canonify | None = None,
    ) -> Request:
        """The message to be judged, now that all of it is there. `name`: Evaluation.id."""
        facts = message_facts(
            self.headers, envelope, to_reporting=to_reporting, from_reporting=from_reporting
        )
        message = Message(self.headers, self.author, self._hasher.finish())
        return Request(name, envelope, message, facts, self.plan, spf, canonify)


def prepare(headers: Headers, resolver: Resolver, options: Options) -> Prepared:
    """Read From and the signatures, and start every look-up that they lead to."""
    author = read_author(headers.values(b"from"), partial(pause, resolver))
    plan = plan_look_ups(headers, author, options)
    pause(resolver)
    for_policy(resolver).prefetch(plan.walks)
    resolver.prefetch(plan.questions)
    return Prepared(headers, author, plan)


def plan_look_ups(headers: Headers, author: Author, options: Options) -> Plan:
    """What must be hashed and looked up for these header fields: the signatures chosen, the chain,
    the policy walk."""
    authors, _ = author_names(author, options.suffixes)
    dkim = dkim_module.prepare(headers, authors, options.dkim)
    arc = arc_module.prepare(headers, options.arc)
    walks = tuple(
        question
        for domain in authors
        for question in policy_questions(domain, options.dmarc, options.suffixes)
    )
    return Plan(dkim, arc, walks, (*dkim.questions, *arc.questions))


def authenticate(
    request: Request, resolver: Resolver, options: Options, *, now: datetime, pct_draw: float
) -> Evaluation:
    """Evaluate one message. Never raises for anything the sender or the DNS did.

    `now` is aware UTC; `pct_draw` is uniform in [0, 100), for pct (RFC 7489 6.6.4).
    `request.plan.walks` and `questions` should have been prefetched by now. The policy walk is
    asked first, then keys, so that nothing else in the message can exhaust their share of the
    budget.
    """
    results = _run_methods(request, resolver, options, now)
    verdict = decide(
        results.dmarc,
        _context(request, results, options),
        options.policy,
        pct_draw=pct_draw,
        today=now.date(),
    )
    return Evaluation(
        id=request.id,
        at=now,
        envelope=request.envelope,
        author=request.message.author,
        facts=request.facts,
        spf=results.spf,
        dkim=results.dkim,
        arc=results.arc if options.arc.enabled else None,
        iprev=results.iprev if options.iprev else None,
        dmarc=results.dmarc,
        verdict=verdict,
        stale=stale_answers(resolver),
    )


def _run_methods(
    request: Request, resolver: Resolver, options: Options, now: datetime
) -> MethodResults:
    """All methods, in the order that keeps each one's share of the budget safe from the next."""
    author = request.message.author
    _look_up_policies(author, resolver, options)
    names = _written(request, resolver, options)
    dkim = _dkim(request, resolver, options, now)
    spf = request.spf()
    dmarc = evaluate(author, spf, dkim, resolver, options.dmarc, options.suffixes)
    arc = _arc(request, resolver, options, now)
    noticed = upgraded(spf, _earlier_spf(arc), options.spf)
    if noticed.usable != spf.usable:
        dmarc = evaluate(author, noticed, dkim, resolver, options.dmarc, options.suffixes)
    dmarc = rewritten_from.judged(
        dmarc, names, (noticed, dkim), resolver, options.dmarc, options.suffixes
    )
    return MethodResults(noticed, dkim, arc, _iprev(request.envelope, resolver, options), dmarc)


def _look_up_policies(author: Author, resolver: Resolver, options: Options) -> None:
    """Ask for the author's policy before anything that the sender could make slow."""
    for domain in author_names(author, options.suffixes)[0]:
        published(domain, for_policy(resolver), options.dmarc, options.suffixes)


def _dkim(
    request: Request, resolver: Resolver, options: Options, now: datetime
) -> tuple[DkimResult, ...]:
    keys = resolver.share(
        queries=budget.dkim_queries(options.dkim.max_signatures),
        seconds=budget.DKIM_KEYS_SHARE * options.seconds,
    )
    return dkim_module.verify(request.message, request.plan.dkim, keys, options.dkim, now=now)


def _arc(request: Request, resolver: Resolver, options: Options, now: datetime) -> ArcResult:
    keys = resolver.share(queries=options.arc.max_lookups, seconds=options.seconds)
    return arc_module.validate(request.message, request.plan.arc, keys, options.arc, now=now)


def _earlier_spf(arc: ArcResult) -> Iterator[EarlierSpf]:
    """What the hops of a chain that verified saw of SPF."""
    return (EarlierSpf(hop.aar_spf, hop.aar_mail_from) for hop in arc.hops if hop.aar_spf)


def _written(
    request: Request, resolver: Resolver, options: Options
) -> rewritten_from.WritableNames:
    """What the MTA may write in the place of the author's domain, asked for before anything that
    the sender could make slow."""
    if request.canonify is None:
        return rewritten_from.WritableNames()
    authors, _ = author_names(request.message.author, options.suffixes)
    found = rewritten_from.names(authors, resolver, request.canonify)
    rewritten_from.prepare(found, resolver, options.dmarc, options.suffixes)
    return found


def _iprev(envelope: Envelope, resolver: Resolver, options: Options) -> IprevResult | None:
    """The client's proven names: when asked for, or when a local rule needs them."""
    if envelope.source_ip is None or not (
        options.iprev or any(rule.ptr for rule in options.policy.rules)
    ):
        return None
    return iprev(envelope.source_ip, resolver)


def _context(request: Request, results: MethodResults, options: Options) -> Context:
    """What local policy may know: facts of the envelope and identities that were proven, nothing
    that the sender merely says."""
    author = results.dmarc.author_domain
    sealers = options.policy.trusted_arc_sealers
    return Context(
        source_ip=request.envelope.source_ip,
        source_known=request.envelope.source_known,
        recipient_domains=request.envelope.rcpt_domains,
        recipients_known=request.envelope.rcpt_known,
        dkim_domains=tuple(
            signature.domain for signature in results.dkim if signature.usable and signature.domain
        ),
        spf_domain=results.spf.domain if results.spf.usable else None,
        names=results.iprev.names if results.iprev and results.iprev.status == "pass" else (),
        arc_sealers=(
            tuple(hop.sealer for hop in results.arc.hops)
            if results.arc.status is ArcStatus.PASS
            else ()
        ),
        arc_override=trusted_override(results.arc, author, sealers) if author else None,
        relayed=request.envelope.relayed,
        shortage=_shortage(results, options.policy),
    )


def _accepts_by_proof(policy: LocalPolicy) -> bool:
    """Whether a local rule lets somebody through by what he proves."""
    return any(
        rule.dkim or rule.spf or rule.ptr or rule.arc
        for rule in policy.rules
        if rule.action in ("accept", "none")
    )


def _shortage(results: MethodResults, policy: LocalPolicy) -> Missing | None:
    """What we were too busy to look up, where somebody is let through by what he proves: what he
    could not prove for that reason is not held against him."""
    by_proof = _accepts_by_proof(policy)
    asked = [results.arc.missing] if policy.trusted_arc_sealers or by_proof else []
    if by_proof:
        asked += [
            results.spf.missing,
            *(signature.missing for signature in results.dkim),
            results.iprev.missing if results.iprev else None,
        ]
    asked += [
        results.dmarc.written_missing,
        *(outcome.missing for outcome in results.dmarc.written),
    ]
    return next(
        (missing for missing in asked if missing is not None and missing.kind == "shortage"), None
    )
