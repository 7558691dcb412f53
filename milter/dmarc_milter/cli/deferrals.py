"""Mail that waits (451), as `impact`, `stats` and the dashboard list it: by author domain, reason
and DNS name, with what ends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from dmarc_milter.cli.tables import print_table
from dmarc_milter.cli.times import shown
from dmarc_milter.core.deferrals import DEFERRALS, deferral_text
from dmarc_milter.core.explain.deferral_rule import CAUTION, rule
from dmarc_milter.ledger.store.decisions import Waiting

HEAD = ("From domain", "why it waits", "attempts", "messages", "since (UTC)", "latest (UTC)")
RULES = 5
"""Rules that are printed; each is for one author domain."""


def document(senders: Iterable[Waiting], now: float) -> list[dict[str, object]]:
    """As JSON has them. `now` in seconds since 1970."""
    return [
        sender._asdict() | {"code": code(sender.reason), "rule": suggested(sender, now)}
        for sender in senders
    ]


def code(reason: str) -> str:
    """The reply's, such as 451 4.4.3."""
    return DEFERRALS[reason].code


def suggested(waiting: Waiting, now: float) -> str:
    """The rule that ends it, as TOML, or ""."""
    return rule(waiting.author_domain, waiting.reason, waiting.failing_name, now)


def by_reason(senders: Iterable[Waiting]) -> dict[str, int]:
    """Attempts that were answered 451, by reason; every reason is there."""
    numbers = Counter({reason: 0 for reason in DEFERRALS})
    for sender in senders:
        numbers[sender.reason] += sender.deferred
    return dict(numbers)


def rows(senders: Iterable[Waiting]) -> list[tuple[str, ...]]:
    """Lines under HEAD."""
    return [
        (
            sender.author_domain or "(unreadable)",
            deferral_text(sender.reason, sender.failing_name)
            + ("" if sender.deferred else " (would have waited)"),
            f"{sender.attempts:,}",
            f"{sender.messages:,}",
            shown(sender.first_at),
            shown(sender.last_at),
        )
        for sender in senders
    ]


def print_waiting(senders: Sequence[Waiting], now: float, limit: int) -> None:
    """The table and, for those who wait for their DNS longest, rules to copy. Nothing where nothing
    waits."""
    if not senders:
        return
    columns = dict(zip(HEAD, ("left", "left", "right", "right", "left", "left"), strict=True))
    print_table(columns, rows(senders[:limit]), title="Mail that waits")
    if len(senders) > limit:
        print(f"... and {len(senders) - limit:,} more; --json shows them\n")
    rules = {
        sender.author_domain: suggested(sender, now) for sender in senders if suggested(sender, now)
    }
    if rules:
        print(f"A rule ends the waiting of a domain that you know. {CAUTION}")
    for text in list(rules.values())[:RULES]:
        print(f"\n{text}")
    print()
