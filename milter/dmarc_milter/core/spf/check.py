"""SPF (RFC 7208) by pyspf, fed with our resolver and fenced against its defects.

`check` is the whole interface; `questions` names what can be looked up ahead of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Literal, NamedTuple

from dmarc_milter.core.mail import domain as domains
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.ip_address import plain_address
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.quick_dataclass import quick_dataclass
from dmarc_milter.core.resolver import Kept, Missing, Question, Resolver, derive, knows, recall
from dmarc_milter.core.spf.options import SpfOptions
from dmarc_milter.core.spf.query import Query, QueryRefused, Sender
from dmarc_milter.core.text import visible

__all__ = [
    "EarlierSpf",
    "SpfOptions",
    "SpfResult",
    "SpfStatus",
    "check",
    "is_known",
    "questions",
    "recalled",
    "upgraded",
]

MAX_MECHANISM = 200
"""Bytes of SpfResult.mechanism."""
PYSPF_REASONS = {
    "No valid SPF record for included domain": "include of a domain without SPF record",
    "redirect domain has no SPF record": "redirect to a domain without SPF record",
    "include has trivial recursion": "include of itself",
}
"""pyspf's messages that carry the sender's text, by their beginnings."""


class SpfStatus(StrEnum):
    """RFC 7208 2.6; POLICY is RFC 8601 2.7.2's: a pass that local policy does not let count."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"
    POLICY = "policy"


@quick_dataclass(frozen=True, slots=True)
class SpfResult:
    """`domain` is what was checked: MAIL FROM's, or with a null reverse-path HELO's (RFC 7208 2.4);
    None if neither is a name."""

    status: SpfStatus
    domain: Domain | None
    identity: Literal["mailfrom", "helo"] = "mailfrom"
    reason: str = ""
    """Fixed vocabulary; for the log and `check`."""
    mechanism: str = ""
    """The term that decided, e.g. "ip4:192.0.2.0/24", after those that led there:
    "include:spf.example > ip4:192.0.2.0/24" (printable ASCII, at most 200 octets); for `check`."""
    record: str = ""
    """The record at `domain` (printable ASCII or ""), for failure reports' SPF-DNS and `check`."""
    lookups: int = 0
    """Terms evaluated that look something up (RFC 7208 4.6.4)."""
    permissive: bool = False
    """The pass came from +all or an enormous range (docs/attacks.md BSP-01)."""
    upgrade: bool = False
    """The pass came about on the way: an earlier hop had seen something else (`upgraded`)."""
    missing: Missing | None = None
    """With temperror: the answer that could not be had."""

    @property
    def usable(self) -> bool:
        """Whether this gives DMARC an authenticated identifier."""
        return self.status is SpfStatus.PASS and self.domain is not None


class EarlierSpf(NamedTuple):
    """What an earlier hop's Authentication-Results say of SPF: evidence, and only from a chain that
    verified (RFC 8617)."""

    status: str
    """Lower case, as RFC 8601 2.7.2."""
    domain: Domain | None
    """smtp.mailfrom's domain."""


def check(envelope: Envelope, resolver: Resolver, options: SpfOptions = SpfOptions()) -> SpfResult:
    """SPF of MAIL FROM, or of postmaster@HELO for the null sender. Never raises.

    At most `options.queries` questions (112 with the defaults) and `options.seconds` seconds. A
    record that asks for more questions is a permerror, running out of time a temperror (RFC 7208
    4.6.4).
    """
    identity = _identity(envelope)
    known = _without_looking(envelope, identity)
    if known is not None:
        return known
    result: SpfResult = derive(
        resolver,
        _key(envelope, identity, options),
        lambda scope: _look_up(envelope, identity, scope, options),
    )
    return result


def recalled(
    envelope: Envelope, resolver: Resolver, options: SpfOptions = SpfOptions()
) -> SpfResult | None:
    """What `check` would give, where that is known at once: the same client and domain were checked
    lately."""
    identity = _identity(envelope)
    known: SpfResult | None = _without_looking(envelope, identity) or recall(
        resolver, _key(envelope, identity, options)
    )
    return known


def is_known(envelope: Envelope, resolver: Resolver, options: SpfOptions = SpfOptions()) -> bool:
    """Whether `check` would ask nothing."""
    identity = _identity(envelope)
    if _without_looking(envelope, identity) is not None:
        return True
    return knows(resolver, _key(envelope, identity, options))


def _key(envelope: Envelope, identity: _Identity, options: SpfOptions) -> Hashable:
    """What a result depends on besides the DNS, as long as no macro asks for more
    (Query.personal)."""
    # Texts, since an address or a Domain computes its hash each time.
    assert envelope.source_ip is not None
    assert identity.domain is not None
    return ("spf", envelope.source_ip.packed, identity.domain.name, identity.name, options)


def _without_looking(envelope: Envelope, identity: _Identity) -> SpfResult | None:
    """The result where there is nothing to look up."""
    if envelope.source_ip is None or not envelope.source_known:
        return SpfResult(SpfStatus.NONE, identity.domain, identity.name, "client address not known")
    if identity.domain is None or identity.refused:
        return SpfResult(SpfStatus.NONE, identity.domain, identity.name, identity.refused)
    return None


def _look_up(
    envelope: Envelope, identity: _Identity, resolver: Resolver, options: SpfOptions
) -> Kept:
    assert envelope.source_ip is not None
    assert identity.domain is not None
    local_part = envelope.mail_from.local_part if identity.name == "mailfrom" else ""
    sender = Sender(
        plain_address(envelope.source_ip),
        local_part or "postmaster",
        identity.domain.name,
        envelope.helo,
    )
    query = Query(sender, resolver, options)
    result = _result(query, identity, options)
    lasting = not (query.personal or _is_short(query) or result.status is SpfStatus.TEMPERROR)
    return Kept(result, keep=lasting, size=800 + len(result.record))


