"""A store full of decisions, written through the real spool and drain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from dmarc_milter.core.evaluation import Evaluation
from dmarc_milter.core.policy.decide import Disposition
from dmarc_milter.core.stored import encode
from dmarc_milter.core.stored.from_evaluation import from_evaluation
from dmarc_milter.ledger.drain import drain
from dmarc_milter.ledger.spool.file import SpoolFile, SpoolRow
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import evaluation


def fill(spool: Path, store: Store, evaluations: Iterable[Evaluation]) -> None:
    """Record and drain."""
    file = SpoolFile(spool)
    file.write([SpoolRow(each.id, encode(from_evaluation(each))) for each in evaluations])
    drain(file, store)
    file.close()


def week() -> list[Evaluation]:
    """A week of mail: two domains that pass, one that is spoofed, one day of monitoring."""
    found = []
    for day in range(7):
        for number in range(20 + 3 * day):
            each = evaluation(
                "legit.example",
                passed=number % 3 != 0,
                source_ip=f"198.51.100.{number}",
                queue_id=f"4Q{day}{number:04d}",
            )
            if day == 2 and number % 3 == 0:
                each = replace(
                    each,
                    verdict=replace(
                        each.verdict, disposition=Disposition.NONE, would_be=Disposition.REJECT
                    ),
                )
            found.append(replace(each, at=each.at - timedelta(days=6 - day)))
        found.append(replace(evaluation("list.example", passed=True), at=found[-1].at))
    return found
