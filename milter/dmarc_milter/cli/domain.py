"""`dmarc-milter domain NAME`: what a domain publishes, asked for now, and what is wrong with it."""

from __future__ import annotations

import argparse
import re
import sys

from dmarc_milter.cli.main import (
    EXIT_NO,
    EXIT_OK,
    EXIT_TEMPFAIL,
    EXIT_USAGE,
    add_config,
    load_or_defaults,
)
from dmarc_milter.cli.terminal import console, domain_of, print_json, styled, table
from dmarc_milter.core.check_finding import LEVELS
from dmarc_milter.core.dmarc.evaluate import DmarcOptions
from dmarc_milter.core.lint import Survey, survey
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.spf.check import SpfStatus
from dmarc_milter.dns.resolver import DnsResolver
from dmarc_milter.dns.suffix_list import SuffixListError, load_suffixes
from dmarc_milter.process.loop import Loop

SECONDS = 60.0
RECORD = re.compile(r"(?:_dmarc|[^.]+(?:\.[^.]+)*?\._domainkey)\.([^.]+\..+)")
QUERIES = 1000
"""Nobody waits for this mail, so more may be asked than a message is allowed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("name", type=domain_of, metavar="NAME", help="a domain name")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """0 when nothing is wrong, 1 when something is, 75 when the DNS did not let us know."""
    config = load_or_defaults(arguments.config)
    asked = _domain_of_record(arguments.name)
    if asked != arguments.name:
        told = f"{arguments.name} is where a record of {asked} stands: this is about {asked}."
        print(told, file=sys.stderr if arguments.json else sys.stdout)
    try:
        suffixes = load_suffixes(config.dmarc.suffix_list)
    except SuffixListError as error:
        print(f"dmarc-milter: {error}", file=sys.stderr)
        return EXIT_USAGE
    dns = DnsResolver(Loop(), config.dns.nameservers, timeout=config.dns.timeout)
    try:
        options = DmarcOptions(discovery=config.dmarc.discovery, psl_guard=config.dmarc.psl_guard)
        surveyed = survey(asked, dns.for_message(SECONDS, QUERIES), options, suffixes)
    finally:
        dns.close()
    if arguments.json:
        print_json(document(surveyed))
    else:
        _print(surveyed)
    return {"error": EXIT_NO, "unknown": EXIT_TEMPFAIL}.get(surveyed.worst, EXIT_OK)


def _domain_of_record(name: Domain) -> Domain:
    """Of `_dmarc.NAME` and `SELECTOR._domainkey.NAME` the name: mail comes from there."""
    found = RECORD.fullmatch(name.name)
    return Domain(found[1]) if found else name


def document(surveyed: Survey) -> dict[str, object]:
    """The stable JSON form."""
    outcome, published = surveyed.outcome, surveyed.published
    return {
        "domain": surveyed.domain.name,
        "sentence": surveyed.sentence,
        "policy_domain": published.policy_domain.name if published else None,
        "record": published.record.text if published else None,
        "policy": outcome.policy.value if published else None,
        "policy_tag": outcome.policy_tag or None,
        "discovery_method": published.discovery_method if published else None,
        "organizational_domain": (
            outcome.organizational_domain.name if outcome.organizational_domain else None
        ),
        "walk": outcome.trace,
        "tags": surveyed.tags,
        "destinations": [
            {
                "kind": destination.kind,
                "address": destination.address,
                "permission": destination.permission.value,
                "reason": destination.reason,
            }
            for destination in surveyed.destinations
        ],
        "spf": {
            "record": surveyed.spf.record,
            "lookups": surveyed.spf.lookups,
            "result_for_strangers": surveyed.spf.status.value,
        },
        "findings": surveyed.findings,
        "worst": surveyed.worst,
    }


def _print(surveyed: Survey) -> None:
    screen, outcome, spf = console(), surveyed.outcome, surveyed.spf
    print(surveyed.sentence)
    if surveyed.published and outcome.policy_tag != "p":
        print(
            f"For {surveyed.domain} itself that is {outcome.policy_tag}={outcome.policy}"
            f" of {surveyed.published.policy_domain}."
        )
    print("\nDiscovery:")
    for step in outcome.trace:
        print(f"  {step}")
    if surveyed.tags:
        rows = [(tag.name, tag.value or "-", tag.meaning) for tag in surveyed.tags]
        screen.print(table({"tag": "left", "value": "left", "meaning": "left"}, rows))
    if surveyed.destinations:
        shown = {"granted": "ok", "refused": "error", "later": "warning"}
        rows2 = [
            (
                destination.kind,
                destination.address,
                styled(shown[destination.permission.value]),
                destination.reason,
            )
            for destination in surveyed.destinations
        ]
        screen.print(
            table({"reports": "left", "address": "left", "": "left", "why": "left"}, rows2)
        )
    instead = {SpfStatus.TEMPERROR: "not known now", SpfStatus.PERMERROR: spf.reason}
    print(f"SPF: {spf.record or instead.get(spf.status, 'no record')}")
    if spf.record:
        print(f"  {spf.lookups} of 10 look-ups; an unknown client gets {spf.status}\n")
    for finding in sorted(
        surveyed.findings, key=lambda finding: LEVELS.index(finding.level), reverse=True
    ):
        screen.print(styled(finding.level), f"{finding.where}: {finding.text}")
    if not surveyed.findings:
        print("Nothing wrong was found.")
