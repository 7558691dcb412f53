"""The whole story of one message, without a socket: docs/design.md, Flow, and the order in which
the DNS is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest

from dmarc_milter.core.authenticate import Options, Request, authenticate, plan_look_ups
from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.iprev import IprevStatus
from dmarc_milter.core.mail import author as address
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.facts import message_facts
from dmarc_milter.core.mail.message import Envelope, Headers, Message
from dmarc_milter.core.mail.path import reverse_path
from dmarc_milter.core.policy.decide import Disposition, LocalPolicy, OverrideType, Rule
from dmarc_milter.core.resolver import Question, Resolver
from dmarc_milter.core.spf.check import SpfOptions, SpfStatus
from dmarc_milter.core.spf.check import check as check_spf
from fakes.dns_zone import Zone
from fakes.received import NOW, digests
from fakes.sealer import seal
from fakes.signer import SIGNED_AT, Signer, header_fields

LEGIT, FORWARDER = Signer("legit.example"), Signer("forwarder.example")
RECORDS = {
    "legit.example": {"TXT": ["v=spf1 ip4:198.51.100.10 include:shared.example -all"]},
    "shared.example": {"TXT": ["v=spf1 ip4:203.0.113.0/24 -all"]},
    "_dmarc.legit.example": {"TXT": ["v=DMARC1; p=reject"]},
    "attack.example": {"TXT": ["v=spf1 ip4:192.0.2.66 -all"]},
    "66.2.0.192.in-addr.arpa": {"PTR": ["mx.lists.example"]},
    "mx.lists.example": {"A": ["192.0.2.66"]},
    **LEGIT.records(),
    **FORWARDER.records(),
}
PLAIN = (
    b"From: a@legit.example\r\nTo: v@example.com\r\nSubject: s\r\nDate: d\r\nMessage-ID:"
    b" <1@legit.example>\r\n\r\nhello\r\n"
)


def judged(
    raw: bytes,
    zone: Resolver,
    *,
    ip: str = "192.0.2.66",
    sender: bytes = b"<a@attack.example>",
    options: Options = Options(),
    now: datetime = NOW,
) -> Evaluation:
    """The message `raw` from this client."""
    fields, body = header_fields(raw)
    headers = Headers(fields)
    author = address.author(headers.values(b"from"))
    envelope = Envelope(ip_address(ip), "mx.attack.example", reverse_path(sender))
    wanted = plan_look_ups(headers, author, options)
    message = Message(
        headers, author, digests(body, wanted.dkim.body_hashes | wanted.arc.body_hashes)
    )
    facts = message_facts(headers, envelope)
    request = Request(
        "id", envelope, message, facts, wanted, lambda: check_spf(envelope, zone, options.spf)
    )
    return authenticate(request, zone, options, now=now, pct_draw=0.0)


def test_an_aligned_signature_passes() -> None:
    evaluation = judged(LEGIT.sign(PLAIN), Zone(RECORDS))
    assert (evaluation.dmarc.status, evaluation.verdict.disposition) == (
        DmarcStatus.PASS,
        Disposition.PASS,
    )


def test_a_spoof_under_reject_is_refused() -> None:
    evaluation = judged(PLAIN, Zone(RECORDS))
    assert (evaluation.dmarc.status, evaluation.verdict.disposition) == (
        DmarcStatus.FAIL,
        Disposition.REJECT,
    )
    assert evaluation.spf.status is SpfStatus.PASS


@pytest.mark.parametrize(
    ("when", "unlimited", "expiring"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), DmarcStatus.FAIL, DmarcStatus.FAIL),
        (NOW - timedelta(hours=1), DmarcStatus.FAIL, DmarcStatus.FAIL),
        (NOW + timedelta(hours=1), DmarcStatus.PASS, DmarcStatus.PASS),
        (datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC), DmarcStatus.PASS, DmarcStatus.FAIL),
        (datetime(9999, 12, 31, tzinfo=UTC), DmarcStatus.PASS, DmarcStatus.FAIL),
    ],
    ids=lambda value: str(value)[:19],
)
def test_a_clock_that_jumps_changes_only_what_t_and_x_say(
    when: datetime, unlimited: DmarcStatus, expiring: DmarcStatus
) -> None:
    """FLT-07: an hour back and forth, 1970, beyond 2038: t= and x= go by the wall clock (RFC 6376
    3.5), nothing raises."""
    assert judged(LEGIT.sign(PLAIN), Zone(RECORDS), now=when).dmarc.status is unlimited
    assert (
        judged(
            LEGIT.sign(PLAIN, tags={"x": str(SIGNED_AT + 86400)}), Zone(RECORDS), now=when
        ).dmarc.status
        is expiring
    )
    assert judged(seal(PLAIN, FORWARDER), Zone(RECORDS), now=when).arc is not None


def test_the_policy_is_asked_for_first() -> None:
    """docs/design.md, Decisions: time and queries of the policy walk are reserved; nothing the
    sender made slow comes before it."""
    zone = Zone(RECORDS)
    judged(LEGIT.sign(PLAIN), zone)
    assert zone.calls[0][0].startswith("_dmarc.")


def test_slow_keys_of_the_senders_own_leave_time_for_spf() -> None:
    """docs/design.md, Decisions: what the message used up itself never improves its verdict, here a
    fail to temperror."""
    zone = Zone(RECORDS)
    raw = PLAIN
    for number in range(10):
        stranger = Signer(f"slow{number}.example", algorithm="ed25519-sha256")
        zone.add(stranger.key_name, "TXT", stranger.record())
        raw = stranger.sign(raw)

    def stall(question: Question) -> None:
        zone.now += 3.0 * ("slow" in question.name)

    zone.on_query = stall
    evaluation = judged(raw, zone.share(queries=160, seconds=25.0), sender=b"<a@legit.example>")
    assert (evaluation.spf.status, evaluation.dmarc.status) == (SpfStatus.FAIL, DmarcStatus.FAIL)
    assert {each.reason for each in evaluation.dkim} == {"", "too many look-ups"}


def upgraded_mail() -> bytes:
    """Sealed by a forwarder that had seen SPF fail for the same sender."""
    results = "spf=fail smtp.mailfrom=legit.example; dmarc=fail header.from=legit.example"
    return seal(PLAIN, FORWARDER, results=results)


@pytest.mark.parametrize(
    ("counts", "dmarc", "spf"),
    [(True, DmarcStatus.PASS, SpfStatus.PASS), (False, DmarcStatus.FAIL, SpfStatus.POLICY)],
)
def test_an_spf_upgrade_is_noticed_and_need_not_count(
    counts: bool, dmarc: DmarcStatus, spf: SpfStatus
) -> None:
    """The forwarder shares a provider with the sender, so its own hosts turned fail into pass."""
    options = Options(spf=SpfOptions(upgrade_counts=counts))
    evaluation = judged(
        upgraded_mail(),
        Zone(RECORDS),
        ip="203.0.113.5",
        sender=b"<a@legit.example>",
        options=options,
    )
    assert evaluation.spf.upgrade
    assert (evaluation.dmarc.status, evaluation.spf.status) == (dmarc, spf)


def test_a_trusted_seal_overrides_with_the_comment_of_rfc_8617() -> None:
    sealed = seal(PLAIN, FORWARDER)
    trusting = Options(policy=LocalPolicy(trusted_arc_sealers=(Domain("forwarder.example"),)))
    evaluation = judged(sealed, Zone(RECORDS), options=trusting)
    assert evaluation.dmarc.status is DmarcStatus.FAIL
    assert evaluation.verdict.disposition is Disposition.NONE
    assert evaluation.verdict.reasons[0].type is OverrideType.LOCAL_POLICY
    assert evaluation.verdict.reasons[0].comment == "arc=pass as[1].d=forwarder.example as[1].s=sel"
    assert judged(sealed, Zone(RECORDS)).verdict.disposition is Disposition.REJECT


def test_without_arc_nothing_of_it_is_seen() -> None:
    """ARC is detachable."""
    options = Options(policy=LocalPolicy(trusted_arc_sealers=(Domain("forwarder.example"),)))
    evaluation = judged(
        seal(PLAIN, FORWARDER),
        Zone(RECORDS),
        options=replace(options, arc=replace(options.arc, enabled=False)),
    )
    assert evaluation.arc is None
    assert evaluation.verdict.disposition is Disposition.REJECT


def test_a_proven_client_name_satisfies_a_rule_that_asks_for_it() -> None:
    """The reverse name is only looked up where it is needed, and only printed where it was asked
    for."""
    rule = Rule(
        "accept", "our list host", ptr=(Domain("lists.example"),), reason=OverrideType.MAILING_LIST
    )
    zone = Zone(RECORDS)
    evaluation = judged(PLAIN, zone, options=Options(policy=LocalPolicy(rules=(rule,))))
    assert (evaluation.verdict.disposition, evaluation.iprev) == (Disposition.NONE, None)
    assert evaluation.verdict.reasons[0].type is OverrideType.MAILING_LIST
    untouched = Zone(RECORDS)
    judged(PLAIN, untouched)
    assert not [call for call in untouched.calls if call[1] == "PTR"]
    asked = judged(PLAIN, Zone(RECORDS), options=Options(iprev=True))
    assert asked.iprev is not None
    assert asked.iprev.status is IprevStatus.PASS
