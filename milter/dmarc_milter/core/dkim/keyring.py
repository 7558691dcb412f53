"""Keys by name: each is looked up once for a message, and each way of not having it keeps its own
word."""

from __future__ import annotations

from typing import NamedTuple

from dmarc_milter.core.dkim import key
from dmarc_milter.core.dkim.key import Key
from dmarc_milter.core.dkim.options import DkimOptions
from dmarc_milter.core.dkim.result import DkimStatus
from dmarc_milter.core.mail.domain import Malformed, is_special_use
from dmarc_milter.core.resolver import (
    LimitExceeded,
    LookupFailed,
    Missing,
    NoAnswer,
    Resolver,
    gravest,
    missing,
    pause,
)


class KeyAnswer(NamedTuple):
    """`keys` that can be used; when there is none, `status` and `reason` say why."""

    keys: tuple[Key, ...]
    status: DkimStatus = DkimStatus.PERMERROR
    reason: str = ""
    missing: Missing | None = None
    """With temperror: the answer that could not be had."""


class KeyRing:
    """The keys that one message's signatures name. dkimpy cannot tell a key that is not there from
    DNS that does not answer."""

    def __init__(self, resolver: Resolver, options: DkimOptions) -> None:
        self._resolver = resolver
        self._options = options
        self._known: dict[str, KeyAnswer] = {}

    def find(self, name: str) -> KeyAnswer:
        """The keys at `name` (RFC 6376 3.6.2, 6.1.2). Others may go on first: every signature comes
        here before it costs anything."""
        pause(self._resolver)
        if name not in self._known:
            self._known[name] = self._ask(name)
        return self._known[name]

    @property
    def missing(self) -> Missing | None:
        """The gravest of the answers that could not be had."""
        return gravest(answer.missing for answer in self._known.values())

    def _ask(self, name: str) -> KeyAnswer:
        if is_special_use(name):
            return KeyAnswer((), reason="no key")
        try:
            records = self._resolver.txt(name)
        except NoAnswer:
            return KeyAnswer((), reason="no key")
        except LimitExceeded:  # the message's own doing must not look like trouble in the DNS
            return KeyAnswer((), DkimStatus.POLICY, "too many look-ups")
        except LookupFailed as failure:
            return KeyAnswer((), DkimStatus.TEMPERROR, "key look-up failed", missing(failure))
        return self._read(records)

    def _read(self, records: tuple[bytes, ...]) -> KeyAnswer:
        """RFC 6376 6.1.2 (4) leaves open which of several records counts: each usable one is tried,
        in an order of its own."""
        options = self._options
        read = [
            (
                key.parse(record, options.min_rsa_bits, options.max_rsa_bits)
                if len(record) <= options.max_key_record
                else Malformed("key record too long")
            )
            for record in sorted(records)[: 4 * options.max_key_records]
        ]
        keys = tuple(record for record in read if isinstance(record, Key))
        if keys:
            return KeyAnswer(keys[: options.max_key_records])
        flaws = (record.reason for record in read if isinstance(record, Malformed))
        return KeyAnswer((), reason=next(flaws, "no key"))
