"""Evaluations as the core makes them, without making them: for everything that stands behind the
verdict."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import count
from typing import Any

from dmarc_milter.core.arc import ArcResult, ArcStatus
from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.record import Policy, Record, ReportUri
from dmarc_milter.core.dmarc.result import (
    DmarcResult,
    DmarcStatus,
    DomainOutcome,
    Identifier,
    PolicyPublished,
)
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.facts import MessageFacts
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.mail.path import ReversePath
from dmarc_milter.core.policy.decide import Disposition, Verdict
from dmarc_milter.core.spf.check import SpfResult, SpfStatus

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
RECORD = Record(
    text="v=DMARC1; p=reject; sp=quarantine; rua=mailto:agg@legit.example",
    p=Policy.REJECT,
    sp=Policy.QUARANTINE,
    rua=(ReportUri("agg@legit.example"),),
)
_numbers = count(1)


def outcome(
    author: str = "legit.example",
    *,
    passed: bool = False,
    record: Record | None = RECORD,
    policy_domain: str = "",
) -> DomainOutcome:
    """DMARC for `author`; a pass is by an aligned signature of the same domain."""
    domain = Domain(author)
    found = Domain(policy_domain or author)
    return DomainOutcome(
        status=DmarcStatus.PASS if passed else DmarcStatus.FAIL,
        author_domain=domain,
        organizational_domain=found,
        published=PolicyPublished(found, record, "treewalk") if record else None,
        policy=Policy.REJECT if record else Policy.NONE,
        policy_tag="p" if record else "",
        identifiers=(
            (Identifier("dkim", domain, "pass", True, RECORD.adkim, found, "sel"),)
            if passed
            else ()
        ),
        dkim_aligned=passed,
        trace=(
            f"TXT _dmarc.{author}: {record.text}" if record else f"TXT _dmarc.{author}: no record",
        ),
    )


def evaluation(
    author_domain: str = "legit.example", /, *, passed: bool = False, **changes: Any
) -> Evaluation:
    """A message From `author_domain`, refused unless `passed`. `changes` are Evaluation's fields,
    or `source_ip`, `queue_id`, `message_id`, `policy_domain`, `record` as shortcuts."""
    number = next(_numbers)
    found = outcome(
        author_domain,
        passed=passed,
        record=changes.pop("record", RECORD),
        policy_domain=changes.pop("policy_domain", ""),
    )
    envelope = Envelope(
        source_ip=ip_address(changes.pop("source_ip", "192.0.2.66")),
        helo="mx.attack.example",
        mail_from=ReversePath("any", Domain("attack.example")),
        rcpt_domains=(Domain("example.com"),),
        queue_id=changes.pop("queue_id", f"4Q{number:06X}"),
    )
    base = Evaluation(
        id=f"{number:032x}",
        at=NOON,
        envelope=envelope,
        author=Author(Domain(author_domain)),
        facts=MessageFacts(message_id=changes.pop("message_id", f"{number}@{author_domain}")),
        spf=SpfResult(SpfStatus.PASS, Domain("attack.example")),
        dkim=(
            DkimResult(
                DkimStatus.PASS if passed else DkimStatus.FAIL,
                Domain(author_domain),
                "sel",
                "rsa-sha256",
            ),
        ),
        arc=ArcResult(ArcStatus.NONE),
        iprev=None,
        dmarc=DmarcResult(found.status, found.author_domain, found),
        verdict=Verdict(
            Disposition.PASS if passed else Disposition.REJECT,
            Policy.REJECT,
            decided_by="p=reject of legit.example",
        ),
    )
    return replace(base, **changes)
