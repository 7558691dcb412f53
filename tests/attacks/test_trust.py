"""Whom we trust, by row of the attack catalogue: relays' Received fields, submission services,
rules, sealers, forged results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fakes.attack import (
    ATTACK_SIGNER,
    Case,
    Mail,
    Stage,
    Verdict,
    delivered,
    ids,
    mail,
    refused,
    spoof,
)
from fakes.dns_server import Spec
from fakes.sealer import seal
from fakes.signer import Signer

ADMIN = b"<admin@legit.example>"
RELAY, VICTIM, ATTACKER = "192.0.2.25", "198.51.100.10", "192.0.2.66"
QUEUED = "(qmail 4711 invoked from network); 30 Nov 2026 12:00:00 -0000"
QUEUED_LOCALLY = "(qmail 4711 invoked by uid 89); 30 Nov 2026 12:00:00 -0000"
LOCALLY = "from root (helo=h)\n\tby relay.example.com with local-esmtp (Exim 4.96)\n\tid 1; d"
LOCALLY_2 = "from l (l [127.0.0.1])\n  (uid 33)\n  by relay.example.com with local\n  id 1; d"
BEHIND = {"authentication": {"trusted_relays": [RELAY]}}
QUARANTINED = Verdict(250, "fail", "legit.example", quarantined=True)
EXIM = (
    "\n\tby relay.example.com with esmtp (Exim 4.96)\n\t(envelope-from <a@b.example>)\n\tid"
    " 1xXriI-0003lS-2f\n\tfor v@example.com; d"
)
SENDMAIL = (
    "\n\tby relay.example.com (8.17.1/8.17.1) with ESMTP id 6AU36p;\n\tMon, 30 Nov 2026"
    " 03:05:58 GMT"
)
POSTFIX = (
    "\n\tby relay.example.com (Postfix) with ESMTPS id 1\n\tfor <v@example.com>; Mon, 30 Nov 2026"
    " 03:05:58 +0000 (UTC)"
)


def relayed(row: str, verdict: Verdict, *received: str, note: str = "") -> Case:
    """A message that claims to be the victim's in From and MAIL FROM, handed over by our relay."""
    fields = [(b"Received", b" " + each.replace("\n", "\r\n").encode()) for each in received]
    letter = mail(ADMIN, mail_from=ADMIN, helo=b"relay.example.com", ip=RELAY, extra=fields)
    return Case(row, letter, verdict, tables=BEHIND, variants=False, note=note or received[0][:60])


