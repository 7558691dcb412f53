"""Good answers kept past their TTL, for when the DNS of their name fails (RFC 8767). Bounded, and
not easily flushed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from dmarc_milter.dns.answer import OVERHEAD, Answer, Key

SETTLED = 600.0
"""Seconds after which an answer that is fetched again is of a name that mail keeps coming from."""
NEWCOMERS = 4
"""Names not yet settled may hold one part in so many; what is over that leaves before anything else
does."""

Organization = Callable[[str], str]
"""The organizational domain of a name, for fairness alone."""


def two_labels(name: str) -> str:
    """An organization where no public suffix list is at hand."""
    return ".".join(name.rsplit(".", 2)[-2:])


def is_worth_keeping(key: Key) -> bool:
    """Policies and DKIM keys: what a domain's mail cannot be judged without."""
    name, rdtype = key
    return rdtype == "TXT" and (name.startswith("_dmarc.") or "._domainkey." in name)


class CacheLimits(NamedTuple):
    """What a process remembers of the DNS: so many answers, in so many octets; a policy or key for
    so long past its time."""

    entries: int = 10_000
    octets: int = 16 << 20
    stale_seconds: float = 0.0
    organization: Organization = two_labels


class Stale(NamedTuple):
    """An answer whose time is over. `seconds` since it was fetched; `past` of them beyond its TTL
    (negative: still good)."""

    answer: Answer
    seconds: float
    past: float


class _Kept:
    """One answer. `fetched` and `until` (of use no longer) in seconds, monotonic; `first`: when the
    name was met."""

    __slots__ = ("answer", "fetched", "first", "organization", "until")

    def __init__(
        self, answer: Answer, organization: str, *, fetched: float, first: float, until: float
    ) -> None:
        self.answer, self.organization = answer, organization
        self.fetched, self.first, self.until = fetched, first, until

    @property
    def size(self) -> int:
        return OVERHEAD + self.answer.size


class _OrganizationPool:
    """Answers by organization. The organization with most of them gives one up first, and of
    several the one longest unfetched.

    So an attacker who makes up names below his own domain drives out nothing but these.
    """

    def __init__(self) -> None:
        self._answers: dict[Key, _Kept] = {}
        self._groups: dict[str, OrderedDict[Key, None]] = {}
        self._by_number: dict[int, OrderedDict[str, None]] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: Key) -> _Kept | None:
        return self._answers.get(key)

    def add(self, key: Key, kept: _Kept) -> None:
        """`key` must not be there."""
        self._answers[key] = kept
        self.size += kept.size
        group = self._groups.setdefault(kept.organization, OrderedDict())
        self._leave(kept.organization, len(group))
        group[key] = None
        self._by_number.setdefault(len(group), OrderedDict())[kept.organization] = None

    def remove(self, key: Key) -> None:
        kept = self._answers.pop(key, None)
        if kept is None:
            return
        self.size -= kept.size
        group = self._groups[kept.organization]
        self._leave(kept.organization, len(group))
        del group[key]
        if group:
            self._by_number.setdefault(len(group), OrderedDict())[kept.organization] = None
        else:
            del self._groups[kept.organization]

    def drop_one(self) -> None:
        organization = next(iter(self._by_number[max(self._by_number)]))
        self.remove(next(iter(self._groups[organization])))

    def _leave(self, organization: str, number: int) -> None:
        """There are few different numbers, since those of other organizations bound the
        greatest."""
        if number:
            del self._by_number[number][organization]
            if not self._by_number[number]:
                del self._by_number[number]


class StaleCache:
    """(name, type) -> the last good answer, for `stale_seconds` past its TTL, in half of the
    octets. 0: nothing is kept."""

    def __init__(self, memory: CacheLimits) -> None:
        self._seconds, self._organization = memory.stale_seconds, memory.organization
        self._entries, self._octets = memory.entries, memory.octets // 2
        self._settled, self._new = _OrganizationPool(), _OrganizationPool()

    def __len__(self) -> int:
        return len(self._settled) + len(self._new)

    @property
    def size(self) -> int:
        """Octets held, as Answer.size estimates them."""
        return self._settled.size + self._new.size

    def hold(self, key: Key, answer: Answer, now: float) -> None:
        """Learn what the DNS has just said: a good answer takes the place of an older one, a
        definite absence ends it, and so does another one that must not be kept (TTL 0)."""
        if not self._seconds or not self._entries or not is_worth_keeping(key):
            return
        kept = self._settled.get(key) or self._new.get(key)
        if answer.failure is not None or not answer.ttl:
            # The same with TTL 0 is in its last second in a resolver's cache.
            if kept is not None and answer.records != kept.answer.records:
                self._forget(key)
        elif kept is None or kept.until != answer.expires + self._seconds:
            self._put(key, answer, now)

    def find(self, key: Key, now: float) -> Stale | None:
        """What may be used at `now` (seconds, monotonic) because the look-up failed."""
        kept = self._settled.get(key) or self._new.get(key)
        if kept is None or now >= kept.until:
            return None
        return Stale(kept.answer, now - kept.fetched, now - kept.answer.expires)

    def _put(self, key: Key, answer: Answer, now: float) -> None:
        old = self._settled.get(key) or self._new.get(key)
        first = now if old is None or now >= old.until else old.first
        organization = self._organization(key[0]) if old is None else old.organization
        self._forget(key)
        kept = _Kept(
            answer, organization, fetched=now, first=first, until=answer.expires + self._seconds
        )
        if kept.size > self._octets // NEWCOMERS:
            return
        (self._settled if now - first >= SETTLED else self._new).add(key, kept)
        while len(self) > self._entries or self.size > self._octets:
            crowded = (
                len(self._new) * NEWCOMERS > self._entries
                or self._new.size * NEWCOMERS > self._octets
            )
            (
                self._new
                if len(self._new) and (crowded or not len(self._settled))
                else self._settled
            ).drop_one()

    def _forget(self, key: Key) -> None:
        self._settled.remove(key)
        self._new.remove(key)
