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
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from dmarc_milter.core.report.failure_sample import read_header_sample
from dmarc_milter.core.report.rows import Row
from dmarc_milter.core.stored import Facts
from dmarc_milter.ledger.store.database import Transaction
from dmarc_milter.ledger.store.report_id import secret_of

NAME = "erased.log"
"""Beside the spool: a store that is restored does not know what was erased since."""
MODE = 0o640
LOCAL_PART = 64
"""Octets of one (RFC 5321 4.5.3.1.1)."""
NAME_OCTETS = 253
"""Of a domain name without its last dot (RFC 1035 2.3.4): no longer one can have been erased."""
NAME_RUN = re.compile(rb"[a-z0-9._-]+")
"""A domain, or part of another text, in small letters: `d=`, quotes and slashes end it."""
AT_DOMAIN = re.compile(rb"@([a-z0-9._-]+)")
LOCAL_END = re.compile(rb"[a-z0-9!#$%&'*+/=?^_`{|}~.-]+\Z")
"""The two sides of an address (RFC 5322 3.4.1), in small letters."""
BEFORE_LOCAL = re.compile(rb"[!#$%&'*/=?^`{|}~]")
"""Parts of a local part by RFC 5322, and what stands before an address in tags, quotes and URLs."""
SOURCE = re.compile(
    rb"(?<![0-9.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9])|(?<![0-9a-z:])[0-9a-f]*:[0-9a-f:]{1,38}"
)
"""What may be a client address, in small letters."""
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
        self._newest: dict[str, int] = {}
        for (kind, _), latest in self._at.items():
            self._newest[kind] = max(latest, self._newest.get(kind, 0))

    def __bool__(self) -> bool:
        return bool(self._at)

    def of(self, target: Target, at: int) -> Tombstone:
        """The one that this target gets."""
        kind, value = _canonical(target)
        return Tombstone(kind, self._digest(kind, value), at)

    def hides_facts(self, facts: Facts) -> bool:
        """Whether a message was recorded before something was erased that it names."""
        return self._counts_at(facts.at) and self._hides(names_in(facts), facts.source_ip, facts.at)

    def hides_row(self, row: Row, at: int) -> bool:
        """The same for a row of a report whose period began `at`."""
        return self._hides(names_in_row(row), row.source_ip, at)

    def hides_name(self, name: str, at: float = 0) -> bool:
        """Whether a domain was erased, itself or with one above it."""
        return self._hides([name], "", at)

    def hides_address(self, address: str, at: float = 0) -> bool:
        """Whether an address that reports go to was erased."""
        return self._is_in("address", address.lower(), at)

    def hides_text(self, data: bytes, at: float) -> bool:
        """Whether a header or a document names what was erased: an address, or a domain."""
        if at <= self._newest.get("domain", -1) and self._hides(_names(data.lower()), "", at):
            return True
        return at <= self._newest.get("address", -1) and any(
            self._is_in("address", address, at) for address in _addresses(data.lower())
        )

    def hides_sample(self, data: bytes, at: float) -> bool:
        """The same for the header that waits for a failure report, as it is stored."""
        return self._counts_at(at) and any(self.hides_text(text, at) for text in _texts(data))

    def hides_document(self, data: bytes, at: float) -> bool:
        """The same for a report that was built, or for bytes that cannot be read; also whether they
        name a client address that was erased."""
        sources = _sources(data.lower()) if self._networks_at(at) else ()
        return self.hides_text(data, at) or any(self._hides((), each, at) for each in sources)

    def _counts_at(self, at: float) -> bool:
        """Whether anything was erased since: what is new costs nothing more."""
        return any(at <= latest for latest in self._newest.values())

    def _hides(self, names: Iterable[str], source: str, at: float) -> bool:
        if at <= self._newest.get("domain", -1):
            suffixes = {suffix for name in names for suffix in _suffixes(name)}
            if any(self._is_in("domain", suffix, at) for suffix in suffixes):
                return True
        return any(self._is_in(kind, value, at) for kind, value in self._networks(source, at))

    def _networks_at(self, at: float) -> list[str]:
        return [
            kind
            for kind, latest in self._newest.items()
            if at <= latest and kind.startswith("source/")
        ]

    def _networks(self, source: str, at: float) -> Iterator[tuple[str, str]]:
        kinds = self._networks_at(at)
        try:
            address = ipaddress.ip_address(source if kinds else "")
        except ValueError:
            return
        for kind in kinds:
            length = kind.partition("/")[2]
            if int(length) <= address.max_prefixlen:
                network = ipaddress.ip_network((address, int(length)), strict=False)
                yield kind, str(network)

    def _is_in(self, kind: str, value: str, at: float) -> bool:
        return at <= self._newest.get(kind, -1) and at <= self._at.get(
            (kind, self._digest(kind, value)), -1
        )

    def _digest(self, kind: str, value: str) -> str:
        return hmac.digest(self._secret, f"{kind}\0{value}".encode(), "sha256").hex()


def _canonical(target: Target) -> tuple[str, str]:
    if target.kind != "source":
        return target.kind, target.value.lower()
    network = ipaddress.ip_network(target.value)
    return f"source/{network.prefixlen}", str(network)


def _suffixes(name: str) -> Iterator[str]:
    """A name and those above it, as far as they can have been erased: never more than 127."""
    name = name.lower().rstrip(".")
    if len(name) > NAME_OCTETS:
        name = name[-NAME_OCTETS - 1 :].partition(".")[2]
    while name:
        if not name.startswith("."):
            yield name
        name = name.partition(".")[2]


def _names(small: bytes) -> set[str]:
    """What may be a domain in a text that is in small letters."""
    return {run.decode("ascii").strip(".-") for run in NAME_RUN.findall(small)}


def _addresses(small: bytes) -> Iterator[str]:
    """What may be an address in a text that is in small letters."""
    for at in AT_DOMAIN.finditer(small):
        domain = at[1].strip(b".-")
        if found := LOCAL_END.search(small[max(0, at.start() - LOCAL_PART) : at.start()]):
            local = found[0]
            for begin in (0, *(match.end() for match in BEFORE_LOCAL.finditer(local))):
                yield (local[begin:] + b"@" + domain).decode("ascii")


def _sources(small: bytes) -> set[str]:
    """What may be a client address in a text that is in small letters."""
    return {found.decode("ascii") for found in SOURCE.findall(small)}


def _texts(sample: bytes) -> tuple[bytes, ...]:
    """What a stored header sample says; of one that cannot be read, all of it."""
    try:
        read = read_header_sample(sample)
    except msgspec.MsgspecError:
        return (sample,)
    return (
        read.headers,
        *(text.encode() for text in (read.mail_from, read.spf_record, read.identity)),
    )


def names_in(facts: Facts) -> list[str]:
    """Every domain that a message names."""
    outcomes = [facts.outcome, *facts.candidates]
    names = [facts.helo, facts.envelope_from or "", facts.failing_name, facts.list_id]
    names += [one.name for one in facts.stale]
    names += _names(f"{facts.message_id} {facts.malformed_from}".lower().encode())
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


def mark(transaction: Transaction) -> int:
    """Another number as soon as something was erased: stones are added, and get later times."""
    row = transaction.one("SELECT coalesce(sum(at), 0) FROM tombstone")
    return int(row[0]) if row else 0


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
