"""Local rules that let in more than anybody means, or nothing any more."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import date

from dmarc_milter.config import Config
from dmarc_milter.config.schema_policy import PolicyRule
from dmarc_milter.core.check_finding import Finding
from dmarc_milter.core.explain.allowing import SHARED
from dmarc_milter.core.mail import domain
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.dns.suffix_list import Suffixes

PROVEN = ("dkim", "spf", "ptr", "arc")
"""Conditions on a domain that the message proves."""
LENIENT = ("accept", "none")
MAPPED = 96
"""Bits before the IPv4 address in ::ffff:0:0/96."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
WIDEST = {4: 8, 6: 16}
"""Bits of the widest network that one organization is likely to have."""


def rules(config: Config, suffixes: Suffixes | None, today: date) -> Iterator[Finding]:
    """One for each thing; rules are counted from 1."""
    for number, rule in enumerate(config.policy.rules, 1):
        said = [*_never(rule, config, today)]
        if rule.action in LENIENT:
            said += [*_anybody(rule), *_suffixes(rule, suffixes), *_shared(rule)]
            said += [*_networks(rule)]
        for text in said:
            yield Finding(
                "warning",
                "policy",
                f"rule {number} {text}",
                f"change rule {number} ({rule.comment or rule.action}), then `dmarc-milter rules"
                " test`",
            )


def _never(rule: PolicyRule, config: Config, today: date) -> Iterator[str]:
    if rule.expires and date.fromisoformat(rule.expires) < today:
        yield f"expired on {rule.expires}"
    if rule.arc and not config.authentication.arc:
        yield "never matches: [authentication] arc is off"


def _anybody(rule: PolicyRule) -> Iterator[str]:
    """Conditions that any sender can make true."""
    if rule.author_domains and not any(getattr(rule, key) for key in (*PROVEN, "networks")):
        yield (
            "lets in whoever writes this domain into From, forgers included: add dkim, spf, arc,"
            " ptr or networks"
        )


def _suffixes(rule: PolicyRule, suffixes: Suffixes | None) -> Iterator[str]:
    for key in PROVEN if suffixes is not None else ():
        for text in getattr(rule, key):
            found = domain.parse(text)
            if isinstance(found, Domain) and suffixes and not suffixes.organizational_domain(found):
                yield (
                    f"lets in everybody below {found}: {key} = [{text!r}] is a public suffix, under"
                    " which anybody may register"
                )


def _shared(rule: PolicyRule) -> Iterator[str]:
    """Services that sign and send for whoever has an account there."""
    for key in PROVEN if not (rule.author_domains or rule.networks) else ():
        for text in getattr(rule, key):
            found = domain.parse(text)
            if isinstance(found, Domain) and found.name in SHARED:
                yield (
                    f"lets in every customer of {found}, whatever they write into From: add"
                    " author_domains"
                )


def _networks(rule: PolicyRule) -> Iterator[str]:
    """Wide ones, and many that are wide together."""
    networks = [_plain(ipaddress.ip_network(text, strict=False)) for text in rule.networks]
    wide = [network for network in networks if network.prefixlen < WIDEST[network.version]]
    for network in wide:
        yield f"lets in a large part of the internet: {network}"
    for version, bits, longest in ((4, 32, WIDEST[4]), (6, 128, WIDEST[6])):
        narrow = {network for network in networks if network.version == version}
        if not wide and sum(network.num_addresses for network in narrow) > 1 << bits - longest:
            yield f"lets in a large part of the internet: {len(narrow)} networks"


def _plain(network: Network) -> Network:
    """An IPv4 network that is written as IPv6 (RFC 4291 2.5.5.2), as IPv4; else as it is."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < MAPPED:
        return network
    return ipaddress.ip_network((mapped, network.prefixlen - MAPPED))
