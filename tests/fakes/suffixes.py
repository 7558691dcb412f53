"""A public suffix list of a few names."""

from __future__ import annotations

from collections.abc import Iterable

from dmarc_milter.core.mail.domain import Domain

ICANN = ("com", "org", "uk", "co.uk", "jp", "kobe.jp")
PRIVATE = ("github.io", "uk.com")


class ListedSuffixes:
    """Implements `PublicSuffixes`; a single label is a public suffix by the list's default rule."""

    def __init__(self, icann: Iterable[str] = ICANN, private: Iterable[str] = PRIVATE) -> None:
        self.icann = frozenset(icann)
        self.all = self.icann | frozenset(private)

    def is_icann_suffix(self, domain: Domain) -> bool:
        return domain.name in self.icann or "." not in domain.name

    def organizational_domain(self, domain: Domain) -> Domain | None:
        labels = domain.labels
        for count in range(len(labels), 0, -1):
            if count == 1 or domain.right_most(count).name in self.all:
                return domain.right_most(count + 1) if count < len(labels) else None
        return None
