"""From an Evaluation to what the MTA is asked to do. Effects are data that refuse nonsense;
session/session.py plays them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from dmarc_milter.core import budget
from dmarc_milter.core.actions import auth_results
from dmarc_milter.core.authres import field
from dmarc_milter.core.authres.forgery import forged
from dmarc_milter.core.deferrals import DEFERRALS
from dmarc_milter.core.dkim.result import DkimStatus
from dmarc_milter.core.dmarc.evaluate import MAX_ORGANIZATIONS
from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import (
    DmarcResult,
    DmarcStatus,
    DomainOutcome,
    PolicyPublished,
)
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.broken_encoded_words import BROKEN_WORD
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.message import Headers
from dmarc_milter.core.policy.decide import LIMIT, Deferral, Disposition, Verdict
from dmarc_milter.core.quick_dataclass import quick_dataclass
from dmarc_milter.core.text import is_printable

RESULTS = "Authentication-Results"
MARK = "X-DMARC-Quarantine"
RESULTS_NAME = RESULTS.lower().encode()
MARK_NAME = MARK.lower().encode()
READ_MORE = "https://www.rfc-editor.org/rfc/rfc9989"
MAX_TEXT = 480
"""Bytes of a reply's text: with the codes and CR LF under the 512 of RFC 5321 4.5.3.1.5."""
MAX_FIELDS_PASSED = 10_000
"""Fields of a message among which as many as the limit may be taken out."""
NO_AUTHOR = "the From header field has no usable author domain"
MAX_NAMED = 100
"""Bytes of a domain name that a reply spells out; the middle of a longer one is left out."""
DNS_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
"""What a DNS name consists of where a reply spells it out; others may have been made up by the
sender (SPF macros)."""


@dataclass(frozen=True, slots=True)
class Marking:
    """How a message is marked and refused: the parts of the configuration that this takes."""

    authserv_id: str
    remove_authserv_ids: tuple[str, ...] = ()
    quarantine_action: Literal["header", "hold", "reject"] = "header"
    removable_fields: int = budget.REMOVABLE_FIELDS
    """[limits]: the most fields that are taken out of one message. An MTA's time for that grows
    with their number squared."""
    reject_text: str = ""
    """Added to a refusal instead of READ_MORE: printable ASCII without %, at most 200 bytes."""


@dataclass(frozen=True, slots=True)
class DeleteHeader:
    name: str
    index: int
    """From 1, per name, as SMFIR_CHGHEADER counts."""

    def __post_init__(self) -> None:
        if self.index < 1:
            raise ValueError("header indexes start at 1")


@quick_dataclass(frozen=True, slots=True)
class InsertHeader:
    """Inserted above all fields (index 0). `value` starts with a space, folds are LF + white space,
    lines under 998 bytes."""

    name: str
    value: str

    def __post_init__(self) -> None:
        if "\r" in self.value or "\0" in self.value:
            raise ValueError("not the value of a header field")
        for line in self.value.split("\n"):
            if line[:1] not in (" ", "\t") or not line.strip() or len(line.encode()) >= 998:
                raise ValueError("not the value of a header field")


@dataclass(frozen=True, slots=True)
class Quarantine:
    """SMFIR_QUARANTINE: the MTA holds the message."""

    reason: str

    def __post_init__(self) -> None:
        _refuse_unless_plain(self.reason)


@dataclass(frozen=True, slots=True)
class Reply:
    """The final SMTP reply instead of acceptance: a 4xx or 5xx code, its enhanced code, and one
    line of text."""

    code: int
    enhanced: str
    text: str

    def __post_init__(self) -> None:
        if self.code // 100 not in (4, 5) or not self.enhanced.startswith(f"{self.code // 100}."):
            raise ValueError("not a refusal")
        _refuse_unless_plain(self.text)


def deferral_reply(deferral: Deferral, whose: str = "") -> Reply:
    """The 451 for this reason. `whose` is an author domain, fit to be shown."""
    excuse = DEFERRALS[deferral.reason]
    of = f" of {whose}" if whose else ""
    text = (
        f"DMARC{of} could not be evaluated: {excuse.says(_dns_name(deferral.name))}, please try"
        " again later"
    )
    return Reply(451, excuse.enhanced, text)


def _dns_name(name: str) -> str:
    """A name that was asked, fit to be shown."""
    return shortened(name) if name and DNS_NAME.issuperset(name) else "a name in it"


Action = DeleteHeader | InsertHeader | Quarantine | Reply


def _refuse_unless_plain(text: str) -> None:
    """libmilter and Sendmail treat % as printf does, pymilter raises on it; control characters
    would end the line."""
    if not (is_printable(text) and "%" not in text and len(text) <= MAX_TEXT):
        raise ValueError("not one line of plain ASCII")