RECEIVED = [
    relayed("FWD-10", refused(), f"from [{ATTACKER}] (helo=x@{VICTIM}){EXIM}"),
    relayed("FWD-10", refused(), f"from [{ATTACKER}] (helo=x [{VICTIM}]){EXIM}"),
    relayed("FWD-10", refused(), f"from [{ATTACKER}] (ident=x@{VICTIM}){EXIM}"),
    relayed(
        "FWD-10",
        refused(),
        f"from [{ATTACKER}] (helo=x [{RELAY}]){EXIM}",
        f"from h (r [{VICTIM}]) by q with SMTP; d",
    ),
    relayed("FWD-10", refused(), f"from p.example\n\t([{ATTACKER}] helo=x ident=[{VICTIM}]){EXIM}"),
    relayed(
        "FWD-10",
        refused(),
        f"from [{ATTACKER}] (helo=x) by q (8.17.1/8.17.1) with SMTP; (h [{VICTIM}]){EXIM}",
    ),
    relayed(
        "FWD-10",
        delivered("spf=pass"),
        f"from [{VICTIM}] (helo=mail.legit.example){EXIM}",
        note="genuine",
    ),
    relayed("FWD-11", refused(), f"from foo.example (x@[{ATTACKER}]){SENDMAIL}"),
    relayed("FWD-11", refused(), f"from [{VICTIM}] (helo=x@[{ATTACKER}]){SENDMAIL}"),
    relayed("FWD-11", refused(), f"from h ([{VICTIM}]) [{ATTACKER}] (may be forged)){SENDMAIL}"),
    relayed(
        "FWD-11",
        delivered("spf=pass"),
        f"from foo.example (x@[{VICTIM}]){SENDMAIL}",
        note="genuine",
    ),
    relayed(
        "FWD-12",
        refused(),
        f'from h (r [{ATTACKER}])\n\t(Client CN "x[{VICTIM}]", Issuer "y" (not verified)){POSTFIX}',
    ),
    relayed(
        "FWD-12",
        refused(),
        f"from h (r [{ATTACKER}])\n\t(Authenticated sender: x [{VICTIM}]){POSTFIX}",
    ),
    relayed(
        "FWD-13", refused(), f"from [{VICTIM}] (HELO [{VICTIM}]) ({ATTACKER})\n  by 0 with SMTP; d"
    ),
    relayed(
        "FWD-13", refused(), f"from unknown (HELO x) ({VICTIM}@{ATTACKER})\n  by 0 with SMTP; d"
    ),
    relayed(
        "FWD-13",
        refused(),
        f"from [{VICTIM}] ({ATTACKER}) by\n EX1.corp.example (10.0.0.5) with Microsoft SMTP Server"
        " id 15.1.2507.6; d",
    ),
    relayed(
        "FWD-13",
        refused(),
        f"from [{ATTACKER}] (HELO [{VICTIM}])\n  by relay.example.com (CommuniGate Pro SMTP 6.3)\n "
        " with ESMTP id 1; d",
    ),
    relayed(
        "FWD-13",
        refused(),
        f"from [{VICTIM}] ([{ATTACKER}]) by relay.example.com (10.0.0.1) (MDaemon PRO"
        " v26.0.2)\n\twith ESMTP id 1; d",
    ),
    relayed(
        "FWD-14", refused(), f"from {'x' * 16000} (unknown [{ATTACKER}]){POSTFIX}", note="long HELO"
    ),
    relayed("FWD-15", QUARANTINED, LOCALLY, f"from h ([{VICTIM}]) by q"),
    relayed("FWD-15", QUARANTINED, LOCALLY_2, f"from h ([{VICTIM}]) by q"),
    relayed(
        "FWD-16", refused(), QUEUED, f"from unknown (HELO x) ({ATTACKER})\n  by 0 with SMTP; d"
    ),
    relayed(
        "FWD-16",
        QUARANTINED,
        QUEUED_LOCALLY,
        f"from unknown (HELO x) ({VICTIM})\n  by 0 with SMTP; d",
    ),
    relayed(
        "FWD-17",
        refused(),
        f"from l (l [127.0.0.1]){POSTFIX}",
        f"from h (r [{ATTACKER}]){POSTFIX}",
        f"from h (r [{VICTIM}]){POSTFIX}",
    ),
]
TO_EXAMPLE = {"policy": {"rules": [{"action": "accept", "recipient_domains": ["example.com"]}]}}
DELIVERED = Verdict(250, "fail", "legit.example")
ODD = (
    b"<ceo>",
    b"<ceo@[192.0.2.25]>",
    b"<postmaster>",
    b"<@example.com:ceo@other.example>",
    b"<ceo%other.example@example.com>",
    b"<c@\xff.e>",
)
TRUST = [
    *(
        Case(
            "FWD-20",
            spoof(macros={"{daemon_name}": name}, mail_macros={"{daemon_name}": name}),
            refused(),
            note=name,
            variants=False,
        )
        for name in ("MSA", "ORIGINATING")
    ),
    Case(
        "FWD-23",
        spoof(mail_macros={"{auth_type}": "EXTERNAL", "{verify}": "OK", "{cert_subject}": "/CN=a"}),
        refused(),
        variants=False,
    ),
    Case(
        "FWD-25",
        spoof(rcpt=(b"<a@example.com>", b"<b@Example.COM>")),
        DELIVERED,
        tables=TO_EXAMPLE,
        variants=False,
        note="all there",
    ),
    *(
        Case(
            "FWD-25",
            spoof(rcpt=(b"<a@example.com>", odd)),
            refused(),
            tables=TO_EXAMPLE,
            variants=False,
            note=repr(odd),
        )
        for odd in ODD
    ),
    Case(
        "FWD-26",
        spoof(
            rcpt=(
                *(b"<a@d%d.example.com>" % number for number in range(1000)),
                b"<a@other.example>",
            )
        ),
        refused(),
        tables={
            "policy": {
                "rules": [
                    {
                        "action": "accept",
                        "recipient_domains": [f"d{number}.example.com" for number in range(1000)],
                    }
                ]
            }
        },
        variants=False,
    ),
]


