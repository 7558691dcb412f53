"""`dmarc-milter why QUEUE-ID | MESSAGE-ID`, or a time with filters: decisions already taken,
explained."""

from __future__ import annotations

import argparse
import ipaddress
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing

from dmarc_milter.cli import deferrals
from dmarc_milter.cli.main import EXIT_NO, EXIT_OK, add_config
from dmarc_milter.cli.tables import print_table
from dmarc_milter.cli.terminal import coloured, domain_argument, print_json, unavailable
from dmarc_milter.cli.times import MOST, count, parse_time, shown
from dmarc_milter.config import Config, load
from dmarc_milter.core.explain import explain, sentence
from dmarc_milter.core.explain.done import DONE, STOPPED, became, is_stopped
from dmarc_milter.core.explain.senders import NOT_NOTED, Kind, source_kind
from dmarc_milter.core.mail.ip_address import plain_address
from dmarc_milter.ledger.connect import answering_store
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store.decisions import Decision, Decisions, Filter, Waiting

LISTED = 5
"""Lines about mail that waits, under a list of decisions."""
UNREADABLE = "(unreadable)"
"""As tables show an author that could not be read."""
DISPOSITIONS = ("none", "pass", "quarantine", "reject", "tempfail")
KINDS = (*(kind.value for kind in Kind), NOT_NOTED)
RESULTS = ("none", "pass", "fail", "temperror", "permerror")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "key",
        nargs="?",
        metavar="QUEUE-ID|MESSAGE-ID",
        help="as the MTA's log shows it; without it, the latest decisions",
    )
    parser.add_argument(
        "--since",
        type=parse_time,
        metavar="WHEN",
        help="not before: a date, a date and time (UTC), or an age such as 2h or 7d",
    )
    parser.add_argument("--until", type=parse_time, metavar="WHEN", help="before this time")
    parser.add_argument("--domain", type=domain_name, help="the From domain, or any name below it")
    parser.add_argument(
        "--author",
        type=_author,
        metavar="NAME",
        help=f"this From domain alone, without those below it; or {UNREADABLE}",
    )
    parser.add_argument("--ip", type=_ip, help="the SMTP client's address")
    parser.add_argument(
        "--disposition",
        choices=(*DISPOSITIONS, "delivered", *(DONE[kind] for kind in STOPPED)),
        help="what was done",
    )
    parser.add_argument(
        "--would-be",
        choices=(*STOPPED, *(DONE[kind] for kind in STOPPED)),
        help="delivered, and what enforcement would have done",
    )
    parser.add_argument(
        "--affected",
        action="store_true",
        help="only what policy stopped, deferred or marked, or would have",
    )
    parser.add_argument(
        "--kind", choices=KINDS, help="what the message proves, in the words of `impact`"
    )
    parser.add_argument("--result", choices=RESULTS, help="the dmarc= word")
    parser.add_argument(
        "--limit",
        type=count,
        default=20,
        metavar="N",
        help="at most so many decisions, newest first (default 20)",
    )
    parser.add_argument(
        "--full", action="store_true", help="explain each one instead of listing them"
    )
    parser.add_argument(
        "--clients", action="store_true", help="how many messages each client sent, instead of them"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def domain_name(text: str) -> str:
    """As it is stored: A-labels, lower case. Raises argparse.ArgumentTypeError."""
    return domain_argument(text).name


def _author(text: str) -> str:
    return "" if text == UNREADABLE else domain_name(text)


def _ip(text: str) -> str:
    try:
        return str(plain_address(ipaddress.ip_address(text)))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address") from None


def run(arguments: argparse.Namespace) -> int:
    """0 when something was found, 1 when nothing was, 75 when the store cannot be asked."""
    config = load(arguments.config)
    try:
        with closing(answering_store(config)) as store:
            if arguments.clients:
                return _clients(_wanted(arguments), store.decisions, arguments)
            decisions = _find(store.decisions, arguments)
            waits = _waits(store.decisions, decisions)
    except StoreError as error:
        return unavailable(error)
    if arguments.json:
        print_json(
            {
                "decisions": [_document(decision) for decision in decisions],
                "deferrals": deferrals.document(_distinct(waits), time.time()),
            }
        )
    elif not decisions:
        _hint(config, arguments)
    elif arguments.key or arguments.full or len(decisions) == 1:
        print("\n\n".join(_story(decision, waits) for decision in decisions))
    else:
        _list(decisions, arguments.limit)
        deferrals.print_waiting(_distinct(waits), time.time(), LISTED)
    return EXIT_OK if decisions else EXIT_NO


def _wanted(arguments: argparse.Namespace) -> Filter:
    return Filter(
        since=arguments.since or 0,
        until=arguments.until,
        author_domain=arguments.domain or "",
        author=arguments.author,
        source_ip=arguments.ip or "",
        status=arguments.result or "",
        disposition=_stored(arguments.disposition),
        would_be=_stored(arguments.would_be),
        delivered=arguments.disposition == "delivered",
        affected=arguments.affected,
    )


def _find(decisions: Decisions, arguments: argparse.Namespace) -> list[Decision]:
    wanted = _wanted(arguments)
    if arguments.key:
        found = decisions.find(arguments.key, limit=arguments.limit)
        return [one for one in found if _matches(one, wanted) and _is_of(one, arguments.kind)]
    if not arguments.kind:
        return decisions.recent(wanted, limit=arguments.limit)
    return list(itertools.islice(_of_kind(decisions, wanted, arguments.kind), arguments.limit))


def _of_kind(decisions: Decisions, wanted: Filter, kind: str) -> Iterator[Decision]:
    """The kind is in no column of the log: it is seen in what each message proved."""
    return (one for one in decisions.all(wanted) if _is_of(one, kind))


def _is_of(decision: Decision, kind: str | None) -> bool:
    return kind in (None, source_kind(decision.facts))


def _clients(wanted: Filter, decisions: Decisions, arguments: argparse.Namespace) -> int:
    """Addresses instead of messages: those that `impact` counts. Raises StoreError."""
    limit = arguments.limit
    if arguments.key:
        arguments.limit = MOST
        found = Counter(one.facts.source_ip for one in _find(decisions, arguments)).most_common()
        if sum(number for _, number in found) == MOST:
            print(f"dmarc-milter: only the newest {MOST:,} are counted", file=sys.stderr)
    elif arguments.kind:
        of_kind = _of_kind(decisions, wanted, arguments.kind)
        found = Counter(one.facts.source_ip for one in of_kind).most_common()
    else:
        found = decisions.by_client(wanted)
    if arguments.json:
        names = ("source_ip", "messages")
        print_json({"clients": [dict(zip(names, one, strict=True)) for one in found]})
    elif not found:
        _hint(load(arguments.config), arguments)
    else:
        rows = [(address or "(unknown)", f"{number:,}") for address, number in found[:limit]]
        print_table({"client": "left", "messages": "right"}, rows)
        more = f"; the first {limit}, --limit shows more" if len(found) > limit else ""
        print(f"{len(found):,} client{'s' * (len(found) != 1)}{more}")
    return EXIT_OK if found else EXIT_NO


def _stored(word: str | None) -> str:
    """What the log has for a word of the table; "" for "delivered", which is two of its words."""
    kinds = {DONE[kind]: kind for kind in STOPPED} | {"delivered": "", None: ""}
    return kinds.get(word, word or "")


def _matches(decision: Decision, wanted: Filter) -> bool:
    """The filters beside a key: seldom given, and never many decisions to look through."""
    facts = decision.facts
    disposition = facts.disposition if facts.counted else "tempfail"
    author, under = facts.author_domain, wanted.author_domain
    return (
        wanted.since <= facts.at < (wanted.until if wanted.until is not None else float("inf"))
        and (not under or author == under or author.endswith("." + under))
        and wanted.author in (None, author)
        and (not wanted.affected or is_stopped(facts))
        and wanted.source_ip in ("", facts.source_ip)
        and wanted.status in ("", facts.status)
        and wanted.disposition in ("", disposition)
        and wanted.would_be in ("", facts.would_be)
        and (DONE[disposition] == "delivered" or not (wanted.delivered or wanted.would_be))
    )


def _waits(decisions: Decisions, found: list[Decision]) -> dict[str, Waiting]:
    """Decision's id -> all mail of its author domain that waits, or would, for the same reason and
    name."""
    deferred = [decision.facts for decision in found if decision.facts.deferral]
    names = dict.fromkeys(facts.author_domain for facts in deferred)
    kinds = {
        sender[:3]: sender for name in names for sender in decisions.waiting(author_domain=name)
    }
    keys = {
        facts.id: (facts.author_domain, facts.deferral, facts.failing_name) for facts in deferred
    }
    return {identity: kinds[key] for identity, key in keys.items() if key in kinds}


def _distinct(waits: Mapping[str, Waiting]) -> list[Waiting]:
    return list(dict.fromkeys(waits.values()))


def _document(decision: Decision) -> dict[str, object]:
    facts = decision.facts
    return {
        "host": decision.host,
        "done": became(facts),
        "sentence": sentence(facts),
        "explanation": explain(facts),
        "facts": facts,
    }


def _story(decision: Decision, waits: Mapping[str, Waiting]) -> str:
    first, *rest = explain(decision.facts)
    if mine := waits.get(decision.facts.id):
        number, when = (
            f"{mine.attempts:,} such attempts of {mine.messages:,} messages",
            f"since {shown(mine.first_at)} UTC",
        )
        rest.append(f"{number} {when}, the latest {shown(mine.last_at)}")
    return "\n".join((f"{first}, decided on {decision.host}", *rest))


def _list(found: list[Decision], limit: int) -> None:
    rows = [
        (
            shown(decision.facts.at),
            decision.facts.queue_id or decision.facts.id,
            decision.facts.author_domain or UNREADABLE,
            decision.facts.source_ip or "(unknown)",
            coloured(decision.facts.status),
            coloured(became(decision.facts)),
            decision.facts.decided_by,
        )
        for decision in found
    ]
    columns = dict.fromkeys(
        ("time (UTC)", "queue id", "From", "client", "dmarc", "done", "because"), "left"
    )
    print_table(columns, rows)
    more = f"the newest {limit}; --limit shows more, " if len(found) == limit else ""
    print(f"{len(found)} decisions ({more}`dmarc-milter why QUEUE-ID` or --full explains)")


def _hint(config: Config, arguments: argparse.Namespace) -> None:
    what = (
        f"nothing is recorded about {ascii(arguments.key)[1:-1]}"
        if arguments.key
        else "no decision matches"
    )
    print(
        f"dmarc-milter: {what}. Decisions are kept for {config.store.decision_days} days; mail of"
        " authenticated clients, trusted networks and trusted daemons is not evaluated (the log"
        " says event=exempt), and what another MX host answered is found after its drain.",
        file=sys.stderr,
    )
