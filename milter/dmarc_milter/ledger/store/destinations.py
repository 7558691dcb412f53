"""What is known of the places that reports go to: who is suppressed, how much a day has had, who
agreed, who ever passed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from dmarc_milter.core.report.rows import DAY
from dmarc_milter.ledger.store.database import Database, Transaction, attempt, fetch, with_list

ALWAYS = 253_402_300_799
"""The end of what has no end: the last second of the year 9999."""
MANY_PAIRS = 3
"""Pairs of one address within WHILE that make it an address that is left alone."""
WHILE = 7 * DAY


class Suppression(NamedTuple):
    """An address that is left alone until `until`, why, and the report that bounced ("" when an
    administrator decided).

    `address` is a domain where all at or below it are left alone. With `policy_domain` it is left
    alone with reports about that domain only.
    """

    address: str
    at: int
    until: int
    reason: str
    report_id: str
    policy_domain: str = ""


_COLUMNS = "address, at, until_at, reason, report_id"


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


class Suppressions:
    """Everything raises StoreError. Domains are lower case, in A-labels."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def suppress(
        self, address: str, until: int, reason: str, report_id: str = "", *, replace: bool = False
    ) -> None:
        """Leave an address or domain alone; a later end replaces an earlier one, with `replace` any
        end does."""
        kept = "" if replace else " WHERE suppression.until_at <= excluded.until_at"
        self._run(
            f"INSERT INTO suppression ({_COLUMNS}) VALUES (?, ?, ?, ?, ?) ON CONFLICT (address) DO"
            " UPDATE SET at = excluded.at, until_at = excluded.until_at, reason = excluded.reason,"
            f" report_id = excluded.report_id{kept}",
            (address, int(self._clock()), until, reason, report_id),
        )

    def suppress_pair(self, found: Suppression) -> bool:
        """Leave an address alone with reports about one policy domain. True: it is one of so many
        pairs lately that the address takes nothing at all."""
        now = int(self._clock())
        self._run(
            f"INSERT INTO suppressed_pair ({_COLUMNS}, policy_domain) VALUES (?, ?, ?, ?, ?, ?) ON"
            " CONFLICT (address, policy_domain) DO UPDATE SET at = excluded.at, until_at ="
            " excluded.until_at, reason = excluded.reason, report_id = excluded.report_id",
            found._replace(at=now),
        )
        sql = "SELECT count(*) FROM suppressed_pair WHERE address = ? AND at > ?"
        return int(fetch(self._database, sql, (found.address, now - WHILE))[0][0]) >= MANY_PAIRS

    def allow(self, address: str) -> bool:
        """End every suppression of this address or domain; False when there was none."""
        pairs = self._run("DELETE FROM suppressed_pair WHERE address = ?", (address,))
        return self._run("DELETE FROM suppression WHERE address = ?", (address,)) + pairs > 0

    def suppression(self, address: str, policy_domain: str = "") -> Suppression | None:
        """What keeps a report about that domain from that address: a suppression of the address, of
        a domain at or above its host or the policy domain, or of the pair."""
        now = int(self._clock())
        names = [address, *_above(address.rpartition("@")[2]), *_above(policy_domain)]
        rows = fetch(
            self._database,
            with_list(f"SELECT {_COLUMNS} FROM suppression WHERE address IN []", names)
            + " AND until_at > ? ORDER BY until_at DESC LIMIT 1",
            (*names, now),
        ) or fetch(
            self._database,
            f"SELECT {_COLUMNS}, policy_domain FROM suppressed_pair WHERE address = ? AND"
            " policy_domain = ? AND until_at > ?",
            (address, policy_domain, now),
        )
        return Suppression(*rows[0]) if rows else None

    def suppressions(self, limit: int = 1000) -> list[Suppression]:
        """Those in force, the next to end first; then the pairs of addresses that are not left
        alone altogether."""
        now = int(self._clock())
        order = " WHERE until_at > ? ORDER BY until_at, address LIMIT ?"
        whole = fetch(self._database, f"SELECT {_COLUMNS} FROM suppression{order}", (now, limit))
        sql = f"SELECT {_COLUMNS}, policy_domain FROM suppressed_pair{order}"
        alone = {row[0] for row in whole}
        pairs = [row for row in fetch(self._database, sql, (now, limit)) if row[0] not in alone]
        return [Suppression(*row) for row in (*whole, *pairs)][:limit]

    def _run(self, sql: str, values: Sequence[object]) -> int:
        return attempt(self._database, lambda transaction: transaction.run(sql, values))


def _above(name: str) -> list[str]:
    """A name and those above it."""
    labels = name.split(".") if name else []
    return [".".join(labels[at:]) for at in range(len(labels))]


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
