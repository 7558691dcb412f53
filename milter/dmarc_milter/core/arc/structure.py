"""The structure of a chain: complete sets without a gap, and what they ask the DNS for, known
before the body arrives (RFC 8617 4.1, 4.2, 5.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dmarc_milter.core import budget
from dmarc_milter.core.dkim import DkimOptions, tags
from dmarc_milter.core.dkim import signature as signature_field
from dmarc_milter.core.dkim.signature import Signature, TagReader
from dmarc_milter.core.dkim.verify import Candidate, key_questions
from dmarc_milter.core.mail.domain import Malformed
from dmarc_milter.core.mail.message import BodyHash, Headers
from dmarc_milter.core.quick_dataclass import quick_dataclass
from dmarc_milter.core.resolver import Question

RESULTS = b"arc-authentication-results"
MESSAGE_SIGNATURE = b"arc-message-signature"
SEAL = b"arc-seal"
MAX_OLDER_NAMES = 2000
"""Names in h= of all older message signatures together, beyond which oldest-pass is not determined:
it is optional."""


@dataclass(frozen=True, slots=True)
class ArcOptions:
    enabled: bool = True
    max_instances: int = budget.ARC_INSTANCES
    """RFC 8617 4.2.1."""
    max_lookups: int = budget.ARC_LOOKUPS
    """Different keys looked up for one message; a chain that needs more is not valid."""
    dkim: DkimOptions = DkimOptions()
    """Limits of keys, fields and clocks."""


@dataclass(frozen=True, slots=True)
class ArcSet:
    """One instance: where its three fields stand among all fields of the message, and what two of
    them say."""

    instance: int
    results: int
    message: Candidate
    seal: Candidate
    verdict: str
    """cv="""


@quick_dataclass(frozen=True, slots=True)
class ArcPlan:
    """What the header asks for, known before the body arrives."""

    sets: tuple[ArcSet, ...] = ()
    """Instance 1 first; empty when there is no chain or `failure` says what is wrong with it."""
    failure: str = ""
    body_hashes: frozenset[BodyHash] = frozenset()
    questions: tuple[Question, ...] = ()
    all_messages: bool = False
    """Whether every ARC-Message-Signature is worth its look-ups and its time, not only the
    newest."""


def prepare(headers: Headers, options: ArcOptions = ArcOptions()) -> ArcPlan:
    """The structure of the chain, judged before any look-up (RFC 8617 5.2, steps 1 to 3, and the
    syntax of what 4 and 6 verify)."""
    positions = [headers.positions(name) for name in (RESULTS, MESSAGE_SIGNATURE, SEAL)]
    if not options.enabled or not any(positions):
        return ArcPlan()
    if headers.truncated:
        return ArcPlan(failure="header too large")
    if max(map(len, positions)) > options.max_instances:
        return ArcPlan(failure="too many instances")
    sets = _sets(headers, positions, options)
    if isinstance(sets, Malformed):
        return ArcPlan(failure=sets.reason)
    return _look_ups(sets, options)


def _look_ups(sets: tuple[ArcSet, ...], options: ArcOptions) -> ArcPlan:
    """The keys and body hashes that a chain of sound structure asks for."""
    seals = [arc_set.seal.signature.key_name for arc_set in reversed(sets)]
    needed = dict.fromkeys([sets[-1].message.signature.key_name, *seals])
    older = [arc_set.message.signature for arc_set in sets[:-1]]
    every = needed | dict.fromkeys(signature.key_name for signature in older if not signature.error)
    if len(needed) > options.max_lookups:
        return ArcPlan(failure="too many keys")
    all_messages = (
        len(every) <= options.max_lookups
        and sum(len(signature.names) for signature in older) <= MAX_OLDER_NAMES
    )
    hashed = [sets[-1].message.signature, *(older if all_messages else ())]
    return ArcPlan(
        sets,
        body_hashes=frozenset(signature.body for signature in hashed if not signature.error),
        questions=key_questions(every if all_messages else needed),
        all_messages=all_messages,
    )


def _sets(
    headers: Headers, positions: Iterable[Sequence[int]], options: ArcOptions
) -> tuple[ArcSet, ...] | Malformed:
    """The sets by instance, 1 first: each complete, none twice, none missing, each cv= as it must
    be."""
    found: list[dict[int, int]] = []
    for places in positions:
        instances = _by_instance(headers, places, options)
        if isinstance(instances, Malformed):
            return instances
        if sorted(instances) != list(range(1, len(instances) + 1)):
            return Malformed("instances not continuous")
        found.append(instances)
    results, messages, seals = found
    if not len(results) == len(messages) == len(seals):
        return Malformed("incomplete set")
    sets = tuple(
        _set(headers, number, (results[number], messages[number], seals[number]), options)
        for number in sorted(seals)
    )
    flaw = next(
        (
            arc_set.seal.signature.error
            for arc_set in reversed(sets)
            if arc_set.seal.signature.error
        ),
        "",
    ) or _verdict_flaw(sets)
    newest = sets[-1].message.signature
    return Malformed(flaw or newest.error) if flaw or newest.error else sets


def _by_instance(
    headers: Headers, positions: Sequence[int], options: ArcOptions
) -> dict[int, int] | Malformed:
    """Where the field of each instance stands."""
    found: dict[int, int] = {}
    for position in positions:
        name, value = headers.fields[position]
        instance = (
            _results_instance(value)
            if name.lower() == RESULTS
            else _tagged_instance(value, options)
        )
        if instance is None or instance > options.max_instances:
            return Malformed("instance not valid")
        if instance in found:
            return Malformed("instance repeated")
        found[instance] = position
    return found


def _tagged_instance(value: bytes, options: ArcOptions) -> int | None:
    """i= of a tag list, wherever it stands (RFC 8617 4.1.2, 4.1.3)."""
    listed = (
        tags.parse(value) if len(value) <= options.dkim.max_field else Malformed("field too long")
    )
    return None if isinstance(listed, Malformed) else _position(listed.values.get(b"i", b""))


def _results_instance(value: bytes) -> int | None:
    """The i= with which ARC-Authentication-Results begins, up to its semicolon (RFC 8617 4.1.1)."""
    # arc-info = [CFWS] "i" [CFWS] "=" [CFWS] position [CFWS] ";" authres-payload
    head = _without_comments(value[:1024]).partition(b";")
    name, equals, number = head[0].partition(b"=")
    if not head[1] or not equals or name.strip(tags.FWS) != b"i":
        return None
    return _position(number.strip(tags.FWS))


def _without_comments(text: bytes) -> bytes:
    """The text with each comment, nested or not, as a space (RFC 5322 3.2.2); what follows an open
    one is lost."""
    kept = bytearray()
    depth = escaped = 0
    for octet in text:
        if escaped or (depth and octet == 0x5C):
            escaped = not escaped
        elif octet == 0x28:
            depth += 1
            kept += b" "
        elif octet == 0x29 and depth:
            depth -= 1
        elif not depth:
            kept.append(octet)
    return bytes(kept)


def _position(text: bytes) -> int | None:
    """position = 1*2DIGIT, 1 to 50 (RFC 8617 4.2.1), without a leading zero."""
    if not text or len(text) > 2 or text.translate(None, tags.DIGITS) or text.startswith(b"0"):
        return None
    return int(text)


def _set(
    headers: Headers, instance: int, positions: tuple[int, int, int], options: ArcOptions
) -> ArcSet:
    results, message, seal = positions
    signature = signature_field.parse(headers.fields[message].value, options.dkim, of_arc=True)
    if SEAL in signature.names:  # RFC 8617 4.1.2. Many sealers do sign ARC-Authentication-Results.
        signature = replace(signature, error="h= names ARC-Seal")
    sealed, verdict = _seal(headers.fields[seal].value, options)
    return ArcSet(
        instance, results, Candidate(message, signature), Candidate(seal, sealed), verdict
    )


def _seal(value: bytes, options: ArcOptions) -> tuple[Signature, str]:
    """An ARC-Seal and its cv= (RFC 8617 4.1.3). It has been listed once, so it is short enough and
    a tag list."""
    listed = tags.parse(value)
    if isinstance(listed, Malformed):
        return Signature(error=listed.reason), ""
    reader = TagReader(listed, options.dkim)
    algorithm = reader.algorithm()
    sealer = reader.domain()
    selector = reader.selector(sealer)
    octets = reader.base64(b"b")
    reader.times()
    verdict = reader.text(b"cv").decode("ascii", "replace")
    if b"h" in listed.values:
        reader.refuse("ARC-Seal has h=")
    unsigned = signature_field.emptied(value, listed)
    return (
        Signature(reader.error, sealer, selector, algorithm, octets=octets, unsigned=unsigned),
        verdict,
    )


def _verdict_flaw(sets: Sequence[ArcSet]) -> str:
    """RFC 8617 5.2, steps 2 and 3."""
    if sets[-1].verdict == "fail":
        return "sealed as failed"
    for arc_set in sets:
        if arc_set.verdict != ("none" if arc_set.instance == 1 else "pass"):
            return "cv= not valid"
    return ""
