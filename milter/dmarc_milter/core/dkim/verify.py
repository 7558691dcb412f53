"""Which signatures of a message are examined, and what each is worth (RFC 6376 6.1; docs/design.md,
Decisions, DKIM words)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from dmarc_milter.core.dkim import signature as signature_field
from dmarc_milter.core.dkim.header import MAY_CHANGE_MEANING, SignedHeaders
from dmarc_milter.core.dkim.key import Key
from dmarc_milter.core.dkim.keyring import KeyRing
from dmarc_milter.core.dkim.options import DkimOptions
from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dkim.signature import Signature
from dmarc_milter.core.mail.domain import Domain, is_special_use
from dmarc_milter.core.mail.message import BodyHash, Headers, Message
from dmarc_milter.core.quick_dataclass import quick_dataclass
from dmarc_milter.core.resolver import Missing, Question, Resolver

FIELD = b"dkim-signature"
BEST_FIRST = (DkimStatus.PASS, DkimStatus.POLICY, DkimStatus.FAIL, DkimStatus.PERMERROR)


@quick_dataclass(frozen=True, slots=True)
class Candidate:
    """One DKIM-Signature field and its position among all fields of the message."""

    position: int
    signature: Signature


@quick_dataclass(frozen=True, slots=True)
class DkimPlan:
    """What the header asks for, known before the body arrives."""

    examined: tuple[Candidate, ...] = ()
    """In the order of examination: those that could align first."""
    surplus: tuple[Candidate, ...] = ()
    """Beyond max_signatures."""
    body_hashes: frozenset[BodyHash] = frozenset()
    questions: tuple[Question, ...] = ()
    """The keys' names, each once."""


def prepare(
    headers: Headers, author_domains: Sequence[Domain], options: DkimOptions = DkimOptions()
) -> DkimPlan:
    """The signatures to examine. Identical copies count once (the topmost); junk comes last and
    cannot displace the others."""
    first_of: dict[bytes, int] = {}
    for position in headers.positions(FIELD):
        first_of.setdefault(headers.fields[position].value.strip(), position)
    candidates = [
        Candidate(position, signature_field.parse(headers.fields[position].value, options))
        for position in first_of.values()
    ]
    candidates.sort(key=lambda candidate: _distance(candidate.signature, author_domains))
    examined = tuple(candidates[: options.max_signatures])
    usable = [
        candidate.signature
        for candidate in examined
        if not candidate.signature.error and not headers.truncated
    ]
    return DkimPlan(
        examined,
        tuple(candidates[options.max_signatures :]),
        frozenset(signature.body for signature in usable),
        key_questions(signature.key_name for signature in usable),
    )


def key_questions(names: Iterable[str]) -> tuple[Question, ...]:
    """What is asked for these keys, each once."""
    return tuple(Question(name, "TXT") for name in dict.fromkeys(names) if not is_special_use(name))


def verify(
    message: Message,
    plan: DkimPlan,
    resolver: Resolver,
    options: DkimOptions = DkimOptions(),
    *,
    now: datetime,
) -> tuple[DkimResult, ...]:
    """A result for each distinct DKIM-Signature field, in the order of the fields. `now` is aware.
    Never raises.

    A header beyond the limits has one result even if no signature was seen: one may stand in what
    was not kept.
    """
    if message.headers.truncated and not plan.examined:
        return (DkimResult(DkimStatus.PERMERROR, None, reason="header too large"),)
    judge = Judge(message, KeyRing(resolver, options), options, now)
    results = {candidate.position: judge.result(candidate) for candidate in plan.examined}
    for candidate in plan.surplus:
        results[candidate.position] = _result(
            candidate.signature, DkimStatus.POLICY, "too many signatures"
        )
    return tuple(results[position] for position in sorted(results))


