"""Commands below a command, such as `store backup`: their help, with examples."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dmarc_milter.cli.main import add_config, examples_text

if TYPE_CHECKING:  # generic for type checkers alone
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

ACTION_EXAMPLES = {
    "config check": ("config check", "config check --postfix /etc/postfix/main.cf"),
    "config show": ("config show",),
    "config set": (
        "config set policy.enforce true",
        "config set reporting.email dmarc-reports@example.com",
        "config set authentication.trusted_networks '[\"192.0.2.0/24\"]'",
    ),
    "config sample": ("config sample > dmarc-milter.toml",),
    "config json-schema": ("config json-schema > dmarc-milter.schema.json",),
    "config reference": ("config reference > configuration.md",),
    "report list": ("report list --since 7d", "report list --state expired --state suppressed"),
    "report preview": ("report preview", "report preview --domain example.com"),
    "report send": ("report send", "report send --now"),
    "report show": ("report show report.xml.gz", "report show abc1"),
    "report resend": ("report resend abc1",),
    "report drop": ("report drop abc1",),
    "report suppress": (
        "report suppress reports@example.com --until 30d --why 'mailbox is full'",
        "report suppress example.com",
    ),
    "report allow": ("report allow reports@example.com",),
    "report bounce": ("report bounce --recipient dmarc-bounces@example.com < message.eml",),
    "rules test": ("rules test", "rules test --file new-rules.toml --days 30"),
    "store upgrade": ("store upgrade",),
    "store expire": ("store expire",),
    "store drain": ("store drain",),
    "store compact": ("store compact",),
    "store backup": ("store backup /var/backups/reports.db",),
    "store restore": ("store restore /var/backups/reports.db",),
    "store erase": (
        "store erase --domain example.com --dry-run",
        "store erase --address reports@example.com",
        "store erase --source 192.0.2.66",
    ),
    "store status": ("store status", "store status --json"),
}
"""What people type most, shown by --help of each and in the manual page of its command."""


def add_action(what: Subparsers, of: str, name: str, sentence: str) -> argparse.ArgumentParser:
    """One of them, with `--config`. `what`: the subparsers of the command `of`."""
    command = what.add_parser(
        name,
        help=sentence,
        description=sentence[0].upper() + sentence[1:] + ".",
        epilog=examples_text(ACTION_EXAMPLES[f"{of} {name}"]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config(command)
    return command
