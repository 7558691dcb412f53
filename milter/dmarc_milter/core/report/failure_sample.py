"""What is stored of a message for its failure report, and which messages failed in the same way:
the drain counts them without knowing how such a report is made."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

import msgspec

from dmarc_milter.core.stored import DkimFact, Facts

Kind = Literal["dmarc", "dkim", "spf"]


class HeaderSample(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of a message is kept for its failure report, redacted."""

    kind: Kind
    headers: bytes
    mail_from: str = ""
    """Without angle brackets; "" is the null sender or one that is no address."""
    spf_record: str = ""
    identity: str = ""
    """The domain of i= of the signature that failed."""


def read_header_sample(data: bytes) -> HeaderSample:
    """Raises msgspec.DecodeError or ValidationError for anything but a stored sample."""
    return msgspec.msgpack.decode(data, type=HeaderSample)


def alike(facts: Facts, data: bytes) -> str:
    """The name of what a failure report says of its message, but for time and identifiers: messages
    of one name failed in the same way, and one report may stand for all (RFC 6591 3.2: Incidents).

    `data` is the stored sample. 32 hexadecimal digits. Never raises.
    """
    try:
        kind: str = read_header_sample(data).kind
    except msgspec.MsgspecError:
        kind = ""
    outcome, failed = facts.outcome, failed_signature(facts)
    same = (
        facts.author_domain,
        facts.source_ip,
        facts.status,
        facts.disposition,
        (outcome.dkim_aligned, outcome.spf_aligned) if outcome is not None else None,
        kind,
        facts.spf.result if facts.spf is not None else "",
        failed.result if failed is not None else "",
    )
    return sha256(msgspec.msgpack.encode(same)).hexdigest()[:32]


def failed_signature(facts: Facts) -> DkimFact | None:
    """The failing signature that the report is about: of an aligned domain if there is one."""
    failing = [
        signature for signature in facts.dkim if signature.result != "pass" and signature.domain
    ]
    return next(
        (signature for signature in failing if in_organization(signature.domain, facts)),
        failing[0] if failing else None,
    )


def in_organization(name: str, facts: Facts) -> bool:
    """Whether the name is of the author domain's organization."""
    outcome = facts.outcome
    organization = (
        (outcome.organizational_domain or outcome.author_domain) if outcome is not None else ""
    )
    return bool(organization) and (name == organization or name.endswith(f".{organization}"))
