"""ARC chains (RFC 8617), judged with the keys, tags and canonicalization of `dkim`.

dkimpy's own ARC class is not used: it raises IndexError unless i= is spelled ` i=1;`, verifies
every signature and canonicalizes the body anew for each, has no limit on instances, and asks DNS
before the structure is known to be sound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from dmarc_milter.core.arc.result import ArcHop, ArcResult, ArcStatus
from dmarc_milter.core.arc.structure import ArcOptions, ArcPlan, ArcSet
from dmarc_milter.core.authres import evidence
from dmarc_milter.core.dkim import DkimStatus
from dmarc_milter.core.dkim.keyring import KeyRing
from dmarc_milter.core.dkim.verify import Judge
from dmarc_milter.core.mail.message import Message
from dmarc_milter.core.resolver import Resolver


def validate(
    message: Message,
    plan: ArcPlan,
    resolver: Resolver,
    options: ArcOptions = ArcOptions(),
    *,
    now: datetime,
) -> ArcResult:
    """RFC 8617 5.2; every failure is final, that of the DNS too. `now` is aware. Never raises."""
    if plan.failure:
        return ArcResult(ArcStatus.FAIL, reason=plan.failure)
    if not plan.sets:
        return ArcResult(ArcStatus.NONE)
    keys = KeyRing(resolver, options.dkim)
    judge = Judge(message, keys, replace(options.dkim, require_signed=()), now)
    flaw = _message_flaw(judge, plan.sets[-1]) or _seals_flaw(judge, keys, plan.sets)
    if flaw:
        return ArcResult(ArcStatus.FAIL, reason=flaw, missing=keys.missing)
    return ArcResult(
        ArcStatus.PASS,
        tuple(
            _hop(arc_set, message.headers.fields[arc_set.results].value) for arc_set in plan.sets
        ),
        _oldest_pass(judge, plan.sets) if plan.all_messages else None,
    )


def _message_flaw(judge: Judge, arc_set: ArcSet) -> str:
    """What is wrong with an ARC-Message-Signature, judged as a DKIM signature; a key in testing
    will do."""
    result = judge.result(arc_set.message)
    return (
        ""
        if result.status is DkimStatus.PASS or result.testing
        else f"message signature: {result.reason}"
    )


def _seals_flaw(judge: Judge, keys: KeyRing, sets: Sequence[ArcSet]) -> str:
    """What is wrong with the newest ARC-Seal that does not verify."""
    digests = _seal_digests(judge, sets)
    for arc_set, digest in zip(reversed(sets), reversed(digests), strict=True):
        signature = arc_set.seal.signature
        answer = keys.find(signature.key_name)
        usable = [key for key in answer.keys if key.algorithm == signature.algorithm]
        if not any(key.verifies(signature.octets, digest) for key in usable):
            why = "signature differs" if usable else "key type differs from a="
            return f"seal: {answer.reason or why}"
    return ""


def _seal_digests(judge: Judge, sets: Sequence[ArcSet]) -> list[bytes]:
    """What each seal signs: all sets up to its own, relaxed, its own b= empty and without CRLF (RFC
    8617 5.1.1), in one pass."""
    digests = []
    hasher = hashlib.sha256()
    for arc_set in sets:
        for position in (arc_set.results, arc_set.message.position):
            hasher.update(judge.headers.canonical(position, "relaxed"))
        own = hasher.copy()
        own.update(
            judge.headers.emptied(arc_set.seal.position, arc_set.seal.signature.unsigned, "relaxed")
        )
        digests.append(own.digest())
        hasher.update(judge.headers.canonical(arc_set.seal.position, "relaxed"))
    return digests


def _oldest_pass(judge: Judge, sets: Sequence[ArcSet]) -> int:
    """RFC 8617 5.2, step 5: the lowest instance from which on all message signatures verify; 0 when
    all do."""
    oldest = sets[-1].instance
    for arc_set in reversed(sets[:-1]):
        if _message_flaw(judge, arc_set):
            return oldest
        oldest = arc_set.instance
    return 0


def _hop(arc_set: ArcSet, value: bytes) -> ArcHop:
    """A set as evidence: who sealed it, and what its ARC-Authentication-Results say."""
    signature = arc_set.seal.signature
    assert signature.domain
    said = evidence.read(value)
    return ArcHop(
        arc_set.instance,
        signature.domain,
        signature.selector,
        aar_dmarc=said.dmarc,
        aar_header_from=said.header_from,
        aar_remote_ip=said.remote_ip,
        aar_spf=said.spf,
        aar_mail_from=said.mail_from,
    )
