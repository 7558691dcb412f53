"""What was erased and must not come back, from a spool that still has it or a restored backup.

A tombstone is a hash under the installation's secret, so that it does not itself tell what was
erased. It counts for what was recorded until it was made; what comes later is recorded as any other
message.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

from dmarc_milter.core.report.rows import Row
from dmarc_milter.core.stored import Facts
from dmarc_milter.ledger.store.database import Transaction
from dmarc_milter.ledger.store.report_id import secret_of

NAME = "erased.log"
"""Beside the spool: a store that is restored does not know what was erased since."""
MODE = 0o640
WORD = re.compile(rb"[a-z0-9!#$%&'*+/=?^_`{|}~.@-]+")
"""An address, a domain, or part of another text (RFC 5322 3.2.3), in small letters."""
Kind = Literal["domain", "address", "source"]


class Target(NamedTuple):
    """What is to be erased: a domain and everything below it, an address that reports go to, or a
    source address or network."""

    kind: Kind
    value: str


class Tombstone(NamedTuple):
    """`kind` of a network has its length: source/24. `at` in seconds since 1970."""

    kind: str
    digest: str
    at: int


class Tombstones:
    """Those that are in force."""

    def __init__(self, secret: bytes, found: Iterable[Tombstone]) -> None:
        self._secret = secret
        self._at: dict[tuple[str, str], int] = {}
        for kind, digest, at in found:
            self._at[kind, digest] = max(int(at), self._at.get((kind, digest), 0))
        self._kinds = {kind for kind, _ in self._at}

    def __bool__(self) -> bool:
        return bool(self._at)

    def of(self, target: Target, at: int) -> Tombstone:
        """The one that this target gets."""
        kind, value = _canonical(target)
        return Tombstone(kind, self._digest(kind, value), at)

    def hides_facts(self, facts: Facts) -> bool:
        """Whether a message was recorded before something was erased that it names."""
        return self._hides(names_in(facts), facts.source_ip, facts.at)

    def hides_row(self, row: Row, at: int) -> bool:
        """The same for a row of a report whose period began `at`."""
        return self._hides(names_in_row(row), row.source_ip, at)

    def hides_name(self, name: str, at: float = 0) -> bool:
        """Whether a domain was erased, itself or with one above it."""
        return self._hides([name], "", at)

    def hides_address(self, address: str, at: float = 0) -> bool:
        """Whether an address that reports go to was erased."""
        return "address" in self._kinds and self._is_in("address", address.lower(), at)

    def hides_text(self, data: bytes, at: float) -> bool:
        """Whether a header or a document names what was erased: an address, or a domain."""
        if not {"domain", "address"} & self._kinds:
            return False
        return any(
            self.hides_address(word, at) or self.hides_name(word.rpartition("@")[2], at)
            for word in words_in(data)
        )

    def _hides(self, names: Iterable[str], source: str, at: float) -> bool:
        if "domain" in self._kinds:
            suffixes = {suffix for name in names for suffix in _suffixes(name)}
            if any(self._is_in("domain", suffix, at) for suffix in suffixes):
                return True
        return any(self._is_in(kind, value, at) for kind, value in self._networks(source))

    def _networks(self, source: str) -> Iterator[tuple[str, str]]:
        try:
            address = ipaddress.ip_address(source)
        except ValueError:
            return
        for kind in self._kinds:
            word, _, length = kind.partition("/")
            if word == "source" and int(length) <= address.max_prefixlen:
                network = ipaddress.ip_network((address, int(length)), strict=False)
                yield kind, str(network)

    def _is_in(self, kind: str, value: str, at: float) -> bool:
        return at <= self._at.get((kind, self._digest(kind, value)), -1)

    def _digest(self, kind: str, value: str) -> str:
        return hmac.new(self._secret, f"{kind}\0{value}".encode(), sha256).hexdigest()


def _canonical(target: Target) -> tuple[str, str]:
    if target.kind != "source":
        return target.kind, target.value.lower()
    network = ipaddress.ip_network(target.value)
    return f"source/{network.prefixlen}", str(network)


def _suffixes(name: str) -> Iterator[str]:
    labels = name.lower().rstrip(".").split(".")
    for number in range(len(labels)):
        yield ".".join(labels[number:])


def words_in(data: bytes) -> set[str]:
    """What may be an address or a domain in a text, in small letters."""
    return {word.decode("ascii").strip(".") for word in WORD.findall(data.lower())}


def names_in(facts: Facts) -> list[str]:
    """Every domain that a message names."""
    outcomes = [facts.outcome, *facts.candidates]
    names = [facts.helo, facts.envelope_from or "", facts.failing_name, facts.list_id]
    names += [one.name for one in facts.stale]
    texts = f"{facts.message_id} {facts.malformed_from}"
    names += [word.rpartition("@")[2] for word in words_in(texts.encode())]
    names += [*facts.envelope_to, *facts.names, *(one.domain for one in facts.dkim)]
    names += [facts.spf.domain] if facts.spf else []
    names += facts.arc.sealers if facts.arc else ()
    for outcome in outcomes:
        if outcome is not None:
            names += [outcome.author_domain, outcome.organizational_domain]
            names += [outcome.published.policy_domain] if outcome.published else []
    return [name for name in names if name]


def names_in_row(row: Row) -> list[str]:
    """Every domain that a row of a report names."""
    names = [row.header_from, row.envelope_from or "", row.envelope_to or ""]
    names += [one.domain for one in row.auth_dkim]
    names += [row.auth_spf.domain] if row.auth_spf else []
    return [name for name in names if name]


def load(transaction: Transaction) -> Tombstones:
    """Those of the store."""
    rows = transaction.all("SELECT kind, digest, at FROM tombstone")
    return Tombstones(
        secret_of(transaction) if rows else b"",
        [Tombstone(kind, digest, int(at)) for kind, digest, at in rows],
    )


def add(transaction: Transaction, stones: Iterable[Tombstone]) -> None:
    """Put them into the store; a later time replaces an earlier one."""
    transaction.many(
        "INSERT INTO tombstone (kind, digest, at) VALUES (?, ?, ?) ON CONFLICT (kind, digest) DO"
        " UPDATE SET at = excluded.at WHERE tombstone.at < excluded.at",
        list(stones),
    )


def beside(spool: Path) -> Path:
    """The file with the tombstones that were made on this host."""
    return spool.with_name(NAME)


def note(path: Path, stone: Tombstone) -> None:
    """Append one, on the disk when it returns. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    new = not path.exists()
    number = os.open(path, flags, MODE)
    try:
        if new and os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(number, folder.st_uid, folder.st_gid)
        os.write(number, f"{stone.kind} {stone.digest} {stone.at}\n".encode())
        os.fsync(number)
    finally:
        os.close(number)


def read(path: Path) -> list[Tombstone]:
    """Those of a file; none where there is none. Raises OSError."""
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except FileNotFoundError:
        return []
    found = (line.split(" ") for line in lines)
    return [
        Tombstone(fields[0], fields[1], int(fields[2]))
        for fields in found
        if len(fields) == 3 and fields[2].isdigit() and _is_kind(fields[0])
    ]


def _is_kind(text: str) -> bool:
    word, _, length = text.partition("/")
    return text in ("domain", "address") or (word == "source" and length.isdigit())
