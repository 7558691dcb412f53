"""`dmarc-milter allow QUEUE-ID`: a rule that lets in the sender of a stopped message."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Collection
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from dmarc_milter.cli.config.set_value import replace_file
from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, EXIT_USAGE, add_config
from dmarc_milter.cli.running import reload_daemon
from dmarc_milter.cli.terminal import unavailable
from dmarc_milter.cli.times import count, shown
from dmarc_milter.config import Config, load
from dmarc_milter.config.core_options import local_policy
from dmarc_milter.config.load import compiled
from dmarc_milter.config.sources import CONF_D, read_sources, source
from dmarc_milter.core.explain.allowing import Proposal, comment, proposal, why_none
from dmarc_milter.core.explain.done import became, is_stopped
from dmarc_milter.core.explain.history import first_that_holds, holds
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.core.stored import Facts
from dmarc_milter.core.text import printable
from dmarc_milter.ledger.connect import answering_store
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.decisions import Decision, Decisions, Filter

ALLOWED_FILE = "allowed.toml"
"""In conf.d: where --apply adds rules."""
HEAD = "# Rules that `dmarc-milter allow --apply` added. Delete what is not wanted any more.\n"
LOOKED_AT = 20_000
"""Decisions that the rule is tried on at most, the newest."""
DAYS = re.compile(r"([0-9]{1,4})([dw])")
SAME = 50
"""Decisions of one id that are looked at, the newest."""
LISTED = 10
OURS = ("overloaded", "failure")
"""Deferred because of this host: nothing of the message was proven."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("key", metavar="QUEUE-ID|MESSAGE-ID", help="as `why` has it")
    parser.add_argument(
        "--for",
        dest="period",
        type=_period,
        default=30,
        metavar="TIME",
        help="how long the rule holds: 30d (the default), 8w, or always",
    )
    parser.add_argument(
        "--days",
        type=count,
        default=14,
        metavar="N",
        help="show what it would have let in during the last N days (default 14)",
    )
    parser.add_argument(
        "--apply",
        action="store_true",
        help=f"add the rule to {CONF_D}/{ALLOWED_FILE} beside the file, and reload the daemon",
    )


def _period(text: str) -> int | None:
    """Days; None for ever. Raises argparse.ArgumentTypeError."""
    if text == "always":
        return None
    found = DAYS.fullmatch(text)
    days = int(found[1]) * (7 if found[2] == "w" else 1) if found else 0
    if not 1 <= days <= 3650:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; allowed: 30d, 8w, always")
    return days


def run(arguments: argparse.Namespace) -> int:
    """0 when there is such a rule, 1 when there is none, 2 when it cannot be written, 75 when the
    store cannot be asked."""
    config = load(arguments.config)
    try:
        with closing(answering_store(config)) as store:
            found = _find(store.decisions, arguments.key)
            since = int(time.time()) - arguments.days * DAY
            wanted = Filter(since=since, affected=True)
            past = store.decisions.recent(wanted, limit=LOOKED_AT) if found else []
    except StoreError as error:
        return unavailable(error)
    if not found:
        return _no(f"nothing is recorded about {ascii(arguments.key)[1:-1]}")
    stopped = [one for one in found if is_stopped(one.facts)]
    if not stopped:
        return _no("that message was delivered: no rule is needed")
    newest = next((one for one in stopped if one.facts.deferral not in OURS), stopped[0])
    sealers = {sealer.name for sealer in local_policy(config).trusted_arc_sealers}
    is_one = len(found) == 1 or _is_one_sender(newest, found, sealers)
    if arguments.apply and not is_one:
        return _no(
            "no rule is added: that id does not say whose mail it would be. Name the message by its"
            " queue id"
        )
    return _answer(config, arguments, newest.facts, past, sealers, is_one=is_one)


def _find(decisions: Decisions, key: str) -> list[Decision]:
    """A queue id is the mail server's: where it is one, nobody's Message-ID counts."""
    return decisions.find(key, limit=SAME, by_message_id=False) or decisions.find(key, limit=SAME)


