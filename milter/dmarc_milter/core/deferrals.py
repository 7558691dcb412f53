"""Three reasons why a message waits, three codes: the same words in the reply, `why`, `stats`, the
log and the README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Reason = Literal["dns", "overloaded", "failure"]


class Excuse(NamedTuple):
    """The enhanced code (RFC 3463 3.4, 3.5) and the end of the sentence that says why the message
    must wait."""

    enhanced: str
    because: str

    @property
    def code(self) -> str:
        """As it begins the reply."""
        return f"451 {self.enhanced}"

    def says(self, name: str) -> str:
        """The clause, with the DNS name that failed."""
        return self.because.format(name=name)


DEFERRALS: Mapping[str, Excuse] = {
    "dns": Excuse("4.4.3", "the DNS of {name} did not answer"),
    "overloaded": Excuse("4.3.2", "this mail server is overloaded"),
    "failure": Excuse("4.3.0", "the mail filter failed on this message"),
}


def deferral_text(reason: str, name: str) -> str:
    """Code and clause of a stored deferral, for lists; "" for a reason that this version does not
    know."""
    excuse = DEFERRALS.get(reason)
    return "" if excuse is None else f"{excuse.code}: {excuse.says(name or 'a domain in it')}"