class Judge:
    """Judges the signatures of one message."""

    def __init__(
        self, message: Message, keys: KeyRing, options: DkimOptions, now: datetime
    ) -> None:
        self._message = message
        self.headers = SignedHeaders(message.headers)
        self._keys = keys
        self._options = options
        self._now = int(now.timestamp())

    def result(self, candidate: Candidate) -> DkimResult:
        """RFC 6376 6.1.1 to 6.1.3; what can be judged without DNS is judged first."""
        signature = candidate.signature
        flaw = self._flaw(signature)
        if flaw:
            unread = Missing("failure") if flaw[0] is DkimStatus.TEMPERROR else None
            return replace(_result(signature, *flaw), missing=unread)
        answer = self._keys.find(signature.key_name)
        if not answer.keys:
            result = _result(signature, answer.status, answer.reason)
            return replace(result, hopeless=bool(self._lack(signature)), missing=answer.missing)
        digest = self.headers.digest(
            signature.names, signature.header_mode, candidate.position, signature.unsigned
        )
        unsigned = self._unsigned(signature)
        results = [self._with_key(signature, key, digest, unsigned) for key in answer.keys]
        return min(results, key=lambda result: BEST_FIRST.index(result.status))

    def _flaw(self, signature: Signature) -> tuple[DkimStatus, str] | None:
        """What forbids a pass whatever the key says."""
        if self._message.headers.truncated:
            return DkimStatus.PERMERROR, "header too large"
        if signature.error:
            return DkimStatus.PERMERROR, signature.error
        skew, expires, signed_at = self._options.clock_skew, signature.expires, signature.signed_at
        if expires is not None and self._now > expires + skew:
            return DkimStatus.FAIL, "expired"
        if signed_at is not None and signed_at > self._now + skew:
            return DkimStatus.FAIL, "signed in the future"
        # As dkimpy: one From more than the signer listed is hashed too, so that an added author
        # breaks the signature.
        if self.headers.uncovered(signature.names, b"from"):
            return DkimStatus.FAIL, "unsigned From field"
        return self._body_flaw(signature)

    def _body_flaw(self, signature: Signature) -> tuple[DkimStatus, str] | None:
        body = self._message.body.get(signature.body)
        if body is None:
            return DkimStatus.TEMPERROR, "body not hashed"
        if signature.body.length is not None and signature.body.length > body.size:
            return DkimStatus.PERMERROR, "l= over the length of the body"
        return (
            None if signature.body_hash == body.digest else (DkimStatus.FAIL, "body hash differs")
        )

    def _with_key(
        self, signature: Signature, key: Key, digest: bytes, unsigned: tuple[str, ...]
    ) -> DkimResult:
        status, reason, testing = DkimStatus.PASS, "", False
        if key.algorithm != signature.algorithm:
            status, reason = DkimStatus.PERMERROR, "key type differs from a="
        elif key.same_domain and signature.identifier != signature.domain:
            status, reason = DkimStatus.PERMERROR, "key forbids subdomains in i="
        elif not key.verifies(signature.octets, digest):
            status, reason = DkimStatus.FAIL, "signature differs"
        elif lack := self._lack(signature):
            status, reason = DkimStatus.POLICY, lack
        elif key.testing:
            status, reason, testing = DkimStatus.POLICY, "key in testing", True
        return _result(
            signature, status, reason, testing=testing, key_bits=key.bits, unsigned=unsigned
        )

    def _lack(self, signature: Signature) -> str:
        """Why a signature that verifies does not count."""
        length = signature.body.length
        left = 0 if length is None else self._message.body[signature.body].size - length
        if left and not self._options.allow_body_length:
            return f"l= leaves {left} octets unsigned"
        for name in self._options.require_signed:
            if self.headers.uncovered(signature.names, name.encode()):
                return f"unsigned {name}"
        return ""

    def _unsigned(self, signature: Signature) -> tuple[str, ...]:
        unsigned = self.headers.unsigned(signature.names, MAY_CHANGE_MEANING)
        return tuple([name.decode("ascii") for name in unsigned])


def _distance(signature: Signature, author_domains: Sequence[Domain]) -> tuple[int, int]:
    """How far from aligning with an author: the smaller, the earlier a signature is examined."""
    if signature.error or signature.domain is None:
        return 2, 0
    signing = signature.domain
    if any(
        signing.is_at_or_below(author) or author.is_at_or_below(signing)
        for author in author_domains
    ):
        return 0, 0
    return 1, -max((_common_labels(signing, author) for author in author_domains), default=0)


def _common_labels(one: Domain, other: Domain) -> int:
    """How many right-most labels two names share: siblings align in relaxed mode."""
    count = 0
    for mine, theirs in zip(reversed(one.labels), reversed(other.labels), strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _result(
    signature: Signature,
    status: DkimStatus,
    reason: str,
    *,
    testing: bool = False,
    key_bits: int = 0,
    unsigned: tuple[str, ...] = (),
) -> DkimResult:
    given = signature.identifier if signature.identifier_given else None
    return DkimResult(
        status,
        signature.domain,
        selector=signature.selector,
        algorithm=signature.algorithm,
        identifier=given.name if given else "",
        signature=signature.text,
        reason=reason,
        testing=testing,
        key_bits=key_bits,
        unsigned_headers=unsigned,
    )
