"""What of a message's facts goes into an aggregate report: which report, which row, and whether it
is reason enough to send one.

Raw still: RFC 9990 and RFC 7489 differ in words, not in what happened. Rows that encode alike are
one row with a greater count.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

import msgspec

from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.stored import (
    DkimFact,
    Facts,
    SpfFact,
    StoredOutcome,
    StoredPolicy,
    StoredReason,
    is_pass,
)
from dmarc_milter.core.stored.facts import Fact

DAY = 86400
HOUR = 3600
INVALID = "invalid"
"""Stands for a name that is none (RFC 2606 2); many readers drop a report that leaves it out."""
MAX_ERRORS = 10
"""Different errors that are remembered of one policy."""


class Row(Fact, frozen=True, omit_defaults=True, kw_only=True):
    """One distinct record of a report: RFC 9990 3, RFC 7489 Appendix C without the count. `dkim`
    and `spf` are the DMARC (aligned) results."""

    source_ip: str
    header_from: str
    disposition: str = "none"
    dkim_aligned: bool = False
    spf_aligned: bool = False
    policy: str = "none"
    """p, sp or np as it applied to this author domain, before t and pct: with `disposition` it
    tells whether a reason is due."""
    reasons: tuple[StoredReason, ...] = ()
    envelope_from: str | None = None
    """"" for the null sender; None when it was not a domain name."""
    envelope_to: str | None = None
    """None unless all recipients shared one domain: a message is counted once (RFC 9989 5.3)."""
    auth_dkim: tuple[DkimFact, ...] = ()
    """In the priority of RFC 9990 3.1.3; a signature without a readable d= cannot be reported and
    is not here."""
    auth_spf: SpfFact | None = None


class Period(NamedTuple):
    """Seconds since 1970; `end` is the first second after it."""

    begin: int
    end: int


def period(at: float, ri: int | None = None, *, honor_ri: bool = False) -> Period:
    """The reporting period of a moment: its UTC day, or where `ri` is honoured a whole part of the
    day, one hour at least."""
    length = DAY
    if honor_ri and ri is not None and ri < DAY:
        length = HOUR * max(
            hours for hours in (1, 2, 3, 4, 6, 8, 12) if hours == 1 or hours * HOUR <= ri
        )
    begin = int(at // length) * length
    return Period(begin, begin + length)


def configuration(published: StoredPolicy, identity: str = "") -> str:
    """The name of a policy configuration: two records that say the same, however they are spelled,
    are one (32 hex digits). Reports in the name of another `identity` are others.

    What was wrong on the way to the record is no part of it: that differs from one author domain to
    the next (RFC 9990 3.1.1).
    """
    plain = msgspec.msgpack.encode(msgspec.structs.replace(published, text="", errors=()))
    return sha256(plain + identity.encode()).hexdigest()[:32]


def with_errors(published: StoredPolicy, errors: tuple[str, ...]) -> StoredPolicy:
    """The policy with further errors told, each once and at most MAX_ERRORS; itself when it tells
    them all."""
    told = tuple(dict.fromkeys((*published.errors, *errors)))[:MAX_ERRORS]
    return (
        published if told == published.errors else msgspec.structs.replace(published, errors=told)
    )


def published_of(facts: Facts) -> StoredPolicy | None:
    """The policy whose owner gets a report of this message; None when nobody does: RFC 9989 5.3,
    and docs/design.md, Reports, on loops."""
    if not facts.counted or facts.to_reporting or not facts.source_ip or facts.outcome is None:
        return None
    published = facts.outcome.published
    return published if published is not None and published.rua else None


def row_of(facts: Facts, outcome: StoredOutcome) -> Row:
    """The row that counts this message."""
    reasons = facts.reasons
    if facts.status == DmarcStatus.TEMPERROR and not reasons:
        reasons = (StoredReason("other", "dns error"),)  # no policy
    return Row(
        source_ip=facts.source_ip,
        header_from=outcome.author_domain,
        disposition=facts.disposition,
        dkim_aligned=outcome.dkim_aligned,
        spf_aligned=outcome.spf_aligned,
        policy=outcome.policy,
        reasons=reasons,
        envelope_from=facts.envelope_from,
        envelope_to=facts.envelope_to[0] if len(facts.envelope_to) == 1 else None,
        auth_dkim=tuple(
            DkimFact(
                signature.result,
                signature.domain,
                signature.selector,
                signature.reason,
                signature.aligned,
            )
            for signature in facts.dkim
            if signature.domain
        ),
        auth_spf=_checked(facts.spf) if facts.spf else None,
    )


def _checked(spf: SpfFact) -> SpfFact:
    """What SPF checked, and its result. Without a name to check that is `none` (RFC 7208 4.3) of
    the address literal that stood there (2.4), or of `invalid`: never of the sender's own text."""
    if spf.domain:
        return SpfFact(spf.result, spf.domain, reason=spf.reason)
    return SpfFact("none", spf.literal or INVALID)


def is_reportable(facts: Facts) -> bool:
    """Whether this message alone is a reason to send a report. Automatic mail that passes is not,
    or two reporters would report on each other's reports forever."""
    automatic = facts.is_report or facts.is_dsn or facts.auto_submitted or facts.from_reporting
    return not (automatic and is_pass(facts))


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Row)
_PUBLISHED = msgspec.msgpack.Decoder(StoredPolicy)


def encode_row(row: Row) -> bytes:
    """The stored form, the same bytes for the same row."""
    return _ENCODER.encode(row)


def decode_row(data: bytes) -> Row:
    """Raises msgspec.ValidationError or DecodeError for anything but a stored row."""
    return _DECODER.decode(data)


def encode_published(published: StoredPolicy) -> bytes:
    return _ENCODER.encode(published)


def decode_published(data: bytes) -> StoredPolicy:
    """Raises msgspec.ValidationError or DecodeError for anything but a stored policy."""
    return _PUBLISHED.decode(data)
