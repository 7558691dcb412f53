"""Who probably stands behind mail that fails DMARC: lists, forwarders and sending services, named
by what they prove, never by a claim.

A List-Id is a claim that anybody can make; a DKIM or SPF pass, an ARC seal or a name that resolves
back is a proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from dmarc_milter.core.stored import Facts
from dmarc_milter.core.toml import quoted

Method = Literal["dkim", "arc", "spf", "ptr"]
METHODS: tuple[Method, ...] = ("dkim", "arc", "spf", "ptr")
"""The best proof first."""
MAX_AUTHORS = 5
"""A suggested rule names the From domains when they are not more."""


class Identity(NamedTuple):
    """A name that the sender proved to be entitled to, though it is not the author's."""

    method: Method
    domain: str


class Kind(StrEnum):
    """What a source looks like."""

    MAILING_LIST = "mailing list"
    FORWARDER = "forwarder"
    OTHER = "another domain"
    UNPROVEN = "nobody proven"


NOT_NOTED = "not noted"
"""Mail that passed, and totals of a time before kinds were noted."""


class SenderGroup(NamedTuple):
    """One source's mail of one author domain: how much there was, and some of it."""

    author_domain: str
    source_ip: str
    messages: int
    facts: tuple[Facts, ...]


@dataclass(frozen=True, slots=True)
class ProbableSender:
    """One probable sender: the clients that share what they prove, or a single client."""

    kind: Kind
    identity: Identity | None
    list_id: str
    """"" unless the messages claim one."""
    addresses: tuple[str, ...]
    author_domains: tuple[str, ...]
    """Most messages first."""
    messages: int
    evidence: str
    """One sentence."""
    rule: str
    """A [[policy.rules]] entry that would deliver this mail, as TOML; "" unless it is a list's or
    comes in an ARC chain: a forger with a domain of its own proves as much by SPF and DKIM."""


def identities(facts: Facts) -> Iterator[Identity]:
    """What one message proved besides its author domain."""
    for signature in facts.dkim:
        if signature.result == "pass" and not signature.aligned and signature.domain:
            yield Identity("dkim", signature.domain)
    if facts.arc is not None and facts.arc.status == "pass" and facts.arc.sealers:
        yield Identity("arc", facts.arc.sealers[-1])
    aligned = facts.outcome is not None and facts.outcome.spf_aligned
    if facts.spf is not None and facts.spf.result == "pass" and facts.spf.domain and not aligned:
        yield Identity("spf", facts.spf.domain)
    for name in facts.names[:1]:
        yield Identity("ptr", name)


def kind_of(facts: Facts) -> Kind:
    """What the sender of one message looks like, by the best that it proved."""
    return _kind(_usual_identity((facts,)), facts.list_id, (facts.author_domain,))


def source_kind(facts: Facts) -> str:
    """As the totals have it: mail that passed is of its author domain, and has no kind."""
    return NOT_NOTED if facts.status == "pass" else kind_of(facts).value


def sources(samples: Iterable[SenderGroup]) -> tuple[ProbableSender, ...]:
    """Samples put together by what they prove, else by client; most messages first."""
    groups: dict[tuple[str, str], list[tuple[SenderGroup, Identity | None]]] = {}
    for sample in samples:
        proven = _usual_identity(sample.facts)
        key = (
            proven
            if proven is not None and proven.method != "ptr"
            else ("client", sample.source_ip)
        )
        groups.setdefault(key, []).append((sample, proven))
    found = [
        _source(
            [sample for sample, _ in group],
            next((identity for _, identity in group if identity), None),
        )
        for group in groups.values()
    ]
    return tuple(sorted(found, key=lambda source: (-source.messages, source.addresses)))


def _usual_identity(facts: Sequence[Facts]) -> Identity | None:
    """What at least half of the messages prove, by the best method; of several signers the one with
    the longest name."""
    if not facts:
        return None
    numbers = Counter(identity for message in facts for identity in set(identities(message)))
    usual = [identity for identity, number in numbers.items() if 2 * number >= len(facts)]
    return min(
        usual,
        key=lambda identity: (
            METHODS.index(identity.method),
            -numbers[identity],
            -len(identity.domain),
            identity.domain,
        ),
        default=None,
    )


def _source(samples: list[SenderGroup], identity: Identity | None) -> ProbableSender:
    list_id = _usual_list([message for sample in samples for message in sample.facts])
    authors: dict[str, int] = {}
    for sample in samples:
        authors[sample.author_domain] = authors.get(sample.author_domain, 0) + sample.messages
    names = tuple(sorted(authors, key=authors.__getitem__, reverse=True))
    kind = _kind(identity, list_id, names)
    suggested = identity is not None and (kind is Kind.MAILING_LIST or identity.method == "arc")
    return ProbableSender(
        kind=kind,
        identity=identity,
        list_id=list_id,
        addresses=tuple(dict.fromkeys(sample.source_ip for sample in samples)),
        author_domains=names,
        messages=sum(authors.values()),
        evidence=_sentence(kind, identity, list_id, names),
        rule=_rule(kind, identity, list_id, names) if identity and suggested else "",
    )


def _usual_list(facts: Sequence[Facts]) -> str:
    """The List-Id that at least half of the messages claim, or ""."""
    lists = Counter(message.list_id for message in facts if message.list_id) if facts else None
    return lists.most_common(1)[0][0] if lists and 2 * lists.total() >= len(facts) else ""


def _kind(identity: Identity | None, list_id: str, authors: Sequence[str]) -> Kind:
    if identity is None:
        return Kind.UNPROVEN
    if list_id and identity.method != "ptr":
        return Kind.MAILING_LIST
    return Kind.FORWARDER if identity.method == "arc" or len(authors) > 1 else Kind.OTHER


def _sentence(kind: Kind, identity: Identity | None, list_id: str, authors: Sequence[str]) -> str:
    if identity is None:
        return (
            f"claims to be the list {list_id} and proves nothing"
            if list_id
            else "proves no identity of its own: a forgery, or broken on the way"
        )
    proof = {
        "dkim": f"signed by {identity.domain}",
        "arc": f"in an ARC chain sealed last by {identity.domain}",
        "spf": f"SPF passes for {identity.domain}",
        "ptr": f"its name {identity.domain} resolves back to it",
    }[identity.method]
    match kind:
        case Kind.MAILING_LIST:
            return f"posts of the list {list_id}, {proof}"
        case Kind.FORWARDER:
            return f"mail of {_some(authors)}, {proof}"
        case _:
            return f"sends for {_some(authors)}, {proof}, which does not align"


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} domains"


def _rule(kind: Kind, identity: Identity, list_id: str, authors: Sequence[str]) -> str:
    """The narrowest rule that delivers this mail. A shared signer signs for strangers too, so From
    domains are named where they are few."""
    reason = "mailing_list" if kind is Kind.MAILING_LIST else "trusted_forwarder"
    comment = f"list {list_id}" if kind is Kind.MAILING_LIST else f"{kind} {identity.domain}"
    lines = [
        "[[policy.rules]]",
        'action = "accept"',
        f"{identity.method} = [{quoted(identity.domain)}]",
    ]
    if kind is not Kind.MAILING_LIST and len(authors) <= MAX_AUTHORS:
        lines.append(f"author_domains = [{', '.join(map(quoted, authors))}]")
    return "\n".join((*lines, f"reason = {quoted(reason)}", f"comment = {quoted(comment[:200])}"))
