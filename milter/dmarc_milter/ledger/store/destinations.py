"""What is known of the places that reports go to: who is suppressed, how much a day has had, who
agreed, who ever passed here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store.database import Transaction, attempt, fetch
from dmarc_milter.ledger.store.suppressions import Suppression, Suppressions

__all__ = ["Authorisation", "Destinations", "Limit", "Suppression"]


class Authorisation(NamedTuple):
    """What an external destination answered (RFC 9990 4). `addresses` replace the record's; none:
    its own."""

    outcome: str
    addresses: tuple[str, ...]
    expires_at: int


class Limit(NamedTuple):
    """At most `cap` of `scope` a day (UTC), e.g. ("destination:example.net", 100)."""

    scope: str
    cap: int


class _Refused(Exception):
    """A limit is reached: nothing of the reservation stays."""


class Destinations(Suppressions):
    """Everything raises StoreError."""

    def reserve(self, limits: Sequence[Limit]) -> str:
        """Take one of each limit for today, all or none. The scope that is used up, or "" when all
        were taken."""
        day = int(self._clock()) // DAY * DAY

        def work(transaction: Transaction) -> None:
            for scope, cap in sorted(limits):
                transaction.run(
                    "INSERT INTO spent (day, scope, used) VALUES (?, ?, 0) ON CONFLICT (day, scope)"
                    " DO NOTHING",
                    (day, scope),
                )
                sql = "UPDATE spent SET used = used + 1 WHERE day = ? AND scope = ? AND used < ?"
                if transaction.run(sql, (day, scope, cap)) == 0:
                    raise _Refused(scope)

        try:
            attempt(self._database, work)
        except _Refused as refused:
            return str(refused)
        return ""

    def give_back(self, scopes: Sequence[str]) -> None:
        """Undo a reservation of today that was not needed."""
        day = int(self._clock()) // DAY * DAY
        for scope in scopes:
            self._run(
                "UPDATE spent SET used = used - 1 WHERE day = ? AND scope = ? AND used > 0",
                (day, scope),
            )

    def spent(self, scope: str) -> int:
        """How much of a scope today has had."""
        rows = fetch(
            self._database,
            "SELECT used FROM spent WHERE day = ? AND scope = ?",
            (int(self._clock()) // DAY * DAY, scope),
        )
        return int(rows[0][0]) if rows else 0

    def is_first(self, domain: str) -> bool:
        """Whether this destination domain never got a report from here."""
        return not fetch(self._database, "SELECT 1 FROM destination WHERE domain = ?", (domain,))

    def remember(self, domain: str) -> None:
        """This destination domain has been sent a report."""
        sql = (
            "INSERT INTO destination (domain, first_at) VALUES (?, ?) ON CONFLICT (domain) DO"
            " NOTHING"
        )
        self._run(sql, (domain, int(self._clock())))

    def has_passed(self, organizational_domain: str, since: int = 0) -> bool:
        """Whether mail of this organizational domain passed DMARC here then or later, as far as is
        remembered (report_domains = "known")."""
        sql = "SELECT 1 FROM known_domain WHERE domain = ? AND last_at >= ?"
        return bool(fetch(self._database, sql, (organizational_domain, since)))

    def authorisation(
        self, policy_domain: str, destination: str, kind: Literal["rua", "ruf"]
    ) -> Authorisation | None:
        """A remembered answer that still holds."""
        sql = (
            "SELECT outcome, addresses, expires_at FROM authorisation"
            " WHERE policy_domain = ? AND destination = ? AND kind = ? AND expires_at > ?"
        )
        rows = fetch(self._database, sql, (policy_domain, destination, kind, int(self._clock())))
        return (
            Authorisation(rows[0][0], tuple(rows[0][1].split()), int(rows[0][2])) if rows else None
        )

    def authorise(
        self,
        policy_domain: str,
        destination: str,
        kind: Literal["rua", "ruf"],
        found: Authorisation,
    ) -> None:
        """Remember an answer. Addresses hold no white space (RFC 7489 6.2)."""
        self._run(
            "INSERT INTO authorisation (policy_domain, destination, kind, outcome, addresses,"
            " expires_at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (policy_domain, destination, kind)"
            " DO UPDATE SET outcome = excluded.outcome, addresses = excluded.addresses, expires_at"
            " = excluded.expires_at",
            (
                policy_domain,
                destination,
                kind,
                found.outcome,
                " ".join(found.addresses),
                found.expires_at,
            ),
        )