def _is_short(query: Query) -> bool:
    """Whether we were too busy to look something up."""
    return query.missing is not None and query.missing.kind == "shortage"


def _result(query: Query, identity: _Identity, options: SpfOptions) -> SpfResult:
    status, reason = _evaluate(query)
    if _is_short(query) and status is not SpfStatus.PASS:
        # Where it is ours, "no match" (RFC 7208 5.5) must not become a failure.
        status, reason = SpfStatus.TEMPERROR, "too busy to look it up"
    result = SpfResult(
        status,
        identity.domain,
        identity.name,
        reason,
        mechanism=" > ".join(query.path)[:MAX_MECHANISM],
        record=_shown(query.record or b"", options.max_record),
        lookups=query.lookups,
        permissive=status is SpfStatus.PASS and query.permissive,
        missing=query.missing if status is SpfStatus.TEMPERROR else None,
    )
    if result.permissive and not options.permissive_counts:
        return replace(result, status=SpfStatus.POLICY, reason="permissive record")
    return result


def not_evaluated(envelope: Envelope, reason: str) -> SpfResult:
    """What stands for `check` where its work is refused: temperror for the identity that it would
    have checked."""
    identity = _identity(envelope)
    unknown = (
        identity.domain is None
        or identity.refused
        or envelope.source_ip is None
        or not envelope.source_known
    )
    if unknown:
        return SpfResult(SpfStatus.NONE, identity.domain, identity.name, reason)
    return SpfResult(
        SpfStatus.TEMPERROR, identity.domain, identity.name, reason, missing=Missing("failure")
    )


def questions(envelope: Envelope) -> tuple[Question, ...]:
    """What `check` asks first, known at MAIL FROM."""
    identity = _identity(envelope)
    if (
        identity.refused
        or identity.domain is None
        or envelope.source_ip is None
        or not envelope.source_known
    ):
        return ()
    return (Question(identity.domain.name, "TXT"),)


def upgraded(
    result: SpfResult, earlier: Iterable[EarlierSpf], options: SpfOptions = SpfOptions()
) -> SpfResult:
    """The result, noticed as an upgrade if a hop before us had seen the same MAIL FROM domain
    without a pass.

    Then the forwarder's own hosts gave the pass, as when sender and forwarder share a provider that
    every customer's record includes.
    """
    if result.status not in (SpfStatus.PASS, SpfStatus.POLICY) or result.identity != "mailfrom":
        return result
    if not any(hop.domain == result.domain and hop.status != "pass" for hop in earlier):
        return result
    if options.upgrade_counts:
        return replace(result, upgrade=True)
    return replace(
        result, upgrade=True, status=SpfStatus.POLICY, reason="passed only after forwarding"
    )


class _Identity(NamedTuple):
    """Whose SPF is checked; `refused` says why it cannot be (RFC 7208 4.3: none)."""

    domain: Domain | None
    name: Literal["mailfrom", "helo"]
    refused: str = ""


def _identity(envelope: Envelope) -> _Identity:
    """RFC 7208 2.4: MAIL FROM, or postmaster@HELO when it is null."""
    if not envelope.mail_from.is_null:
        return _refuse_single_label(
            _Identity(envelope.mail_from.domain, "mailfrom", envelope.mail_from.malformed)
        )
    # EHLO's argument is in A-labels even in internationalized mail (RFC 6531 3.7.1).
    helo = domains.parse(envelope.helo) if envelope.helo.isascii() else None
    if isinstance(helo, Domain):
        return _refuse_single_label(_Identity(helo, "helo"))
    return _Identity(None, "helo", "HELO is not a domain name")


def _refuse_single_label(identity: _Identity) -> _Identity:
    """RFC 7208 4.3 wants two labels; all else that it asks for is true of a Domain."""
    name = identity.domain.name if identity.domain is not None else ""
    if name and domains.is_special_use(name):
        return identity._replace(refused="special-use name")
    if name and "." not in name:
        return identity._replace(refused="single label")
    return identity


def _evaluate(query: Query) -> tuple[SpfStatus, str]:
    """pyspf's result, and why. What it raises besides its own errors is mapped: odd data to
    permerror, input and output to temperror. With checked records none of it has been seen."""
    try:
        word, _, _ = query.check()
    except (ValueError, ArithmeticError, AssertionError, LookupError, RecursionError):
        return SpfStatus.PERMERROR, "record cannot be evaluated"
    except OSError:
        return SpfStatus.TEMPERROR, "DNS look-up failed"
    status = SpfStatus(word)
    if status in (SpfStatus.PERMERROR, SpfStatus.TEMPERROR):
        return status, _reason(query)
    if status is SpfStatus.NONE:
        return status, "no SPF record"
    return status, "" if query.path else "nothing matched"


def _reason(query: Query) -> str:
    """Ours as it is; pyspf's own by what it begins with, since it goes on with the sender's
    text."""
    if query.perm_error is None or isinstance(query.perm_error, QueryRefused):
        return str(query.prob)
    beginnings = (
        reason for beginning, reason in PYSPF_REASONS.items() if query.prob.startswith(beginning)
    )
    return next(beginnings, "record cannot be evaluated")


def _shown(record: bytes, limit: int) -> str:
    """For output: nothing at all of a record that is too long."""
    return visible(record) if len(record) <= limit else ""
