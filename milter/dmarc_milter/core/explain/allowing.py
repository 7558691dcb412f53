"""The rule that would let one stopped message's sender in: what it rests on must be proven, since a
forger could write everything else."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date
from ipaddress import ip_network
from typing import NamedTuple

from dmarc_milter.core.explain.history import spf_pass
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.policy.verdict import Rule
from dmarc_milter.core.stored import Facts
from dmarc_milter.core.text import printable
from dmarc_milter.core.toml import quoted, toml

SHARED_AS_OF = "2026-11-30"
SHARED = frozenset(
    {
        *("amazonses.com", "sendgrid.net", "sendgrid.com", "mailgun.org", "mailgun.net"),
        *("mandrillapp.com", "mcsv.net", "mcdlv.net", "rsgsv.net", "mailchimpapp.net"),
        *("sparkpostmail.com", "sparkpostmail1.com", "pstmrk.it", "mtasv.net", "mailjet.com"),
        *("sendinblue.com", "brevo.com", "sib.email", "smtp2go.com", "hubspotemail.net"),
        *("exacttarget.com", "salesforce.com", "zendesk.com", "constantcontact.com"),
        *("elasticemail.com", "emailsrvr.com", "zohomail.com", "zoho.com", "zohomail.eu"),
        *("gmail.com", "googlemail.com", "google.com", "googlegroups.com", "outlook.com"),
        *("hotmail.com", "live.com", "msn.com", "yahoo.com", "ymail.com", "aol.com"),
        *("icloud.com", "me.com", "mac.com", "gmx.net", "gmx.de", "gmx.com", "web.de"),
        *("proton.me", "protonmail.com", "fastmail.com", "messagingengine.com", "mail.ru"),
        *("yandex.ru", "yandex.com", "qq.com", "163.com", "126.com", "t-online.de", "mail.com"),
        *("onmicrosoft.com", "microsoft.com", "gappssmtp.com", "office365.com"),
    }
)
"""Domains that sign, or send, for whoever has an account there: a pass of theirs alone says nothing
of whose mail it is. Names below them belong to one customer, and do."""
REASONS = {True: "mailing_list", False: "trusted_forwarder"}


class Proposal(NamedTuple):
    """A rule and its TOML. `evidence`: a sentence about what it rests on; `caution`: what it lets
    in besides, or ""."""

    rule: Rule
    text: str
    evidence: str
    caution: str


class _Ground(NamedTuple):
    condition: str
    value: str
    evidence: str
    caution: str = ""


def proposal(
    facts: Facts, trusted_sealers: Collection[str], remark: str, expires: date | None
) -> Proposal | None:
    """The narrowest rule for this message's sender; None where there is none (why_none).

    By a signature that verified, else SPF, else the newest seal of a trusted ARC sealer, else the
    client's address. The author domain is a further condition, never the only one; mail of lists
    that prove a domain, and of ARC chains, has many authors, and gets none. Where no author could
    be read, a rule would let in whatever this sender writes into From: there is none.
    """
    ground = next(_grounds(facts, trusted_sealers), None)
    if ground is None or not facts.author_domain:
        return None
    listed = bool(facts.list_id) and ground.condition != "networks"  # List-Id is a claim
    author = "" if listed or ground.condition == "arc" else facts.author_domain
    lines = ["[[policy.rules]]", 'action = "accept"']
    lines.append(f"{ground.condition} = {toml([ground.value])}")
    if author:
        lines += [f"author_domains = {toml([author])}", "include_subdomains = false"]
    lines += [f"comment = {quoted(printable(remark, 200))}"]
    if expires is not None:
        lines.append(f"expires = {quoted(expires.isoformat())}")
    lines.append(f"reason = {quoted(REASONS[bool(facts.list_id)])}")
    return Proposal(_rule(ground, author, expires), "\n".join(lines), *ground[2:])


def why_none(facts: Facts) -> str:
    """Why there is no rule for this message."""
    if not facts.author_domain:
        return (
            "nothing can be allowed: that message names no author that could be read, so a rule"
            " could not say whose mail it lets in; its sender has to mend the From field"
        )
    return (
        "nothing about that message is proven, neither a signature nor SPF nor its client: a rule"
        " for it would let in forgers"
    )


def comment(facts: Facts, today: date) -> str:
    """What a rule made for this message says of itself."""
    what = facts.queue_id or facts.message_id or facts.id
    of = f" of {facts.author_domain}" if facts.author_domain else ""
    return f"allowed on {today} for message {what}{of}"


def _grounds(facts: Facts, trusted_sealers: Collection[str]) -> Iterator[_Ground]:
    """What is proven, the best first."""
    signers = {one.domain for one in facts.dkim if one.result == "pass" and one.domain}
    for name in sorted(signers - SHARED, key=lambda name: (-len(name), name)):
        yield _Ground("dkim", name, f"a signature by {name} verified")
    for domain in spf_pass(facts):
        if domain.name not in SHARED:
            yield _Ground("spf", domain.name, f"SPF passed for {domain}")
    sealers = facts.arc.sealers if facts.arc is not None and facts.arc.status == "pass" else ()
    for name in sealers[-1:]:
        if name in trusted_sealers:
            yield _Ground("arc", name, f"the newest seal of its ARC chain, by {name}, verified")
    if facts.source_ip and facts.source_known:
        shared = sorted(signers & SHARED)
        yield _Ground(
            "networks",
            facts.source_ip + ("/128" if ":" in facts.source_ip else "/32"),
            f"it came from {facts.source_ip}; no domain was proven",
            f"{shared[0]} sends for many: its other customers may use this address too"
            if shared
            else "whoever else sends from this address is let in too",
        )


def _rule(ground: _Ground, author: str, expires: date | None) -> Rule:
    domain = () if ground.condition == "networks" else (Domain(ground.value),)
    return Rule(
        "accept",
        author_domains=(Domain(author),) if author else (),
        include_subdomains=False,
        networks=(ip_network(ground.value),) if not domain else (),
        dkim=domain if ground.condition == "dkim" else (),
        spf=domain if ground.condition == "spf" else (),
        arc=domain if ground.condition == "arc" else (),
        expires=expires,
    )
