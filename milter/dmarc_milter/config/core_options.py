"""From the file's words to the values that the core takes."""

from __future__ import annotations

from datetime import date

from dmarc_milter.config.checks import authserv_id, name, networks
from dmarc_milter.config.schema import Config
from dmarc_milter.config.schema_policy import PolicyRule
from dmarc_milter.core import budget
from dmarc_milter.core.actions.plan import Marking
from dmarc_milter.core.arc import ArcOptions
from dmarc_milter.core.authenticate import Options
from dmarc_milter.core.dkim import DkimOptions
from dmarc_milter.core.dmarc.evaluate import DmarcOptions, PublicSuffixes
from dmarc_milter.core.policy.decide import LocalPolicy, OverrideType, Rule
from dmarc_milter.core.spf.check import SpfOptions


def look_up_seconds(config: Config) -> float:
    """The time-out of one look-up for a message."""
    return budget.look_up_seconds(config.dns.timeout, config.dns.budget)


def options(config: Config, suffixes: PublicSuffixes | None) -> Options:
    """What `authenticate` needs from the configuration."""
    limits, trust = config.limits, config.authentication
    dkim = DkimOptions(
        max_signatures=limits.dkim_signatures,
        min_rsa_bits=limits.rsa_min_bits,
        max_rsa_bits=limits.rsa_max_bits,
        max_names=limits.dkim_names,
        max_key_record=limits.dkim_key_bytes,
        max_field=limits.dkim_field_bytes,
        clock_skew=limits.clock_skew,
        require_signed=tuple(field.lower() for field in trust.require_signed),
    )
    return Options(
        spf=SpfOptions(
            seconds=budget.spf_seconds(config.dns.budget),
            max_address_lookups=budget.spf_addresses(limits.dns_queries),
            max_record=limits.spf_record_bytes,
            permissive_counts=trust.spf_permissive_counts,
            upgrade_counts=trust.spf_upgrade_counts,
        ),
        dkim=dkim,
        arc=ArcOptions(
            enabled=trust.arc,
            max_instances=limits.arc_instances,
            max_lookups=limits.arc_lookups,
            dkim=dkim,
        ),
        dmarc=DmarcOptions(discovery=config.dmarc.discovery, psl_guard=config.dmarc.psl_guard),
        policy=local_policy(config),
        suffixes=suffixes,
        iprev=trust.iprev,
        seconds=config.dns.budget,
    )


def marking(config: Config) -> Marking:
    """How messages are marked and refused."""
    trust = config.authentication
    return Marking(
        authserv_id=authserv_id(config),
        remove_authserv_ids=tuple(trust.remove_authserv_ids),
        quarantine_action=config.policy.quarantine_action,
        removable_fields=config.limits.removable_fields,
        reject_text=config.policy.reject_text,
    )


def local_policy(config: Config) -> LocalPolicy:
    """The [policy] section and its neighbours."""
    policy = config.policy
    return LocalPolicy(
        enforce=policy.enforce,
        quarantine_action=policy.quarantine_action,
        reject_action=policy.reject_action,
        malformed_from=policy.malformed_from,
        testing_key_action=policy.testing_key_action,
        honor_pct=config.dmarc.honor_pct,
        on_temperror=config.dmarc.on_temperror,
        on_error=config.milter.on_error,
        trusted_arc_sealers=tuple(
            name(sealer) for sealer in config.authentication.trusted_arc_sealers
        ),
        rules=tuple(_rule(rule) for rule in policy.rules),
    )


def _rule(rule: PolicyRule) -> Rule:
    return Rule(
        action=rule.action,
        comment=rule.comment,
        author_domains=tuple(name(domain) for domain in rule.author_domains),
        include_subdomains=rule.include_subdomains,
        networks=networks(rule.networks),
        dkim=tuple(name(domain) for domain in rule.dkim),
        spf=tuple(name(domain) for domain in rule.spf),
        ptr=tuple(name(domain) for domain in rule.ptr),
        arc=tuple(name(domain) for domain in rule.arc),
        recipient_domains=tuple(name(domain) for domain in rule.recipient_domains),
        expires=date.fromisoformat(rule.expires) if rule.expires else None,
        reason=OverrideType(rule.reason),
        tag=rule.tag,
    )
