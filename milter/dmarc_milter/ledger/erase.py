"""Erasing what the store and this host's files have of a domain, an address or a source."""

from __future__ import annotations

import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from dmarc_milter.core.report.rows import decode_published, decode_row, encode_published
from dmarc_milter.core.stored import StoredPolicy, UnreadableFacts, decode
from dmarc_milter.ledger.errors import StoreError
from dmarc_milter.ledger.store import log_size, rollups
from dmarc_milter.ledger.store.database import (
    Database,
    Transaction,
    attempt,
    chunks,
    fetch,
    with_list,
)
from dmarc_milter.ledger.store.report_id import secret_of
from dmarc_milter.ledger.store.store import Store
from dmarc_milter.ledger.tombstones import Target, Tombstone, Tombstones, add

PAGE = 2000
"""Rows that are looked at in one question, and sent."""
SIFTED = 20_000
"""Rows that the database looks at in one question, to send those that hold the needle: a second of
its time, however rare that is."""
FIRST = {"at": -(2**62)}
"""Where a key begins; others are text."""
NO_BATCH = "LOCK TABLE origin IN EXCLUSIVE MODE"
"""Waits for the batches on their way, which do not know the tombstone yet."""
STRING_HEAD = re.compile(rb"[\xd9\xc4].|[\xda\xc5]..|[\xdb\xc6]....", re.DOTALL)
"""What stands before a string in MessagePack, and may look like a letter of it."""
MAX_DOCUMENT = 64 << 20
"""Bytes of a report that are unpacked to look into it."""


