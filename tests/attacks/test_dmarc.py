"""DMARC rows of the attack catalogue through the daemon: records, walks, alignment."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.attack import (
    LEGIT_SIGNER,
    NO_POLICY,
    Case,
    Mail,
    Stage,
    Verdict,
    deferred,
    delivered,
    ids,
    mail,
    refused,
    spoof,
    unanswered,
)
from fakes.dns_server import Spec
from fakes.signer import Signer

SUB, STRICT = Signer("sub.strict.example"), Signer("strict.example")
UK, OTHER_UK, PAGES = Signer("co.uk"), Signer("other.co.uk"), Signer("y.github.io")
REJECT: Spec = {"TXT": ["v=DMARC1; p=reject"]}
NONE = delivered("dis=none", result="fail")


def serve(*signers: Signer) -> dict[str, Spec]:
    return {each.key_name: {"TXT": [each.record()]} for each in signers}


def record(
    row: str,
    texts: str | bytes | list[Any],
    verdict: Verdict,
    note: str = "",
    *,
    letter: Mail | None = None,
    **rest: Any,
) -> Case:
    """legit.example publishes these."""
    listed = texts if isinstance(texts, list) else [texts]
    zone = {"_dmarc.legit.example": {"TXT": listed}} | rest.pop("zone", {})
    return Case(row, letter or spoof(), verdict, zone, note=note or str(texts)[:50], **rest)


QUARANTINED = Verdict(250, "fail", "legit.example", quarantined=True)
LONG = ".".join("a" * 98)

DMR = [
    Case(
        "DMR-01",
        mail(b"<a@strict.example>").signed(SUB),
        refused("strict.example", "dkim=pass"),
        serve(SUB),
        note="signed below",
    ),
    Case(
        "DMR-01",
        mail(b"<a@sub.strict.example>").signed(STRICT),
        refused("strict.example", "dkim=pass"),
        serve(STRICT),
        note="signed above",
    ),
    Case(
        "DMR-01",
        mail(b"<a@strict.example>", mail_from=b"<a@sub.strict.example>"),
        refused("strict.example", "spf=pass"),
        {"sub.strict.example": {"TXT": ["v=spf1 +all"]}},
        note="SPF below",
    ),
    Case(
        "DMR-01",
        mail(b"<a@strict.example>").signed(STRICT),
        delivered("dkim=pass"),
        serve(STRICT),
        note="exact",
    ),
    *(
        Case(
            "DMR-02",
            mail(author.encode()).signed(signer),
            refused(policy, "dkim=pass"),
            {f"_dmarc.{policy}": REJECT, **serve(signer), **extra},
            note=f"{author} {signer.domain}",
        )
        for author, policy, signer, extra in (
            (
                "<a@evil.co.uk>",
                "evil.co.uk",
                UK,
                {"_dmarc.co.uk": {"TXT": ["v=DMARC1; p=none; psd=y"]}},
            ),
            (
                "<a@evil.co.uk>",
                "evil.co.uk",
                OTHER_UK,
                {"_dmarc.co.uk": {"TXT": ["v=DMARC1; p=none; psd=y"]}},
            ),
            (
                "<a@evil.co.uk>",
                "evil.co.uk",
                OTHER_UK,
                {"_dmarc.co.uk": {"TXT": ["v=DMARC1; p=none"]}},
            ),
            ("<a@evil.co.uk>", "evil.co.uk", OTHER_UK, {}),
            (
                "<a@x.github.io>",
                "x.github.io",
                PAGES,
                {"_dmarc.github.io": {"TXT": ["v=DMARC1; p=none; psd=y"]}},
            ),
        )
    ),
    record("DMR-03", ["v=DMARC1; p=reject", "v=DMARC1; p=none"], NO_POLICY, "two records"),
    record(
        "DMR-03",
        ["v=DMARC1; p=reject"],
        refused(),
        "two below, one above",
        letter=mail(b"<a@two.legit.example>"),
        zone={"_dmarc.two.legit.example": {"TXT": ["v=DMARC1; p=none", "v=DMARC1; p=none; x=y"]}},
    ),
    *(
        record("DMR-04", text, NO_POLICY)
        for text in (
            "v=dmarc1; p=reject",
            "v=DMARC1x; p=reject",
            "p=reject; v=DMARC1",
            " v=DMARC1; p=reject",
        )
    ),
    record("DMR-04", "v = DMARC1 ; p = reject", refused(), "spaces"),
    record("DMR-05", "v=DMARC1; rua=mailto:a@legit.example", NONE, "no p, rua"),
    record("DMR-05", "v=DMARC1; adkim=s", NO_POLICY, "no p, no rua"),
    record("DMR-05", "v=DMARC1; p=Reject", refused()),
    record("DMR-05", "v=DMARC1; p=xx; rua=mailto:a@legit.example", NONE, "bad p, rua"),
    record("DMR-05", "v=DMARC1; p=xx", NO_POLICY, "bad p"),
    record("DMR-05", "v=DMARC1; p=reject; sp=xx; rua=mailto:a@legit.example", NONE, "bad sp, rua"),
    record("DMR-06", "v=DMARC1; p=reject; pct=0", QUARANTINED, "pct=0"),
    record("DMR-06", "v=DMARC1; p=quarantine; pct=0", delivered(result="fail"), "quarantine pct=0"),
    record(
        "DMR-06",
        "v=DMARC1; p=reject; pct=0",
        refused(),
        "not honoured",
        tables={"dmarc": {"honor_pct": False}},
    ),
    record("DMR-06", "v=DMARC1; p=reject; pct=0; t=n", refused(), "t beside pct"),
    record("DMR-06", "v=DMARC1; p=reject; t=y", QUARANTINED, "t=y"),
    *(
        record("DMR-06", f"v=DMARC1; p=reject; {text}", refused(), text)
        for text in (
            "psd=",
            "psd=z",
            "x=y; y=z",
            "adkim=q",
            "aspf=",
            "pct=101",
            "pct=x",
            "t=z",
            "fo=x",
            "ri=abc",
            "rf=x",
            "adkim=r; adkim=r",
            "rua=",
            ";;",
        )
    ),
    record("DMR-06", "v=DMARC1; p=none; p=reject; rua=mailto:a@legit.example", NONE, "p twice"),
    Case(
        "DMR-07",
        mail(f"<a@{LONG}.legit.example>".encode()),
        refused(),
        queries=12,
        note="100 labels",
    ),
    *(
        Case(
            "DMR-08",
            spoof(),
            unanswered(),
            {"_dmarc.legit.example": {"behaviour": word}},
            note=word,
        )
        for word in ("servfail", "refused", "formerr", "notimp", "truncated_reset")
    ),
    Case(
        "DMR-08",
        mail(b"<a@sub.legit.example>"),
        unanswered(),
        {"_dmarc.legit.example": {"behaviour": "servfail"}},
        note="organization",
    ),
    Case(
        "DMR-09",
        spoof(mail_from=b"<a@legit.example>"),
        deferred("spf=temperror"),
        {"legit.example": {"behaviour": "servfail"}},
        note="aligned SPF",
    ),
    Case(
        "DMR-09",
        spoof(mail_from=b"<a@legit.example>").signed(LEGIT_SIGNER),
        delivered("spf=temperror", "dkim=pass"),
        {"legit.example": {"behaviour": "servfail"}},
        note="SPF and DKIM pass",
    ),
    Case(
        "DMR-09",
        spoof().signed(LEGIT_SIGNER),
        deferred("dkim=temperror"),
        {LEGIT_SIGNER.key_name: {"behaviour": "servfail"}},
        note="aligned DKIM",
    ),
    Case(
        "DMR-09",
        spoof(),
        refused("legit.example", "spf=temperror"),
        {"attack.example": {"behaviour": "servfail"}},
        note="unaligned SPF",
    ),
    record(
        "DMR-10",
        "v=DMARC1; p=none; np=reject",
        refused(),
        "NXDOMAIN",
        letter=mail(b"<a@nx.legit.example>"),
    ),
    record(
        "DMR-10",
        "v=DMARC1; p=none; np=reject",
        delivered(result="fail"),
        "NODATA",
        letter=mail(b"<a@_domainkey.legit.example>"),
    ),
    record(
        "DMR-11",
        "v=DMARC1; p=reject",
        NONE,
        "wildcard",
        letter=mail(b"<a@x.legit.example>"),
        zone={"*.legit.example": {"TXT": ["v=DMARC1; p=none"]}},
    ),
    Case(
        "DMR-12",
        spoof(),
        unanswered(),
        {"_dmarc.legit.example": {"CNAME": "_dmarc.legit.example"}},
        note="loop",
    ),
    Case(
        "DMR-12",
        spoof(),
        unanswered(),
        {
            "_dmarc.legit.example": {"CNAME": "c0.legit.example"},
            **{f"c{n}.legit.example": {"CNAME": f"c{n + 1}.legit.example"} for n in range(20)},
        },
        note="chain of 20",
    ),
    Case(
        "DMR-12",
        spoof(),
        NO_POLICY,
        {"_dmarc.legit.example": {"CNAME": "nowhere.example"}},
        note="NXDOMAIN target",
    ),
    record("DMR-13", "v=DMARC1; p=reject; " + "x" * 60_000, NO_POLICY, "64 KB", seconds=0.5),
    record("DMR-13", "v=DMARC1; p=reject; " + "x=y; " * 700, refused(), "700 tags", seconds=0.5),
    record(
        "DMR-13",
        "v=DMARC1; p=reject; rua=" + ",".join(f"mailto:a@{n}.example" for n in range(150)),
        refused(),
        "150 URIs",
        seconds=0.5,
    ),
    record(
        "DMR-13",
        [[f"v=DMARC1; p=reject; x{n}" if not n else f"x{n}=y; " for n in range(255)]],
        refused(),
        "255 strings",
    ),
    *(
        record("DMR-13", text, refused(), repr(text[-10:]))
        for text in (b"v=DMARC1; p=reject; x=\x00", b"v=DMARC1; p=reject; x=\xff\xfe")
    ),
    Case(
        "DMR-14",
        mail(b"<a@nothing.example>"),
        NO_POLICY,
        {"_dmarc.nothing.example.corp.example": REJECT, "*.corp.example": REJECT},
    ),
]


@pytest.mark.parametrize("case", DMR, ids=ids)
def test_a_policy(stage: Stage, case: Case) -> None:
    """RFC 9989 4.7 to 4.10; doubt about the DNS is never `none` and never a refusal."""
    stage.check(case)


def test_each_message_sees_the_policy_of_its_time(stage: Stage) -> None:
    """DMR-16: with a TTL of 0 the next message is judged by the new record; with a long one the
    cache answers."""
    tables = {"dns": {"cache_entries": 10_000}}
    zone: dict[str, Spec] = {"_dmarc.legit.example": {"TXT": ["v=DMARC1; p=reject"], "ttl": 0}}
    running = stage.running("enforce", tables)
    stage.script(zone)
    assert running.send(spoof()).answer.code == 550
    stage.script({"_dmarc.legit.example": {"TXT": ["v=DMARC1; p=none"], "ttl": 3600}})
    assert running.send(spoof()).answer.code == 250
    stage.script(zone)
    assert running.send(spoof()).answer.code == 250
