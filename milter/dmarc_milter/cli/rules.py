"""`dmarc-milter rules test`: whom the local rules would have let in or stopped."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from dmarc_milter.cli.actions import add_action
from dmarc_milter.cli.main import EXIT_OK
from dmarc_milter.cli.tables import print_table
from dmarc_milter.cli.terminal import print_json, unavailable
from dmarc_milter.cli.times import count
from dmarc_milter.config import Config, load
from dmarc_milter.config.core_options import local_policy
from dmarc_milter.config.load import compiled
from dmarc_milter.config.sources import read_sources
from dmarc_milter.core.explain.done import is_stopped
from dmarc_milter.core.explain.history import first_that_holds, holds
from dmarc_milter.core.policy.verdict import Rule
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.stored import Facts, is_pass
from dmarc_milter.core.text import printable
from dmarc_milter.ledger.connect import answering_store
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.decisions import Filter

LOOKED_AT = 50_000
"""Decisions at most, the newest."""
COLUMNS = {
    "rule": "right",
    "action": "left",
    "decides": "right",
    "after others": "right",
    "lets in": "right",
    "stops": "right",
    "comment": "left",
}


@dataclass(slots=True)
class Effect:
    """What one rule would have done. `decides`: messages for which it is the first that holds."""

    decides: int = 0
    lets_in: int = 0
    """Of these, stopped or marked at the time (or, in monitor mode, would have been)."""
    stops: int = 0
    """Of these, delivered at the time."""
    after_others: int = 0
    """Messages for which it holds too, and an earlier rule decides."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", required=True)
    command = add_action(what, "rules", "test", "try the rules on the decisions of the last days")
    command.add_argument(
        "--file", type=Path, metavar="FILE", help="try the rules of this file, not yet in force"
    )
    command.add_argument(
        "--days", type=count, default=14, metavar="N", help="the last N days (default 14)"
    )
    command.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """0, or 75 when the store cannot be asked. Raises ConfigError."""
    config = load(arguments.config)
    rules = local_policy(_tried(config, arguments.file)).rules
    since = int(time.time()) - arguments.days * DAY
    try:
        with closing(answering_store(config)) as store:
            found = store.decisions.recent(Filter(since=since), limit=LOOKED_AT)
    except StoreError as error:
        return unavailable(error)
    today = datetime.now(UTC).date()
    effects = effects_of(rules, (decision.facts for decision in found), today)
    if arguments.json:
        print_json({"days": arguments.days, "messages": len(found), "rules": effects})
    else:
        _print(rules, effects, len(found), arguments.days)
    return EXIT_OK


def _tried(config: Config, file: Path | None) -> Config:
    """Raises ConfigError."""
    return config if file is None else compiled(read_sources(file, {})[:1], None)


def effects_of(rules: Sequence[Rule], past: Iterable[Facts], today: date) -> list[Effect]:
    """One for each rule, in their order. A rule never changes a pass."""
    effects = [Effect() for _ in rules]
    for facts in past:
        number = None if is_pass(facts) else first_that_holds(rules, facts, today)
        if number is None:
            continue
        for later, one in enumerate(rules[number:], number):
            effects[later].after_others += one.action != "tag" and holds(one, facts, today)
        rule, effect = rules[number - 1], effects[number - 1]
        stopped = is_stopped(facts)
        effect.decides += 1
        effect.lets_in += stopped and rule.action in ("accept", "none")
        effect.stops += not stopped and rule.action in ("quarantine", "reject")
    return effects


def _print(rules: Sequence[Rule], effects: Sequence[Effect], messages: int, days: int) -> None:
    newest = " (the newest)" if messages == LOOKED_AT else ""
    print(f"{messages:,} messages of the last {days} days{newest}, as the rules would decide now.")
    if not rules:
        print("There are no [[policy.rules]].")
        return
    rows = [
        (
            str(number),
            rule.action if _is_in_force(rule) else f"{rule.action} (expired)",
            f"{effect.decides:,}",
            f"{effect.after_others:,}",
            f"{effect.lets_in:,}",
            f"{effect.stops:,}",
            printable(rule.comment, 60, ascii_only=False),
        )
        for number, (rule, effect) in enumerate(zip(rules, effects, strict=True), 1)
    ]
    print_table(COLUMNS, rows)
    print(
        "decides: messages without a DMARC pass for which it is the first rule that holds; after"
        " others: it holds too, and an earlier one decides; lets in: of those that it decides,"
        " stopped or marked at the time; stops: of them, delivered at the time."
    )


def _is_in_force(rule: Rule) -> bool:
    return rule.expires is None or datetime.now(UTC).date() <= rule.expires