def remove_forged(
    headers: Headers,
    marking: Marking,
    *,
    keep_results: bool = False,
    pause: Callable[[], None] = lambda: None,
) -> tuple[DeleteHeader, ...] | tuple[Reply]:
    """The fields that only we may write and the sender did, highest index first (RFC 8601 5): for
    exempt mail this is all.

    More than [limits] removable_fields of them are refused, and nothing is taken out.
    `keep_results`: the client hands back what we marked before (keep_results_from), so it stays.
    `pause` is called between fields: others may go on, for some are dear to read.
    """
    if keep_results or not (headers.positions(RESULTS_NAME) or headers.positions(MARK_NAME)):
        return ()
    marks = tuple(_marks(headers))
    ids = (marking.authserv_id, *marking.remove_authserv_ids)
    found = forged(_paused(headers.values(RESULTS_NAME), pause), ids)
    numbers = tuple(islice(found, max(0, marking.removable_fields + 1 - len(marks))))
    return within_limit(
        (*(DeleteHeader(RESULTS, number) for number in reversed(numbers)), *marks), headers, marking
    )


def _paused(values: Iterable[bytes], pause: Callable[[], None]) -> Iterator[bytes]:
    for value in values:
        pause()
        yield value


def within_limit(
    removals: tuple[DeleteHeader, ...], headers: Headers, marking: Marking
) -> tuple[DeleteHeader, ...] | tuple[Reply]:
    """These, or the refusal where they are too many. Postfix looks for each from the top of the
    message, through every field."""
    limit = marking.removable_fields
    if (
        len(removals) <= limit
        and len(removals) * headers.total <= max(1, limit) * MAX_FIELDS_PASSED
    ):
        return removals
    text = (
        f"More than {limit} Authentication-Results or {MARK} fields would have to be removed"
        " ([limits] removable_fields)"
    )
    return (Reply(550, "5.6.0", text),)


def is_refusal(actions: tuple[Action, ...]) -> bool:
    """Whether they are a reply instead of edits."""
    return any(isinstance(action, Reply) for action in actions)


def _marks(headers: Headers) -> Iterator[DeleteHeader]:
    return (
        DeleteHeader(MARK, number) for number in range(len(headers.positions(MARK_NAME)), 0, -1)
    )


def plan_actions(
    evaluation: Evaluation,
    headers: Headers,
    marking: Marking,
    *,
    keep_results: bool = False,
    removals: tuple[DeleteHeader, ...] | tuple[Reply] | None = None,
) -> tuple[Action, ...]:
    """What is done with an evaluated message, in the order in which it must be played. The last
    insertion ends up on top.

    `removals`: what `strip` gave for these fields, where that is known already.
    """
    verdict = evaluation.verdict
    if verdict.deferral:
        return (deferral_reply(verdict.deferral, _waits_for(evaluation.dmarc)),)
    if verdict.over_limit:
        return (Reply(550, "5.6.0", _limit_text(evaluation.dmarc)),)
    if verdict.disposition is Disposition.REJECT:
        return (Reply(550, "5.7.1", _reject_text(evaluation, marking)),)
    edits = _removals(evaluation, headers, marking, keep_results, removals)
    if is_refusal(edits):
        return edits
    value = field.format(
        marking.authserv_id, auth_results.infos(evaluation), smtputf8=evaluation.envelope.smtputf8
    )
    return (*edits, *_quarantined(evaluation, marking), InsertHeader(RESULTS, value))


def _removals(
    evaluation: Evaluation,
    headers: Headers,
    marking: Marking,
    keep_results: bool,
    removals: tuple[DeleteHeader, ...] | tuple[Reply] | None,
) -> tuple[DeleteHeader, ...] | tuple[Reply]:
    """Where results are kept, an earlier mark stays only where there is no new one."""
    marked = (
        evaluation.verdict.disposition is Disposition.QUARANTINE
        and marking.quarantine_action != "hold"
    )
    if keep_results and marked:
        return within_limit(tuple(_marks(headers)), headers, marking)
    if removals is None:
        return remove_forged(headers, marking, keep_results=keep_results)
    return removals


def _quarantined(evaluation: Evaluation, marking: Marking) -> tuple[Action, ...]:
    """How the message is quarantined. One that must not be refused (policy/decide.py) is marked
    where quarantine_action is reject."""
    if evaluation.verdict.disposition is not Disposition.QUARANTINE:
        return ()
    mark = _mark(evaluation.dmarc, evaluation.verdict)
    if marking.quarantine_action == "hold":
        return (Quarantine(f"DMARC: {mark}"),)
    return (InsertHeader(MARK, f" yes ({mark})"),)


def _mark(dmarc: DmarcResult, verdict: Verdict) -> str:
    """`p=..., DOMAIN`: the published policy that led to quarantine."""
    outcome = max(dmarc.written, key=_strictness, default=_decisive(dmarc))
    if outcome is None:
        return f"p={verdict.policy}, no author domain"
    if dmarc.outcome is None and not _asks(outcome):
        return _flaw(dmarc)
    return f"p={outcome.policy}, {_short(outcome.author_domain)}"


def _asks(outcome: DomainOutcome) -> bool:
    """Whether the domain's own policy is a reason to refuse or quarantine."""
    return outcome.status is DmarcStatus.FAIL and outcome.policy is not Policy.NONE


