"""What stands behind a session: the handler of a worker, the transactions that it makes, and their
options.

A transaction is RFC 5321 3.3's: MAIL FROM to the end of the message. session.py calls these
protocols; transaction.py implements them with the core.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal, Protocol

from dmarc_milter.core import budget
from dmarc_milter.core.actions.plan import Action, deferral_reply
from dmarc_milter.core.mail.message import Envelope, Headers
from dmarc_milter.core.policy.decide import Deferral
from dmarc_milter.core.quick_dataclass import quick_dataclass

Networks = tuple[IPv4Network | IPv6Network, ...]
TRY_LATER = deferral_reply(Deferral("failure"))


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What a session needs of the configuration."""

    trusted_networks: Networks = ()
    trusted_relays: Networks = ()
    trusted_daemons: Collection[str] = frozenset()
    """Those that take mail from authenticated clients alone, at the moment of asking."""
    daemons_of_sendmail: bool = False
    """Whether these names were read from Sendmail's own file: then they say nothing of a
    Postfix."""
    keep_results_from: Networks = ()
    on_error: Literal["tempfail", "accept"] = "tempfail"
    enforce: bool = True
    """False: monitor mode, in which nothing waits, neither for others nor for a failure of ours."""
    header_bytes: int = budget.HEADER_BYTES
    header_fields: int = budget.HEADER_FIELDS
    stand_ins: dict[bytes, bytes] = field(default_factory=dict)
    """See Collector."""
    own_addresses: frozenset[bytes] = frozenset()
    """Our reporting and bounce addresses, lower case, without angle brackets."""


@quick_dataclass(frozen=True, slots=True)
class Own:
    """Whether the sender is our own reporting or bounce address, and whether all recipients are."""

    recipient: bool = False
    sender: bool = False


class MailTransaction(Protocol):
    """One mail transaction (RFC 5321 3.3), whose evaluation begins before all of the message has
    arrived. Any method may raise: that is our failure."""

    def headers(self, headers: Headers) -> None:
        """All header fields are there. Returns at once."""
        ...

    def body(self, chunk: bytes) -> bool:
        """More of the body; False when no more of it is wanted."""
        ...

    def finish(self, envelope: Envelope, own: Own, *, keep_results: bool) -> tuple[Action, ...]:
        """Evaluate, record, log; blocks until the answer is known. The envelope is complete now."""
        ...

    def cancel(self) -> None:
        """Nothing more of it is wanted: it will not be finished, or has been."""
        ...


class MessageHandler(Protocol):
    """What stands behind the sessions of a worker."""

    def begin(self, envelope: Envelope) -> MailTransaction:
        """Client, HELO and MAIL FROM are known. Returns at once."""
        ...

    def pass_through(self, headers: Headers, *, keep_results: bool) -> tuple[Action, ...]:
        """For a message that is not evaluated: only what is forged goes."""
        ...

    def unjudged(
        self, headers: Headers, envelope: Envelope, *, keep_results: bool
    ) -> tuple[Action, ...]:
        """For a message that goes on although it could not be judged: what is forged goes, and our
        own field says dmarc=temperror."""
        ...

    def exempted(self, name: str, envelope: Envelope, why: str) -> None:
        """A message passed unevaluated; `name` is its queue id or the connection's."""
        ...

    def overloaded(self, name: str, envelope: Envelope | None, reason: str) -> None:
        """A message could not be judged because others had taken what that takes."""
        ...

    def failed(self, name: str, where: str, error: str) -> None:
        """Our own failure on a message."""
        ...
