"""`dmarc-milter impact`: what enforcement did, or in monitor mode would do, by sender domain and by
who stands behind it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import closing

from dmarc_milter.cli import deferrals
from dmarc_milter.cli.main import EXIT_OK, add_config
from dmarc_milter.cli.tables import print_table
from dmarc_milter.cli.terminal import print_json, unavailable
from dmarc_milter.cli.times import MOST, count, shown
from dmarc_milter.cli.why import UNREADABLE, domain_name
from dmarc_milter.config import load
from dmarc_milter.core.explain.senders import ProbableSender, sources
from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.connect import answering_store
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.impact import DomainImpact, by_domain, by_kind, samples
from dmarc_milter.ledger.stopped import PAIRS, StoppedMail, TreatedMail, treated_mail
from dmarc_milter.ledger.store.decisions import Filter
from dmarc_milter.ledger.store.rollups import since_hour

COLUMNS = {
    "From domain": "left",
    "refused": "right",
    "quarantined": "right",
    "deferred": "right",
    "would refuse": "right",
    "would quarantine": "right",
    "would defer": "right",
    "clients": "right",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--days",
        type=count,
        default=14,
        metavar="N",
        help="the last N days (default 14; decisions are kept so long)",
    )
    parser.add_argument(
        "--domain", type=domain_name, help="only this From domain and what is below it"
    )
    parser.add_argument(
        "--limit", type=count, default=25, metavar="N", help="lines of each table (default 25)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing left out")


def run(arguments: argparse.Namespace) -> int:
    """0, or 75 when the store cannot be asked."""
    config = load(arguments.config)
    now = int(time.time())
    since, author = since_hour(now - arguments.days * DAY), arguments.domain or ""
    try:
        with closing(answering_store(config)) as store:
            wanted = Filter(since=since, author_domain=author, affected=True)
            messages = store.decisions.messages(since, author_domain=author)
            limit = None if arguments.json else arguments.limit
            treated = treated_mail(store.database, since, author_domain=author, limit=limit)
            stopped = StoppedMail(store.database, wanted, treated.messages)
            clients = stopped.clients()
            senders = sources(samples(store.decisions, stopped.pairs()))
            waits = store.decisions.waiting(since, author_domain=author)
    except StoreError as error:
        return unavailable(error)
    domains = by_domain(treated.parts, clients)
    if arguments.json:
        print_json(
            {
                "since": since,
                "days": arguments.days,
                "enforce": config.policy.enforce,
                "messages": messages,
                "looked_at": stopped.looked_at,
                "looked_into": stopped.looked_into,
                "domains": [row._asdict() | {"messages": row.messages} for row in domains],
                "kinds": by_kind(treated.all),
                "sources": [_document(source) for source in senders],
                "deferrals": deferrals.document(waits, now),
            }
        )
        return EXIT_OK
    mode = (
        "enforcing" if config.policy.enforce else "monitor mode: nothing is refused or quarantined"
    )
    print(f"{messages:,} messages evaluated since {shown(since)} UTC; {mode}.")
    _print(domains, treated, senders, since, arguments)
    _print_parts(stopped)
    _print_kinds(by_kind(treated.all), _same(since, author))
    deferrals.print_waiting(waits, now, arguments.limit)
    return EXIT_OK


def _document(source: ProbableSender) -> dict[str, object]:
    return {name: getattr(source, name) for name in source.__dataclass_fields__} | {
        "kind": source.kind.value
    }


def _print(
    domains: Sequence[DomainImpact],
    treated: TreatedMail,
    senders: Sequence[ProbableSender],
    since: int,
    arguments: argparse.Namespace,
) -> None:
    limit, totals = arguments.limit, sums([treated.totals])
    if not domains:
        print("Policy stopped and marked nothing, and would not have.")
        return
    print(_totals(totals))
    print_table(COLUMNS, [_cells(row) for row in domains[:limit]])
    _rest(treated.authors, limit)
    print("\n".join(("Each of them:", *listing(totals, since, arguments.domain or ""))))
    print(f"  of one row: the same with --author NAME (or --author '{UNREADABLE}')")
    same = _same(since, arguments.domain or "")
    print(f"Clients of a row: dmarc-milter why --affected --clients --author NAME{same}\n")
    rows = [
        (_who(source), source.kind.value, f"{source.messages:,}", source.evidence)
        for source in senders[:limit]
    ]
    print_table(
        {"who": "left", "looks like": "left", "messages": "right", "evidence": "left"}, rows
    )
    print(
        f"What a client sent of it: dmarc-milter why --affected --ip ADDRESS{same} --limit {MOST}"
    )
    _rest(len(senders), limit)
    _suggest([source for source in senders if source.rule], limit)


def _print_parts(stopped: StoppedMail) -> None:
    """Of how many messages it was not looked who sent them; all other numbers are whole."""
    of = f"of these {stopped.messages:,} messages"
    if stopped.looked_at < stopped.messages:
        print(f"\nClients: those of {stopped.looked_at:,} {of}, the newest of each day.")
    if stopped.looked_into < stopped.messages:
        print(
            f"\nWho is behind them: {stopped.looked_into:,} {of}, those of the {PAIRS} pairs of"
            " From domain and client with most."
        )


def _print_kinds(kinds: Mapping[str, int], same: str) -> None:
    """Each with the command that lists exactly these messages."""
    if kinds:
        print("\nBy what each message proves:")
    for kind, number in kinds.items():
        why = f'dmarc-milter why --affected --kind "{kind}"{same} --limit {min(number, MOST)}'
        print(f"  {number:,} {kind}: {why}")


def _same(since: int, author: str) -> str:
    """Options of `why` for the mail that is looked at here."""
    return f' --since "{shown(since)[:-3]}"' + (f" --domain {author}" if author else "")


def _cells(row: DomainImpact) -> tuple[str, ...]:
    return (row.author_domain or UNREADABLE, *map(_number, row[1:]))


TOTALS = {
    "refused": ("refused", "--disposition reject"),
    "quarantined": ("quarantined", "--disposition quarantine"),
    "deferred": ("deferred", "--disposition tempfail"),
    "would_refuse": ("would have been refused", "--would-be reject"),
    "would_quarantine": ("would have been quarantined", "--would-be quarantine"),
    "would_defer": ("would have been deferred", "--would-be tempfail"),
}
"""Field of DomainImpact -> its words, and what `why` finds the same messages by."""


def sums(domains: Sequence[DomainImpact]) -> dict[str, int]:
    """Field of DomainImpact -> messages of all domains, where there are any."""
    found = zip(TOTALS, map(sum, zip(*(row[1:7] for row in domains), strict=True)), strict=False)
    return {field: number for field, number in found if number}


def _totals(totals: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {TOTALS[field][0]}" for field, number in totals.items()) + "."


def listing(totals: Mapping[str, int], since: int, author: str) -> list[str]:
    """For each total the command that lists exactly these messages."""
    of = f" --domain {author}" if author else ""
    return [
        f'  {TOTALS[field][0]}: dmarc-milter why {TOTALS[field][1]}{of} --since "'
        f'{shown(since)[:-3]}" --limit {min(number, MOST)}'
        for field, number in totals.items()
    ]


def _number(value: object) -> str:
    return f"{value:,}" if value else ""


def _rest(number: int, limit: int) -> None:
    if number > limit:
        print(f"... and {number - limit:,} more; --limit or --json shows them\n")


def _who(source: ProbableSender) -> str:
    if source.identity is not None:
        clients = (
            f" ({len(source.addresses)} clients)"
            if len(source.addresses) > 1
            else f" ({source.addresses[0]})"
        )
        return source.identity.domain + clients
    return source.addresses[0] or "(unknown client)"


def _suggest(proven: Sequence[ProbableSender], limit: int) -> None:
    if not proven:
        print(
            "None of this mail comes from a list or in an ARC chain that proves itself, so no rule"
            " is suggested."
        )
        return
    likely = sum(source.messages for source in proven)
    print(
        f"{likely:,} of these messages look like lists or forwarders. For senders that you know and"
        " trust, rules like these, in the configuration file, deliver their mail; a signature of a"
        " shared service proves only that one of its customers sent the mail."
    )
    for source in proven[:limit]:
        print(f"\n# {source.messages:,} messages: {source.evidence}\n{source.rule}")
