"""What an SPF record will ask next, before its terms are evaluated, so that the questions travel
side by side."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from dmarc_milter.core import budget
from dmarc_milter.core.resolver import Question, RdataType, Resolver, arrived
from dmarc_milter.core.spf import record as spf_record
from dmarc_milter.core.spf.options import SpfOptions
from dmarc_milter.core.spf.record import Directive, SpfRecord

FIRST_QUESTIONS: dict[str, RdataType] = {"include": "TXT", "mx": "MX", "exists": "A"}


class LookAhead:
    """Of one check: at most as many questions as it has terms that look something up (RFC 7208
    4.6.4)."""

    def __init__(self, client: IPv4Address | IPv6Address, options: SpfOptions) -> None:
        self._client = client
        self._options = options
        self._address: RdataType = "A" if client.version == 4 else "AAAA"
        self._left = budget.SPF_TERMS
        self._included: dict[str, None] = {}
        """Names that were asked ahead and not evaluated yet."""

    def evaluated(self, name: str) -> None:
        """This record is evaluated now."""
        self._included.pop(name.lower(), None)

    def taken(self, count: int) -> None:
        """So many questions were asked ahead."""
        self._left -= count

    def questions(
        self, record: SpfRecord, position: int, *, here: str, room: int, resolver: Resolver
    ) -> list[Question]:
        """The first questions of the terms from `position` up to one that certainly matches, where
        no macro hides them. `here`: the name that the record stands at."""
        room = min(room, self._left)
        questions: list[Question] = []
        for directive in record.directives[position:]:
            if directive.mechanism == "all" or (
                directive.network is not None and self._client in directive.network
            ):
                break
            if directive.mechanism in spf_record.LOOKS_UP and len(questions) < room:
                questions.extend(self._first_question(directive, here))
        else:
            if record.redirect and "%" not in record.redirect and len(questions) < room:
                questions.append(Question(record.redirect.removesuffix(".").lower(), "TXT"))
        self._included |= {
            question.name: None for question in questions if question.rdtype == "TXT"
        }
        questions.extend(self.beyond(room - len(questions), resolver))
        return questions

    def beyond(self, room: int, resolver: Resolver) -> Iterator[Question]:
        """What the included records that have come meanwhile will ask first: one record's includes
        need not wait for another's."""
        room = min(room, self._left)
        for name in tuple(self._included) if room > 0 else ():
            texts = spf_record.select(arrived(resolver, name))
            record = (
                spf_record.parse(texts[0], self._options.max_term)
                if len(texts) == 1 and len(texts[0]) <= self._options.max_record
                else None
            )
            if not isinstance(record, SpfRecord):
                continue
            del self._included[name]
            for directive in record.directives:
                if directive.mechanism == "include" and "%" not in directive.target and room > 0:
                    room -= 1
                    yield Question(directive.target.removesuffix(".").lower(), "TXT")

    def _first_question(self, directive: Directive, here: str) -> Iterator[Question]:
        if directive.mechanism == "ptr":
            yield Question(self._client.reverse_pointer, "PTR")
        elif "%" not in directive.target:
            name = (directive.target or here).removesuffix(".").lower()
            yield Question(name, FIRST_QUESTIONS.get(directive.mechanism, self._address))