def _flaw(dmarc: DmarcResult) -> str:
    """What is wrong with the From field, where that alone is the reason."""
    return f"From {_names(dmarc)}" if dmarc.more_candidates else "malformed From"


def _names(dmarc: DmarcResult) -> str:
    """Why not all of them are evaluated."""
    hidden = dmarc.reason == BROKEN_WORD
    return "hides whom it names" if hidden else f"names more than {MAX_ORGANIZATIONS} domains"


def _decisive(dmarc: DmarcResult, status: DmarcStatus = DmarcStatus.FAIL) -> DomainOutcome | None:
    """The outcome that the verdict is about; of a malformed author's candidates with this status
    the strictest, or the first of all."""
    if dmarc.outcome is not None:
        return dmarc.outcome
    meant = [outcome for outcome in dmarc.candidates if outcome.status is status]
    return max(meant, key=_strictness, default=next(iter(dmarc.candidates), None))


def _strictness(outcome: DomainOutcome) -> tuple[int, bool]:
    """What the policy asks for, one level lower in test mode; then whether nothing else may have
    lowered it. A policy that could not be looked up may be the strictest."""
    if outcome.published is None:
        return Policy.REJECT.strictness, True
    record = outcome.published.record
    sampled = record.testing is None and record.pct not in (None, 100)
    return outcome.policy.strictness - bool(record.testing), not (
        sampled or outcome.testing_key_only
    )


def _waits_for(dmarc: DmarcResult) -> str:
    """The author domain whose evaluation the message waits for, or ""."""
    outcome = _decisive(dmarc, DmarcStatus.TEMPERROR)
    return _short(outcome.author_domain) if outcome else ""


def _limit_text(dmarc: DmarcResult) -> str:
    """Why a message is refused that takes more look-ups than one may have."""
    whose = _waits_for(dmarc)
    return (
        f"DMARC{f' of {whose}' if whose else ''} cannot be evaluated: that takes more DNS queries"
        f" than a message may have ({LIMIT})"
    )


def _reject_text(evaluation: Evaluation, marking: Marking) -> str:
    """One line: whose policy, what failed, where to read more."""
    head = _refusal(evaluation.dmarc)
    more = marking.reject_text if _is_plain(marking.reject_text) else f"See {READ_MORE}"
    text = head
    for check in _checks(evaluation):
        if len(text) + len(check) + len(more) + 4 <= MAX_TEXT:
            text += f"; {check}"
    return f"{text}. {more}"


def _refusal(dmarc: DmarcResult) -> str:
    """Whose policy refuses the message, or what is wrong with its From field."""
    outcome = _decisive(dmarc)
    if outcome is None:
        return f"Refused by DMARC policy: {NO_AUTHOR} ({_plain(dmarc.reason)})"
    published = outcome.published if _asks(outcome) else None
    if dmarc.outcome is None:
        return _refusal_of_malformed(dmarc, outcome, published)
    if published is None:
        return (
            f"Refused by local policy: mail from {_short(outcome.author_domain)} without a DMARC"
            f" pass (dmarc={outcome.status})"
        )
    return (
        f"Refused by the DMARC policy of {_short(published.policy_domain)}"
        f" ({outcome.policy_tag}={outcome.policy}): {_short(outcome.author_domain)} is not"
        " authenticated"
    )


def _refusal_of_malformed(
    dmarc: DmarcResult, outcome: DomainOutcome, published: PolicyPublished | None
) -> str:
    """For a From field that names no single author; `published`: the policy that asks for it."""
    if published is None:
        names = _names(dmarc) if dmarc.more_candidates else "is malformed"
        return (
            f"Refused by local policy for DMARC: the From header field {names}"
            f" ({_plain(dmarc.reason)})"
        )
    return (
        f"Refused by DMARC policy of {_short(published.policy_domain)} (p={outcome.policy}): the"
        f" From header field is malformed ({_plain(dmarc.reason)})"
    )


def _checks(evaluation: Evaluation) -> Iterator[str]:
    """Each check with its result; a pass that did not count says so."""
    spf = evaluation.spf
    named = f" for {_short(spf.domain)}" if spf.domain else ""
    yield f"SPF {spf.status}{named}" + (" is not aligned" if spf.usable else "")
    if not evaluation.dkim:
        yield "no DKIM signature"
    signatures = dict.fromkeys(
        (signature.status, signature.domain) for signature in evaluation.dkim
    )
    for status, domain in signatures:
        by = f" for {_short(domain)}" if domain else ""
        yield f"DKIM {status}{by}" + (" is not aligned" if status is DkimStatus.PASS else "")


def _short(domain: Domain) -> str:
    return shortened(domain.name)


def shortened(name: str) -> str:
    """A name as replies spell it out: the middle of a long one is left out."""
    return name if len(name) <= MAX_NAMED else f"{name[:30]}...{name[-(MAX_NAMED - 33) :]}"


def _plain(reason: str) -> str:
    return reason if _is_plain(reason) else "malformed"


def _is_plain(text: str) -> bool:
    return is_printable(text) and "%" not in text and len(text) <= 200
