"""What one question got: records, a definite absence, a failure, or an alias still to be
followed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dmarc_milter.core.resolver import LookupFailed, NoData, NoSuchName, NoSuchTarget, Shortage

TYPES: Mapping[str, int] = {"A": 1, "NS": 2, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}
Key = tuple[str, str]
Failure = type[NoSuchName] | type[NoData] | type[LookupFailed]

OVERHEAD = 400  # octets that one cached answer costs beside its records: key, tuple and this object


class Answer:
    """One answer, shared by every message that asks; not changed once it is published.

    `records` is never empty unless `failure` (the exception class) or `alias` says otherwise.
    `alias` is the last CNAME target of an answer that stopped short of it, `via` the targets of the
    CNAMEs passed ("" for one that could not be asked for), `hops` their number. `ttl` is in seconds
    as the DNS said, `expires` in seconds of the monotonic clock, `size` in octets. `used` belongs
    to the cache.
    """

    __slots__ = ("alias", "expires", "failure", "reason", "records", "size", "ttl", "used", "via")

    def __init__(
        self,
        records: tuple[Any, ...] = (),
        *,
        failure: Failure | None = None,
        reason: str = "",
        ttl: int = 0,
        alias: str = "",
        via: tuple[str, ...] = (),
    ) -> None:
        self.records = records
        self.failure = failure
        self.reason = reason
        self.ttl = ttl
        self.alias = alias
        self.via = via
        self.expires = -math.inf
        self.size = (
            OVERHEAD
            + len(alias)
            + sum(
                64 + (len(record) if isinstance(record, bytes | str) else 128) for record in records
            )
        )
        self.used = False

    @property
    def hops(self) -> int:
        return len(self.via)

    def until(self, expires: float, via: tuple[str, ...]) -> Answer:
        """The same answer with another expiry, as the last of several that make up a whole; CNAMEs
        led here by way of `via`."""
        failure = NoSuchTarget if via and self.failure is NoSuchName else self.failure
        copy = Answer(
            self.records,
            failure=failure,
            reason=self.reason,
            ttl=self.ttl,
            alias=self.alias,
            via=via,
        )
        copy.expires = expires
        return copy

    def error(self, key: Key) -> Exception:
        """A fresh exception that says what was asked, unless the name was not fit to be."""
        failure = self.failure or LookupFailed
        text = self.reason if self is UNASKABLE else f"{key[1]} {key[0]}: {self.reason}"
        return failure(text, name=key[0]) if issubclass(failure, LookupFailed) else failure(text)


def failed(reason: str) -> Answer:
    """The DNS did not answer; `reason` is of this program's own words."""
    return Answer(failure=LookupFailed, reason=reason)


def short(reason: str) -> Answer:
    """It could not be asked for want of what others have taken; `reason` is of this program's own
    words."""
    return Answer(failure=Shortage, reason=reason)


def unaskable() -> Answer:
    """The name cannot exist in the DNS as this program asks it: there is nothing to send."""
    answer = Answer(failure=NoSuchName, reason="not a name that can be asked")
    answer.expires = math.inf
    return answer


UNASKABLE = unaskable()
