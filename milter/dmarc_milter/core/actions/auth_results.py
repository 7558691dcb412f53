"""What our Authentication-Results field says about one Evaluation: the method results of RFC 8601
2.7, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from dmarc_milter.core.arc import ArcResult, ArcStatus
from dmarc_milter.core.authres.field import ResInfo, properties
from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.record import Policy
from dmarc_milter.core.dmarc.result import DmarcResult, DmarcStatus, DomainOutcome
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.policy.decide import Disposition, Verdict
from dmarc_milter.core.spf.check import SpfResult
from dmarc_milter.core.text import is_printable

MIN_SIGNATURE_OCTETS = 8
"""RFC 6008 4: header.b shows at least so much of b=, and enough to tell the signatures apart."""


def infos(evaluation: Evaluation) -> tuple[ResInfo, ...]:
    """Every result in the order of the field: spf, each dkim signature, arc if there is a chain,
    iprev if asked for, dmarc.

    Domains are A-labels also in internationalized messages, which may use either form (RFC 8616 6,
    RFC 8601 5).
    """
    return (
        _spf(evaluation.spf),
        *_dkim(evaluation.dkim),
        *_arc(evaluation.arc, evaluation.envelope.source_ip),
        *_iprev(evaluation),
        _dmarc(evaluation.dmarc, evaluation.verdict),
    )


def _spf(spf: SpfResult) -> ResInfo:
    """RFC 8601 2.7.2: the identity that gave the result, without the local part, which no policy
    needs."""
    checked = ("smtp", "helo" if spf.identity == "helo" else "mailfrom", str(spf.domain or ""))
    permissive = ("policy", "spf-permissive", "yes" if spf.permissive else "")
    upgrade = ("policy", "spf-upgrade", "yes" if spf.upgrade else "")
    return ResInfo("spf", spf.status.value, properties(checked, permissive, upgrade))


def _dkim(results: tuple[DkimResult, ...]) -> Iterator[ResInfo]:
    if not results:
        yield ResInfo("dkim", "none")
    octets = _distinct_prefix([result.signature for result in results])
    for result in results:
        shown = properties(
            ("header", "d", str(result.domain or "")),
            ("header", "i", f"@{result.identifier}" if result.identifier else ""),
            ("header", "s", result.selector),
            ("header", "a", result.algorithm),
            ("header", "b", result.signature[:octets]),
        )
        yield ResInfo(
            "dkim",
            result.status.value,
            shown,
            comment="" if result.status is DkimStatus.PASS else _comment(result.reason),
        )


def _distinct_prefix(signatures: list[str]) -> int:
    """How many bytes of b= tell different signatures apart (RFC 6008 4); at most 200."""
    different = set(signatures)
    for octets in range(MIN_SIGNATURE_OCTETS, 200):
        if len({signature[:octets] for signature in different}) == len(different):
            return octets
    return 200


def _arc(arc: ArcResult | None, source_ip: IPv4Address | IPv6Address | None) -> Iterator[ResInfo]:
    """RFC 8617 6, 10.2."""
    if arc is not None and arc.status is not ArcStatus.NONE:
        oldest = "" if arc.oldest_pass is None else str(arc.oldest_pass)
        shown = properties(
            ("smtp", "remote-ip", str(source_ip or "")), ("header", "oldest-pass", oldest)
        )
        yield ResInfo(
            "arc",
            arc.status.value,
            shown,
            comment="" if arc.status is ArcStatus.PASS else _comment(arc.reason),
        )


def _iprev(evaluation: Evaluation) -> Iterator[ResInfo]:
    """RFC 8601 3."""
    if evaluation.iprev is not None:
        yield ResInfo(
            "iprev",
            str(evaluation.iprev.status),
            properties(("policy", "iprev", str(evaluation.envelope.source_ip or ""))),
        )


def _dmarc(dmarc: DmarcResult, verdict: Verdict) -> ResInfo:
    """RFC 9989 9.1, with the customary comment. policy.dmarc is the evaluated policy, on a failure
    only (RFC 9989 5.3)."""
    overrides = sorted({reason.type.value for reason in verdict.reasons})
    shown = properties(
        ("header", "from", str(dmarc.author_domain or "")),
        ("policy", "dmarc", verdict.policy.value if dmarc.status is DmarcStatus.FAIL else ""),
        *(("policy", "override", reason) for reason in overrides),
        *(("policy", "tag", tag) for tag in verdict.tags),
    )
    return ResInfo(
        "dmarc",
        dmarc.status.value,
        shown,
        comment=_comment(_policy_comment(dmarc.outcome, verdict)),
    )


def _policy_comment(outcome: DomainOutcome | None, verdict: Verdict) -> str:
    """`p=reject sp=none dis=quarantine`: what is published, np where it decided, and always what
    was actually done."""
    done = Disposition.NONE if verdict.disposition is Disposition.PASS else verdict.disposition
    words = [f"dis={done}"]
    if outcome is not None and outcome.published is not None:
        record = outcome.published.record
        p = (None if record.invalid_policy else record.p) or Policy.NONE
        sp = (None if record.invalid_policy else record.sp) or p
        np = [f"np={record.np}"] if outcome.policy_tag == "np" else []
        words = [f"p={p}", f"sp={sp}", *np, *words]
    return " ".join(words)


def _comment(text: str) -> str:
    """Our own vocabulary, but a comment that could not be written must not cost the result."""
    return text if is_printable(text) and len(text) <= 200 else ""