def _is_one_sender(newest: Decision, found: list[Decision], sealers: Collection[str]) -> bool:
    """Whether one rule is for all that has this id. Whoever knows a Message-ID can give it to mail
    of his own, and any number of copies of that."""
    facts, many = newest.facts, f"{SAME} or more" if len(found) == SAME else str(len(found))
    print(
        f"Of {many} decisions with that id, the newest that was stopped: from"
        f" {facts.author_domain or '(unreadable)'} by {facts.source_ip or 'an unknown client'}, at"
        f" {shown(facts.at)} UTC on {newest.host}"
    )
    senders = [
        (one, proposal(one.facts, sealers, "", None))
        for one in found
        if one.facts.deferral not in OURS
    ]
    different: list[tuple[Decision, Proposal | None]] = []
    for one, rule in senders:
        if all((rule and rule.rule) != (other and other.rule) for _, other in different):
            different.append((one, rule))
    if len(different) > 1:
        print("Mind: they have different senders, and a Message-ID is what its sender wants it to")
        print("be. The newest of each:")
        for one, rule in different[:LISTED]:
            print(f"  {_described(one, rule)}")
        if len(different) > LISTED:
            print(f"  and {len(different) - LISTED} others")
    if len(found) == SAME:
        print(f"Mind: only the newest {SAME} with that id are looked at.")
    print()
    return len(different) <= 1 and len(found) < SAME


def _described(decision: Decision, rule: Proposal | None) -> str:
    facts = decision.facts
    return (
        f"{shown(facts.at)} {facts.queue_id or '(no queue id)'}: {became(facts)}, from"
        f" {printable(facts.author_domain, 100) or '(unreadable)'} by"
        f" {facts.source_ip or 'an unknown client'};"
        f" {rule.evidence if rule else 'no rule can rest on it'}"
    )


def _answer(
    config: Config,
    arguments: argparse.Namespace,
    facts: Facts,
    past: list[Decision],
    sealers: Collection[str],
    *,
    is_one: bool,
) -> int:
    if facts.deferral in OURS:
        return _no(
            "that message was deferred because of this host, not of its sender: it will come again,"
            " and no rule is needed"
        )
    today = datetime.now(UTC).date()
    expires = None if arguments.period is None else today + timedelta(days=arguments.period)
    rule = proposal(facts, sealers, comment(facts, today), expires)
    if rule is None:
        return _no(why_none(facts))
    print(f"{rule.text}\n\nIt rests on this: {rule.evidence}.")
    if rule.caution:
        print(f"Mind: {rule.caution}.")
    _show_past(rule, past, arguments.days, today)
    return (
        _apply(config, arguments, rule, facts, today)
        if arguments.apply
        else _advise(arguments, is_one=is_one)
    )


def _no(why: str) -> int:
    print(f"dmarc-milter: {why}", file=sys.stderr)
    return EXIT_NO


def _show_past(rule: Proposal, past: list[Decision], days: int, today: date) -> None:
    """What the rule would have changed."""
    let_in = [one.facts for one in past if holds(rule.rule, one.facts, today)]
    authors = Counter(facts.author_domain or "(unreadable)" for facts in let_in)
    of = f"the last {LOOKED_AT:,} stopped" if len(past) == LOOKED_AT else f"{len(past):,} stopped"
    print(f"In the last {days} days it would have let in {len(let_in):,} of {of} messages.")
    for name, number in authors.most_common(LISTED):
        latest = max(
            facts.at for facts in let_in if (facts.author_domain or "(unreadable)") == name
        )
        print(f"  {number:>7,}  {printable(name, 100)}, the latest {shown(latest)} UTC")


def _advise(arguments: argparse.Namespace, *, is_one: bool) -> int:
    if is_one:
        print(f"\nTo add it: the same command with --apply, or by hand to {arguments.config}.")
    else:
        print("\nTo add a rule: this command with the right message's queue id, and --apply.")
    return EXIT_OK


def _apply(
    config: Config, arguments: argparse.Namespace, rule: Proposal, facts: Facts, today: date
) -> int:
    """Raises ConfigError."""
    if before := first_that_holds(local_policy(config).rules, facts, today):
        return _no(
            f"rule {before} of the configuration decides about this sender already, and comes"
            " first: change that one"
        )
    path = arguments.config.parent / CONF_D / ALLOWED_FILE
    old = path.read_text(encoding="utf-8") if path.exists() else HEAD
    new = f"{old.rstrip()}\n\n{rule.text}\n"
    others = [one for one in read_sources(arguments.config, os.environ) if one.name != str(path)]
    compiled((*others, source(new, str(path))), arguments.config)
    try:
        _make_folder(path.parent, arguments.config)
        replace_file(path, new, like=path if path.exists() else arguments.config)
    except OSError as error:
        print(f"dmarc-milter: {path}: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE
    print(f"\nAdded to {path}. {reload_daemon(arguments.config)}")
    return EXIT_OK


def _make_folder(folder: Path, beside: Path) -> None:
    """Readable by whoever reads the file: its mode and owner, and an x for each r."""
    if folder.is_dir():
        return
    found = beside.stat()
    mode = found.st_mode & 0o777
    folder.mkdir()
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(folder, found.st_uid, found.st_gid)
    folder.chmod(mode | (mode & 0o444) >> 2 | 0o300)