LIST, BELOW, RELAY_SEAL = map(Signer, ("list.example", "sub.list.example", "relay.example"))
KEYS: dict[str, Spec] = {
    each.key_name: {"TXT": [each.record()]} for each in (LIST, BELOW, RELAY_SEAL)
}
THREE_RULES = {
    "policy": {
        "rules": [
            {"action": "accept", "recipient_domains": ["b\u00fccher.example", "Example.COM"]},
            {"action": "accept", "arc": ["List.Example"]},
            {"action": "accept", "arc": ["relay.example"], "recipient_domains": ["third.example"]},
        ]
    }
}


def recipients(row: str, verdict: Verdict, *rcpt: bytes) -> Case:
    letter = spoof(rcpt=rcpt)
    return Case(row, letter, verdict, tables=THREE_RULES, variants=False, note=repr(rcpt[-1]))


def sealed(
    *signers: Signer, rcpt: tuple[bytes, ...] = (b"<v@other.example>",), **last: Any
) -> Mail:
    """The spoof, sealed by each in turn; `last` is for the newest."""
    raw = spoof().raw
    for number, signer in enumerate(signers, 1):
        raw = seal(raw, signer, **(last if number == len(signers) else {}))
    return spoof(rcpt=tuple(rcpt)).of(raw)


def by_arc(verdict: Verdict, letter: Mail, note: str) -> Case:
    row = "POL-42" if verdict is DELIVERED else "POL-41"
    return Case(row, letter, verdict, KEYS, THREE_RULES, variants=False, note=note)


RULES = [
    *(
        recipients("POL-40", refused(), b"<a@example.com>", odd)
        for odd in (
            b"<b@other.example>",
            b"<b@sub.example.com>",
            b"<list:b;@example.com>",
            b"<b>x<@example.com>",
            b"<b,c@example.com>",
            b'<"b@other.example"@example.com>',
            b"<b@[example.com]>",
            "<b@exam\u00adple.com>".encode(),
            b"<b@example.com..>",
        )
    ),
    *(
        recipients("POL-42", DELIVERED, b"<a@example.com>", genuine)
        for genuine in (
            "<b@B\u00dcCHER.example>".encode(),
            b"<b@XN--BCHER-KVA.example>",
            b'<"b c, <d>"@example.com>',
            b"<b@EXAMPLE.COM.>",
        )
    ),
    by_arc(DELIVERED, sealed(LIST), "the list itself"),
    by_arc(DELIVERED, sealed(ATTACK_SIGNER, LIST), "the list over another"),
    by_arc(DELIVERED, sealed(RELAY_SEAL, rcpt=(b"<a@third.example>",)), "and recipients"),
    by_arc(
        refused(), sealed(RELAY_SEAL, rcpt=(b"<a@third.example>", b"<ceo>")), "a recipient more"
    ),
    by_arc(refused(), sealed(LIST, ATTACK_SIGNER), "the attacker over the list"),
    by_arc(refused(), sealed(LIST, cv="fail"), "sealed as failed"),
    by_arc(refused(), replace(sealed(LIST), body=b"Pay.\r\n"), "body altered"),
    by_arc(refused(), sealed(LIST, headers=("to", "subject")), "From not sealed"),
    by_arc(refused(), sealed(BELOW), "a name below"),
    by_arc(refused(), replace(spoof(), rcpt=(b"<a@other.example>",)).signed(LIST), "only signed"),
]


@pytest.mark.parametrize("case", RECEIVED + TRUST + RULES, ids=ids)
def test_each_row_gets_its_verdict(stage: Stage, case: Case) -> None:
    """The row's expectation, in every mode and after every invariant (docs/attacks.md, Whom we
    trust)."""
    stage.check(case)
