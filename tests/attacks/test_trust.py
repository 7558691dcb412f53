"""Whom we trust, by row of the attack catalogue: relays' Received fields, submission services,
rules, sealers, forged results."""

from __future__ import annotations

import pytest

from fakes.attack import OK, Case, R, Stage, Verdict, ids, mail, spoof

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
    relayed("FWD-10", R(), f"from [{ATTACKER}] (helo=x@{VICTIM}){EXIM}"),
    relayed("FWD-10", R(), f"from [{ATTACKER}] (helo=x [{VICTIM}]){EXIM}"),
    relayed("FWD-10", R(), f"from [{ATTACKER}] (ident=x@{VICTIM}){EXIM}"),
    relayed(
        "FWD-10",
        R(),
        f"from [{ATTACKER}] (helo=x [{RELAY}]){EXIM}",
        f"from h (r [{VICTIM}]) by q with SMTP; d",
    ),
    relayed("FWD-10", R(), f"from p.example\n\t([{ATTACKER}] helo=x ident=[{VICTIM}]){EXIM}"),
    relayed(
        "FWD-10",
        R(),
        f"from [{ATTACKER}] (helo=x) by q (8.17.1/8.17.1) with SMTP; (h [{VICTIM}]){EXIM}",
    ),
    relayed(
        "FWD-10", OK("spf=pass"), f"from [{VICTIM}] (helo=mail.legit.example){EXIM}", note="genuine"
    ),
    relayed("FWD-11", R(), f"from foo.example (x@[{ATTACKER}]){SENDMAIL}"),
    relayed("FWD-11", R(), f"from [{VICTIM}] (helo=x@[{ATTACKER}]){SENDMAIL}"),
    relayed("FWD-11", R(), f"from h ([{VICTIM}]) [{ATTACKER}] (may be forged)){SENDMAIL}"),
    relayed("FWD-11", OK("spf=pass"), f"from foo.example (x@[{VICTIM}]){SENDMAIL}", note="genuine"),
    relayed(
        "FWD-12",
        R(),
        f'from h (r [{ATTACKER}])\n\t(Client CN "x[{VICTIM}]", Issuer "y" (not verified)){POSTFIX}',
    ),
    relayed(
        "FWD-12", R(), f"from h (r [{ATTACKER}])\n\t(Authenticated sender: x [{VICTIM}]){POSTFIX}"
    ),
    relayed("FWD-13", R(), f"from [{VICTIM}] (HELO [{VICTIM}]) ({ATTACKER})\n  by 0 with SMTP; d"),
    relayed("FWD-13", R(), f"from unknown (HELO x) ({VICTIM}@{ATTACKER})\n  by 0 with SMTP; d"),
    relayed(
        "FWD-13",
        R(),
        f"from [{VICTIM}] ({ATTACKER}) by\n EX1.corp.example (10.0.0.5) with Microsoft SMTP Server"
        " id 15.1.2507.6; d",
    ),
    relayed(
        "FWD-13",
        R(),
        f"from [{ATTACKER}] (HELO [{VICTIM}])\n  by relay.example.com (CommuniGate Pro SMTP 6.3)\n "
        " with ESMTP id 1; d",
    ),
    relayed(
        "FWD-13",
        R(),
        f"from [{VICTIM}] ([{ATTACKER}]) by relay.example.com (10.0.0.1) (MDaemon PRO"
        " v26.0.2)\n\twith ESMTP id 1; d",
    ),
    relayed("FWD-14", R(), f"from {'x' * 16000} (unknown [{ATTACKER}]){POSTFIX}", note="long HELO"),
    relayed("FWD-15", QUARANTINED, LOCALLY, f"from h ([{VICTIM}]) by q"),
    relayed("FWD-15", QUARANTINED, LOCALLY_2, f"from h ([{VICTIM}]) by q"),
    relayed("FWD-16", R(), QUEUED, f"from unknown (HELO x) ({ATTACKER})\n  by 0 with SMTP; d"),
    relayed(
        "FWD-16",
        QUARANTINED,
        QUEUED_LOCALLY,
        f"from unknown (HELO x) ({VICTIM})\n  by 0 with SMTP; d",
    ),
    relayed(
        "FWD-17",
        R(),
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
            R(),
            note=name,
            variants=False,
        )
        for name in ("MSA", "ORIGINATING")
    ),
    Case(
        "FWD-23",
        spoof(mail_macros={"{auth_type}": "EXTERNAL", "{verify}": "OK", "{cert_subject}": "/CN=a"}),
        R(),
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
            R(),
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
        R(),
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


@pytest.mark.parametrize("case", RECEIVED + TRUST, ids=ids)
def test_each_row_gets_its_verdict(stage: Stage, case: Case) -> None:
    """The row's expectation, in every mode and after every invariant (docs/attacks.md, Whom we
    trust)."""
    stage.check(case)