class Erasure:
    """One erasure. `dry`: only count. `needle`: bytes that every record has which is meant, or
    nothing where that cannot be said. Everything raises StoreError."""

    def __init__(self, store: Store, stones: Tombstones, *, needle: bytes, dry: bool) -> None:
        self._store, self._database = store, store.database
        self._stones, self._needle, self._dry = stones, needle, dry
        self.counts: Counter[str] = Counter()
        self._whole = set[str]()

    def run(self) -> dict[str, int]:
        """How many rows of what were, or would be, erased."""
        for work in (
            self._decisions,
            self._reports,
            self._rows,
            self._documents,
            self._failures,
            self._parked,
            self._names,
            self._addresses,
        ):
            work()
        if not self._dry:
            log_size.recount(self._database)
        return {what: number for what, number in self.counts.items() if number}

    def _change(self, work: Callable[[Transaction], Any]) -> None:
        if not self._dry:
            attempt(self._database, work)

    def _delete(self, table: str, column: str, keys: Sequence[object]) -> None:
        for chunk in chunks(keys):
            sql = with_list(f"DELETE FROM {table} WHERE {column} IN []", chunk)
            self._change(partial(_run, sql=sql, values=tuple(chunk)))

    def _paged(self, columns: str, table: str, key: str, *, every: bool = False) -> Iterator[Any]:
        """All rows that may be meant, or `every` one, by their key, which several may share. Each
        question reads a bounded number of rows, and not the whole table for a rare needle."""
        after: object = FIRST.get(key, "")
        holds, needle = ("AND {holds}", (self._needle,)) if self._needle and not every else ("", ())
        last = (
            f"SELECT max(page.{key}) FROM (SELECT {key} FROM {table} WHERE {key} > ? ORDER BY {key}"
            " LIMIT ?) AS page"
        )
        page = f"SELECT {key}, {columns} FROM {table} WHERE {key} > ? AND {key} <= ? {holds}"
        size = SIFTED if needle else PAGE
        while (end := fetch(self._database, last, (after, size))[0][0]) is not None:
            yield from fetch(self._database, page, (after, end, *needle))
            after = end

    def _is_meant(self, data: bytes) -> bool:
        try:
            return self._stones.hides_facts(decode(data))
        except UnreadableFacts:
            return False

    def _decisions(self) -> None:
        meant = [
            identity
            for _, identity, data in self._paged("id, facts", "decision", "at")
            if self._is_meant(bytes(data))
        ]
        self.counts["decisions"] = len(meant)
        self._delete("decision", "id", meant)

    def _reports(self) -> None:
        """Reports about an erased policy domain go as a whole."""
        meant = [
            identity
            for identity, domain, begin in fetch(
                self._database, "SELECT id, policy_domain, begin_at FROM report"
            )
            if self._stones.hides_name(domain, int(begin))
        ]
        self.counts["reports"] = len(meant)
        self._whole.update(meant)
        for table in ("report_row", "report_count", "report_document", "delivery", "handed_over"):
            self._delete(table, "report_id", meant)
        self._delete("report", "id", meant)

    def _rows(self) -> None:
        """Rows of other reports; what was built of them and has not left is built again."""
        begins = {
            identity: int(begin)
            for identity, begin in fetch(self._database, "SELECT id, begin_at FROM report")
            if identity not in self._whole
        }
        meant = {
            (identity, bytes(key))
            for identity, key, data in self._paged("row_key, facts", "report_row", "report_id")
            if identity in begins
            and self._stones.hides_row(decode_row(bytes(data)), begins[identity])
        }
        self.counts["report rows"] = len(meant)
        for identity, key in sorted(meant):
            self._change(partial(_drop_row, identity=identity, key=key))
        for identity in sorted({identity for identity, _ in meant}):
            self._change(partial(_build_again, identity=identity, now=int(time.time())))

    def _documents(self) -> None:
        """Reports that were built: those that name it go. The rows of a sent one are gone."""
        sql = (
            "SELECT d.report_id, d.format, r.begin_at FROM report_document d JOIN report r ON r.id"
            " = d.report_id WHERE d.format IN ('rfc9990', 'rfc7489')"
        )
        for identity, form, begin in fetch(self._database, sql):
            document = self._store.reports.document(identity, form)
            if document is None or identity in self._whole:
                continue
            text = _unpacked(document.content)
            if self._needle not in text.lower() or not self._stones.hides_document(
                text, int(begin)
            ):
                continue
            self.counts["built reports"] += 1
            self._change(partial(_drop_documents, identity=identity, now=int(time.time())))

    def _failures(self) -> None:
        """Also those whose header or document, text that a stranger wrote, names it."""
        meant = [
            identity
            for identity, at, data, sample in self._paged(
                "at, facts, sample", "failure", "id", every=True
            )
            if self._is_meant(bytes(data))
            or self._stones.hides_sample(bytes(sample or b""), int(at))
            or self._is_in_document(identity, int(at))
        ]
        self.counts["failure reports"] = len(meant)
        for table in ("report_document", "delivery"):
            self._delete(table, "report_id", meant)
        self._delete("incident_count", "failure_id", meant)
        self._delete("failure", "id", meant)

    def _is_in_document(self, identity: str, at: int) -> bool:
        sql = "SELECT content FROM report_document WHERE report_id = ?"
        return any(
            self._stones.hides_text(_unpacked(bytes(content)), at)
            for (content,) in fetch(self._database, sql, (identity,))
        )

    def _parked(self) -> None:
        """What cannot be read cannot be judged: it goes where it holds the bytes, or a word of
        it."""
        meant = [
            identity
            for identity, at, data in self._paged("at, facts", "parked", "id")
            if self._needle
            or self._stones.hides_document(STRING_HEAD.sub(b" ", bytes(data)), int(at))
        ]
        self.counts["unreadable rows"] = len(meant)
        self._delete("parked", "id", meant)

    def _names(self) -> None:
        """Domains that are remembered for themselves; what was counted under one stays in the
        totals, under none."""
        for table, column in (
            ("known_domain", "domain"),
            ("destination", "domain"),
            ("authorisation", "policy_domain"),
            ("authorisation", "destination"),
            ("suppressed_pair", "policy_domain"),
        ):
            names = fetch(self._database, f"SELECT DISTINCT {column} FROM {table}")
            meant = [name for (name,) in names if self._stones.hides_name(name)]
            self.counts["remembered domains"] += len(meant)
            self._delete(table, column, meant)
        for table in ("quota", "spent"):
            scopes = fetch(self._database, f"SELECT DISTINCT scope FROM {table}")
            meant = [scope for (scope,) in scopes if self._stones.hides_name(scope.split(":")[-1])]
            self._delete(table, "scope", meant)
        names = fetch(self._database, "SELECT DISTINCT reversed, name FROM author_name")
        for reversed_, name in names:
            if self._stones.hides_name(name):
                self.counts["sums by author domain"] += 1
                self._change(partial(rollups.forget, reversed_name=reversed_))

    def _addresses(self) -> None:
        """Addresses that reports go to. A suppression stays: without it mail would go there."""
        for table in ("delivery", "handed_over"):
            rows = fetch(self._database, f"SELECT DISTINCT address FROM {table}")
            meant = [address for (address,) in rows if self._stones.hides_address(address)]
            self.counts["deliveries"] += len(meant)
            self._delete(table, "address", meant)
        for identity, data in fetch(self._database, "SELECT id, published FROM report"):
            before = decode_published(bytes(data))
            after = self._without_addresses(before)
            if after is not before:
                sql = "UPDATE report SET published = ? WHERE id = ?"
                self._change(partial(_run, sql=sql, values=(encode_published(after), identity)))

    def _without_addresses(self, published: StoredPolicy) -> StoredPolicy:
        """A record without the addresses that are erased, in its text either."""
        meant = [
            uri.address
            for uri in (*published.rua, *published.ruf)
            if self._stones.hides_address(uri.address)
        ]
        if not meant:
            return published
        text = published.text
        for address in meant:
            text = text.replace(address, "erased")
        rua, ruf = (
            tuple(uri for uri in uris if uri.address not in meant)
            for uris in (published.rua, published.ruf)
        )
        return msgspec.structs.replace(published, rua=rua, ruf=ruf, text=text)


