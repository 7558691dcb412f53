"""The mends that the differential fuzz must miss when they are switched off: its own proof.

Switching off is done to the modules in memory, for one test; the program itself has no such switch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from dmarc_milter.core.mail import author, lenient, lenient_lists, odd_domains
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.mail.odd_domains import Names
from fuzz.differential import Finding

Off = Callable[[pytest.MonkeyPatch], None]


class Mend(NamedTuple):
    """`form` tells the forgery that it was made for among all that are found; `example` is one, as
    somebody would write it."""

    name: str
    example: bytes
    off: Off
    form: re.Pattern[bytes]
    decoded: bool = False
    """Whether the address shows only once encoded words are decoded."""

    def switch_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            author, "_usual", lambda value: author._author((value,))
        )  # nothing is remembered meanwhile
        self.off(monkeypatch)

    def explains(self, finding: Finding) -> bool:
        hidden = (
            finding.shown.rpartition("@")[2].encode("utf-8", "surrogateescape") not in finding.value
        )
        return bool(self.form.search(finding.value)) and (hidden or not self.decoded)


def other_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether other readers of a well-formed field see a second domain."""
    monkeypatch.setattr(lenient_lists, "in_doubt", lambda value, domain: False)


def names_behind_odd_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that begins after the last odd character, or is left without it."""
    runs = Names._runs

    def first(self: Names, text: str) -> Iterator[Domain]:
        yield from list(runs(self, odd_domains.ODD.split(text)[0], odd_domains._label))[:1]

    monkeypatch.setattr(Names, "_pieces", first)
    monkeypatch.setattr(Names, "_joined", lambda self, text: iter(()))


def names_over_white_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name that is left where white space is skipped, and the words after it."""
    whole = lenient._after_each_at

    def first_word(text: str, loose: bool) -> Iterator[tuple[tuple[str, ...], bool]]:
        for parts, before_at in whole(text, loose):
            yield parts[:1], before_at

    monkeypatch.setattr(lenient, "_after_each_at", first_word)
    monkeypatch.setattr(lenient, "_over_white_space", lambda piece, after: iter(()))


def names_by_idna2003(monkeypatch: pytest.MonkeyPatch) -> None:
    """An organization whose own label is no IDNA2008."""
    monkeypatch.setattr(odd_domains, "_any_label", odd_domains._label)


ANY = rb"[^\"(),<>@]*"
MENDS = (
    Mend(
        "odd label",
        b"Bank <service@a+b.bank.example>",
        names_behind_odd_characters,
        re.compile(rb"@\w*[+%&!=*{}|~^`?#$/]\w*\.\w"),
    ),
    Mend(
        "own domain in front",
        b"Bank <service@attack.example+x.bank.example>",
        names_behind_odd_characters,
        re.compile(rb"@attack\.example[^\w.,>@\s]\w*\.\w"),
    ),
    Mend(
        "label that is no IDNA",
        "Bank <service@a\u2603.bank.example>".encode(),
        names_behind_odd_characters,
        re.compile(rb"@[\w.]*[\x80-\xff]+[\w.]*\.(legit|bank)\."),
    ),
    Mend(
        "white space in a name",
        b"Bank <service@ba nk.example>",
        names_over_white_space,
        re.compile(rb"@[\w.]+\s+[\w.]+"),
    ),
    Mend(
        "empty group first",
        b'"admin@legit.example" :;, a@attack.example',
        other_readings,
        re.compile(rb'@[^"]*"\s*:\s*;'),
    ),
    Mend(
        "quoted local part",
        b'"admin@legit.example"@attack.example',
        other_readings,
        re.compile(rb'"[^"]*@[^"]*"@'),
    ),
    Mend(
        "comment for an element",
        b"(admin@legit.example), a@attack.example",
        other_readings,
        re.compile(rb"\(" + ANY + rb"@[^()]*\)"),
    ),
    Mend(
        "escaped quotes before an angle",
        rb'Admin <"a\" <admin@legit.example> "@attack.example>',
        other_readings,
        re.compile(rb'\\" ?<[^<>]*@'),
    ),
    Mend(
        "encoded word that never ends",
        b"=?utf-8?Q?admin=40legit.example?= =?utf-8?Q?=2C <a@attack.example>",
        other_readings,
        re.compile(rb"=\?[^?\s]+\?[QqBb]\?(?![^\s]*\?=)"),
        decoded=True,
    ),
    Mend(
        "organization that is no IDNA2008",
        "a@\u2764.example".encode(),
        names_by_idna2003,
        re.compile("\u2764".encode()),
    ),
)
