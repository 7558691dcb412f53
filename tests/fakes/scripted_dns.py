"""The process's resolver without a network: answers from a Zone at once, with a TTL for each name,
and a clock that is a number."""

from __future__ import annotations

from typing import Any

from dmarc_milter.core.resolver import LookupFailed, NoAnswer, Question
from dmarc_milter.dns.answer import Answer, Key, failed
from dmarc_milter.dns.attempt import Pending
from dmarc_milter.dns.cache import Derived
from dmarc_milter.dns.resolver import DnsResolver
from dmarc_milter.process.loop import Loop
from fakes.dns_zone import Zone


class Scripted(DnsResolver):
    """The process's resolver, its answers from a Zone with a TTL for each name, its clock a
    number."""

    def __init__(self, zone: Zone, ttls: dict[str, int], *, derived_cache: bool = True) -> None:
        self.now = 0.0
        super().__init__(Loop(), ["192.0.2.53"], clock=lambda: self.now)
        self.zone, self.ttls, self.keeps = zone, ttls, derived_cache
        self.sent: list[Key] = []

    def _send(self, pending: Pending) -> Answer | None:
        key = pending.key
        self.sent.append(key)
        ttl = self.ttls.get(key[0], 60)
        try:
            values: list[Any] = self.zone.resolve(Question(*key))  # type: ignore[arg-type]
            records = (
                tuple("".join(each).encode() for each in values)
                if key[1] == "TXT"
                else tuple(values)
            )
            answer = Answer(records, ttl=ttl)
        except NoAnswer as absent:
            answer = Answer(failure=type(absent), reason="absent", ttl=ttl)
        except LookupFailed:
            answer = failed("scripted")
        self.cache.put(key, answer, self.now)
        return answer

    def keep_derived(self, key: Any, derived: Derived) -> None:
        if self.keeps:
            super().keep_derived(key, derived)
