"""Our own saturation is our own failure: what was never asked for lack of room is 451 4.3.2, never
an answer (docs/attacks.md, DNS-37)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from dmarc_milter.core.authenticate import Options
from dmarc_milter.core.dmarc.evaluate import DmarcOptions
from dmarc_milter.core.dmarc.result import DmarcStatus
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.policy.decide import Deferral, Disposition, LocalPolicy, Rule
from dmarc_milter.core.resolver import RdataType, Shortage
from dmarc_milter.core.spf.check import SpfStatus
from fakes.dns_zone import Records, Zone
from fakes.sealer import seal
from fakes.signer import Signer

from .test_authenticate import FORWARDER, LEGIT, PLAIN, RECORDS, judged

MAIL = Signer("mail.legit.example")
BELOW = PLAIN.replace(b"a@legit.example", b"a@sub.legit.example")
NOWHERE = PLAIN.replace(b"a@legit.example", b"a@nothing.example")
ALIGNED = {"sender": b"<a@legit.example>"}
NP = {"_dmarc.legit.example": {"TXT": ["v=DMARC1; p=none; np=reject"]}}
PTR = {"legit.example": {"TXT": ["v=spf1 ptr:legit.example -all"]}}
REVERSE = "66.2.0.192.in-addr.arpa"


class Busy(Zone):
    """A DNS that is not asked for these names: others have taken all the room."""

    def __init__(self, records: Records, short: Iterable[str]) -> None:
        super().__init__(records)
        self.short = frozenset(short)

    def _answer(self, name: str, rdtype: RdataType, hops: int) -> list[Any]:
        if name in self.short:
            raise Shortage(f"{rdtype} {name}: not asked", name=name)
        return super()._answer(name, rdtype, hops)


NEEDED = [
    ("policy", PLAIN, "_dmarc.legit.example", {}, {}),
    ("policy, first step", BELOW, "_dmarc.sub.legit.example", {}, {}),
    ("policy of the organization", BELOW, "_dmarc.legit.example", {}, {}),
    ("policy of the public suffix", NOWHERE, "_dmarc.example", {}, {}),
    ("SPF record", PLAIN, "legit.example", {}, ALIGNED),
    ("SPF include", PLAIN, "shared.example", {}, ALIGNED),
    ("SPF, a PTR that would only be no match", PLAIN, REVERSE, PTR, ALIGNED),
    ("key", LEGIT.sign(PLAIN), LEGIT.key_name, {}, {}),
    ("key of a sister", MAIL.sign(PLAIN), MAIL.key_name, {}, {}),
    ("walk of a signer", MAIL.sign(PLAIN), "_dmarc.mail.legit.example", MAIL.records(), {}),
    ("whether the author exists", BELOW, "sub.legit.example", NP, {}),
]


@pytest.mark.parametrize("on_temperror", ["enforced", "accept", "tempfail"])
@pytest.mark.parametrize(
    ("raw", "name", "more", "how"), [row[1:] for row in NEEDED], ids=[row[0] for row in NEEDED]
)
def test_what_could_have_given_a_pass_or_the_policy_was_not_asked(
    raw: bytes, name: str, more: dict[str, Any], how: dict[str, Any], on_temperror: Any
) -> None:
    """451 whatever on_temperror says, with the name; monitor mode and trusted relays are the
    exceptions."""
    zone, policy = {**RECORDS, **more}, LocalPolicy(on_temperror=on_temperror)
    evaluation = judged(raw, Busy(zone, [name]), options=Options(policy=policy), **how)
    assert evaluation.dmarc.status is DmarcStatus.TEMPERROR
    assert evaluation.verdict.deferral == Deferral("overloaded", name)
    monitored = judged(
        raw, Busy(zone, [name]), options=Options(policy=replace(policy, enforce=False)), **how
    )
    assert (monitored.verdict.deferral, monitored.verdict.would_wait) == (
        None,
        Deferral("overloaded", name),
    )


@pytest.mark.parametrize("name", ["_dmarc.legit.example", "_dmarc.sub.legit.example"])
def test_the_same_by_the_public_suffix_list(name: str) -> None:
    """RFC 7489 6.6.3: two names, either of them."""
    options = Options(dmarc=DmarcOptions(discovery="psl"))
    evaluation = judged(
        BELOW.replace(b"sub.legit", b"legit") if name == "_dmarc.legit.example" else BELOW,
        Busy(RECORDS, [name]),
        options=options,
    )
    assert evaluation.verdict.deferral == Deferral("overloaded", name)


@pytest.mark.parametrize(
    "name",
    ["_dmarc.example", "attack.example", FORWARDER.key_name, REVERSE, "_dmarc.forwarder.example"],
)
def test_what_would_change_nothing_may_go_unasked(name: str) -> None:
    """A forgery is refused whatever the attacker's own names, or a public suffix above a policy
    that is known, would have said."""
    evaluation = judged(FORWARDER.sign(PLAIN), Busy(RECORDS, [name]))
    assert (evaluation.dmarc.status, evaluation.verdict.disposition) == (
        DmarcStatus.FAIL,
        Disposition.REJECT,
    )


def test_an_aligned_pass_needs_nothing_else() -> None:
    """Pass over everything (RFC 9989 5.3.6)."""
    evaluation = judged(
        LEGIT.sign(PLAIN), Busy(RECORDS, ["legit.example", "_dmarc.example"]), **ALIGNED
    )  # type: ignore[arg-type]
    assert (evaluation.dmarc.status, evaluation.verdict.deferral) == (DmarcStatus.PASS, None)


def test_a_policy_of_none_has_nothing_to_wait_for() -> None:
    """Never deferred: an effective policy of none."""
    zone = {**RECORDS, "_dmarc.legit.example": {"TXT": ["v=DMARC1; p=none"]}}
    evaluation = judged(PLAIN, Busy(zone, ["legit.example"]), **ALIGNED)  # type: ignore[arg-type]
    assert (evaluation.dmarc.status, evaluation.verdict.deferral) == (DmarcStatus.TEMPERROR, None)


def test_an_unaligned_spf_that_was_not_asked_is_temperror() -> None:
    """It is shown as what it is, also where a failing PTR would be no match (RFC 7208 5.5)."""
    assert judged(PLAIN, Busy(RECORDS, ["attack.example"])).spf.status is SpfStatus.TEMPERROR


def rule(**conditions: Any) -> LocalPolicy:
    return LocalPolicy(rules=(Rule("accept", **conditions),))


PROOFS = [
    (
        "a DKIM signature",
        FORWARDER.sign(PLAIN),
        FORWARDER.key_name,
        rule(dkim=(Domain("forwarder.example"),)),
    ),
    ("SPF", PLAIN, "attack.example", rule(spf=(Domain("attack.example"),))),
    ("the client's name", PLAIN, REVERSE, rule(ptr=(Domain("lists.example"),))),
    ("the client's name, forth", PLAIN, "mx.lists.example", rule(ptr=(Domain("lists.example"),))),
    (
        "a seal",
        seal(PLAIN, FORWARDER),
        FORWARDER.key_name,
        rule(arc=(Domain("forwarder.example"),)),
    ),
    (
        "a trusted sealer",
        seal(PLAIN, FORWARDER),
        FORWARDER.key_name,
        LocalPolicy(trusted_arc_sealers=(Domain("forwarder.example"),)),
    ),
]


@pytest.mark.parametrize(
    ("raw", "name", "policy"), [row[1:] for row in PROOFS], ids=[row[0] for row in PROOFS]
)
def test_what_a_sender_could_not_prove_for_our_own_overload_is_not_held_against_him(
    raw: bytes, name: str, policy: LocalPolicy
) -> None:
    """A rule or a trusted sealer lets through by proof: 451 instead of 550. Where nobody is let
    through so, refused as before."""
    assert judged(
        raw, Busy(RECORDS, [name]), options=Options(policy=policy)
    ).verdict.deferral == Deferral("overloaded", name)
    assert judged(raw, Busy(RECORDS, [name])).verdict.disposition is Disposition.REJECT