class PreparedErasure(NamedTuple):
    """The tombstone of a target, and what it hides."""

    stone: Tombstone
    stones: Tombstones
    needle: bytes


def prepare(store: Store, target: Target, now: int) -> PreparedErasure:
    """Raises StoreError."""
    with store.database.transaction(write=False) as transaction:
        secret = secret_of(transaction)
    stone = Tombstones(secret, ()).of(target, now)
    needle = target.value.lower().encode()
    needle = needle if needle.isascii() else b""
    if target.kind == "source":
        address, _, length = target.value.partition("/")
        whole = length in ("", "32" if "." in address else "128")
        needle = address.encode() if whole else b""
    return PreparedErasure(stone, Tombstones(secret, [stone]), needle)


def erase(store: Store, prepared: PreparedErasure, *, dry: bool) -> dict[str, int]:
    """From the store; the tombstone first, so that a drain that runs meanwhile adds nothing. Raises
    StoreError."""
    if not dry:
        _add(store.database, [prepared.stone])
    return Erasure(store, prepared.stones, needle=prepared.needle, dry=dry).run()


def erase_again(store: Store, stones: Sequence[Tombstone]) -> dict[str, int]:
    """What was erased before, from a store that was restored from a backup. Raises StoreError."""
    if not stones:
        return {}
    _add(store.database, stones)
    with store.database.transaction(write=False) as transaction:
        secret = secret_of(transaction)
    return Erasure(store, Tombstones(secret, stones), needle=b"", dry=False).run()


def _add(database: Database, stones: Sequence[Tombstone]) -> None:
    """While no batch is on its way that was judged without them. An engine without such a lock, or
    an account that may not take it, does without: a batch looks once more before it ends."""

    def work(transaction: Transaction) -> None:
        if database.dialect == "postgresql":
            transaction.run(NO_BATCH)
        add(transaction, stones)

    try:
        attempt(database, work)
    except StoreError as error:
        if error.kind not in ("refused", "denied", "io", "locked"):
            raise
        attempt(database, partial(add, stones=stones))


def _run(transaction: Transaction, sql: str, values: tuple[object, ...]) -> int:
    return transaction.run(sql, values)


def _drop_row(transaction: Transaction, identity: str, key: bytes) -> None:
    """However many spools have counted it. Their counters stay as they are: the report's own are
    added to them and may be negative."""
    rows = transaction.all(
        "SELECT origin, messages FROM report_row WHERE report_id = ? AND row_key = ? ORDER BY"
        " origin {for_update}",
        (identity, key),
    )
    transaction.many(
        "DELETE FROM report_row WHERE report_id = ? AND row_key = ? AND origin = ?",
        [(identity, key, origin) for origin, _ in rows],
    )
    transaction.run(
        "UPDATE report SET messages = messages - ? WHERE id = ?",
        (sum(int(messages) for _, messages in rows), identity),
    )
    transaction.run(
        "UPDATE report SET rows_count = (SELECT count(DISTINCT row_key) FROM report_row WHERE"
        " report_id = report.id) - coalesce((SELECT sum(c.rows_count) FROM report_count c WHERE"
        " c.report_id = report.id), 0) WHERE id = ?",
        (identity,),
    )


def _drop_documents(transaction: Transaction, identity: str, now: int) -> None:
    _build_again(transaction, identity, now)
    transaction.run("DELETE FROM report_document WHERE report_id = ?", (identity,))


def _build_again(transaction: Transaction, identity: str, now: int) -> None:
    """A report that was built and has not left everywhere; one that has no rows left goes."""
    again = transaction.run(
        "UPDATE report SET state = 'due', next_at = ?, lease_owner = '', lease_until = 0 WHERE"
        " id = ? AND state = 'queued'",
        (now, identity),
    )
    if again:
        transaction.run("DELETE FROM report_document WHERE report_id = ?", (identity,))
        transaction.run(
            "DELETE FROM delivery WHERE report_id = ? AND state = 'queued'", (identity,)
        )
    gone = transaction.run(
        "DELETE FROM report WHERE id = ? AND state = 'due' AND NOT EXISTS (SELECT 1 FROM report_row"
        " WHERE report_id = report.id) AND folded + coalesce((SELECT sum(c.folded) FROM"
        " report_count c WHERE c.report_id = report.id), 0) = 0",
        (identity,),
    )
    if gone:
        transaction.run("DELETE FROM report_count WHERE report_id = ?", (identity,))


def _unpacked(content: bytes) -> bytes:
    """The text of a report of ours."""
    try:
        return zlib.decompressobj(wbits=31).decompress(content, MAX_DOCUMENT)
    except zlib.error:
        return content
