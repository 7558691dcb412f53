"""Programs that drop or misread RFC 9990's form of a report, seen by running them (`make
report-readers`), and the destinations known to read with them: `[reporting] format = "auto"`.

A destination is a domain; a program that people run for themselves is behind any of them, so the
administrator's `rfc7489_destinations` adds to this list, and `rfc9990_destinations` takes from it.
"""

from __future__ import annotations

from typing import NamedTuple

from dmarc_milter.core.mail.domain import Domain

DATED = "2026-11-30"
"""When these programs were last run with every shape of report."""


class FailingReader(NamedTuple):
    """`versions` is the newest that was seen to fail; `destinations` are public domains whose
    reports it reads, as far as they are known."""

    name: str
    versions: str
    failure: str
    destinations: tuple[str, ...] = ()


FAILING_READERS = (
    FailingReader(
        "Mail::DMARC", "up to 1.20211209", "finds no report: it does not look into a namespace"
    ),
    FailingReader("dmarcts-report-parser", "2022-07-21", "reads the disposition `pass` as unknown"),
    FailingReader(
        "dmarc-metrics-exporter", "1.3.1", "drops a report that has the disposition `pass`"
    ),
)


def reader_at(host: Domain, readers: tuple[FailingReader, ...] = FAILING_READERS) -> str:
    """The failing reader behind a destination or a domain above it, or ""."""
    return next(
        (
            reader.name
            for reader in readers
            for destination in reader.destinations
            if host.is_at_or_below(Domain(destination))
        ),
        "",
    )
