"""What an SPF check will ask, said from MAIL FROM on as the answers come: hints alone, which decide
nothing."""

from __future__ import annotations

from collections.abc import Iterator

from dmarc_milter.core import budget
from dmarc_milter.core.mail.ip_address import plain_address
from dmarc_milter.core.mail.message import Envelope
from dmarc_milter.core.resolver import Question, RdataType, Resolver, arrived
from dmarc_milter.core.spf import record as spf_record
from dmarc_milter.core.spf.check import questions
from dmarc_milter.core.spf.look_ahead import LookAhead
from dmarc_milter.core.spf.options import SpfOptions
from dmarc_milter.core.spf.record import SpfRecord, is_askable

MAX_EXCHANGES = 4
"""Addresses asked ahead for the names of mx, in all. The check itself may ask for more."""


class EarlyQuestions:
    """Of one check: its first question, at most ten for its terms (RFC 7208 4.6.4), and the
    addresses of a few exchanges."""

    def __init__(self, envelope: Envelope, options: SpfOptions) -> None:
        self._first = questions(envelope)
        self._options = options
        self._exchanges = MAX_EXCHANGES
        self._mx: set[str] = set()
        """Names whose exchanges are waited for."""
        self._read = False
        if envelope.source_ip is not None:
            client = plain_address(envelope.source_ip)
            self._ahead = LookAhead(client, options)
            self._address: RdataType = "A" if client.version == 4 else "AAAA"

    def first(self) -> tuple[Question, ...]:
        """What is known at MAIL FROM; nothing where SPF asks nothing."""
        return self._first

    def next(self, resolver: Resolver) -> list[Question]:
        """What the answers that have come lead to, beyond what was asked for before."""
        if not self._first:
            return []
        found = [] if self._read else self._of_record(resolver)
        if self._read:
            found += self._ahead.beyond(budget.SPF_TERMS, resolver)
        found = [question for question in found if is_askable(question.name)]
        self._ahead.taken(len(found))
        self._mx |= {question.name for question in found if question.rdtype == "MX"}
        return found + list(self._addresses(resolver))

    def _of_record(self, resolver: Resolver) -> list[Question]:
        (here, _), options = self._first[0], self._options
        texts = spf_record.select(arrived(resolver, here))
        if len(texts) != 1 or len(texts[0]) > options.max_record:
            return []
        record = spf_record.parse(texts[0], options.max_term)
        if not isinstance(record, SpfRecord):
            return []
        self._read = True
        return self._ahead.questions(record, 0, here=here, room=budget.SPF_TERMS, resolver=resolver)

    def _addresses(self, resolver: Resolver) -> Iterator[Question]:
        for name in tuple(self._mx):
            exchanges = arrived(resolver, name, "MX")
            if exchanges:
                self._mx.discard(name)
            for _, exchange in sorted(exchanges)[: self._exchanges]:
                if is_askable(exchange):
                    self._exchanges -= 1
                    yield Question(exchange.lower(), self._address)
