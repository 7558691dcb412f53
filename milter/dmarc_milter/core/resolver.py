"""DNS as the evaluation sees it: a Resolver handed in, and the three ways an answer can be
missing."""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Literal, NamedTuple, Protocol

RdataType = Literal["TXT", "A", "AAAA", "MX", "PTR"]


SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC})
"""Of an OSError: something is used up. That is our shortage, not the DNS's failure."""


class NoAnswer(Exception):
    """There is definitely no such data. The common parent of NoSuchName and NoData."""


class NoSuchName(NoAnswer):
    """NXDOMAIN: the name does not exist, nor anything below it (RFC 8020)."""


class NoSuchTarget(NoSuchName):
    """NXDOMAIN behind an alias: the name asked for exists, being one; what its CNAMEs lead to does
    not (RFC 2308 2.1, RFC 6604 3)."""


class NoData(NoAnswer):
    """The name exists (or is an empty non-terminal) and has no record of this type."""


class LookupFailed(Exception):
    """The DNS did not answer (SERVFAIL, REFUSED, time-out, garbage, CNAME loop): nothing is known;
    later it may.

    `name` is the name that was asked (absolute, without trailing dot), "" where it is not known.
    The sender may have chosen it.
    """

    def __init__(self, text: str = "", *, name: str = "") -> None:
        super().__init__(text)
        self.name = name


class Shortage(LookupFailed):
    """Our own saturation: the question was still unsent when the message's time ended. Never a DNS
    answer, never remembered."""


class Abandoned(BaseException):
    """Nobody waits for this message any more: its evaluation is to end. No answer and no failure,
    so nothing on the way may catch it."""


def is_shortage(error: BaseException) -> bool:
    """Whether it was raised for want of what others have taken: places, threads, memory,
    descriptors."""
    return isinstance(error, Shortage | MemoryError) or (
        isinstance(error, OSError) and error.errno in SCARCE
    )


class LimitExceeded(LookupFailed):
    """The message asked for more than its share of look-ups or time. The message's own doing, not
    the DNS's."""


class TimeExceeded(LimitExceeded):
    """It was the time that ran out, not the number of look-ups."""


class Missing(NamedTuple):
    """An answer that could not be had, and whose fault that is.

    dns: the DNS did not answer. limit: the message asked for more names than its share. time: its
    time was over before this one had its own, and whose doing that is nobody knows. shortage: other
    messages had taken what it takes to ask. failure: this program did not look.
    """

    kind: Literal["dns", "limit", "time", "shortage", "failure"]
    name: str = ""
    """The DNS name that was asked for, "" where it is not known. The sender may have chosen it."""


GRAVEST_FIRST = ("limit", "time", "shortage", "failure", "dns")


def missing(error: LookupFailed) -> Missing:
    """The value for this exception."""
    kind: Literal["dns", "limit", "time", "shortage"] = "dns"
    if isinstance(error, TimeExceeded):
        kind = "time"
    elif isinstance(error, LimitExceeded):
        kind = "limit"
    elif isinstance(error, Shortage):
        kind = "shortage"
    return Missing(kind, error.name)


def gravest(found: Iterable[Missing | None]) -> Missing | None:
    """The one that decides what is done about several: what is the message's or our own doing
    before trouble in the DNS."""
    return min(filter(None, found), key=lambda lost: GRAVEST_FIRST.index(lost.kind), default=None)


class Question(NamedTuple):
    """What is asked: `name` is absolute, ASCII, without trailing dot; labels are LDH, underscore or
    a wildcard-free macro result."""

    name: str
    rdtype: RdataType


class Resolver(Protocol):
    """Absolute look-ups, CNAMEs followed. Each method raises NoSuchName, NoData or LookupFailed;
    never anything else.

    A name that cannot be asked (bad length, or characters outside printable ASCII; a space is
    inside) raises NoSuchName without a query. Answers are never empty.
    """

    def txt(self, name: str) -> tuple[bytes, ...]:
        """Each TXT record, its character-strings concatenated without separator."""
        ...

    def addresses(self, name: str, rdtype: Literal["A", "AAAA"]) -> tuple[str, ...]:
        """Addresses in text form (RFC 5952 for IPv6)."""
        ...

    def mx(self, name: str) -> tuple[tuple[int, str], ...]:
        """(preference, exchange without trailing dot; "" is the null MX of RFC 7505)."""
        ...

    def ptr(self, name: str) -> tuple[str, ...]:
        """Names, without trailing dot, for an in-addr.arpa or ip6.arpa name."""
        ...

    def aliases(self, name: str, rdtype: Literal["A", "AAAA", "MX"]) -> tuple[str, ...]:
        """The names that a question of this type is led to by CNAMEs, in their order, whether or
        not the last has such records.

        Empty where the name is no alias or does not exist; "" stands for a target that could not be
        asked for. Raises LookupFailed.
        """
        ...

    def prefetch(self, questions: Iterable[Question]) -> None:
        """A hint: these will be asked soon. Returns at once, never raises."""
        ...

    def share(self, *, queries: int, seconds: float) -> Resolver:
        """This message's resolver with a limit of its own: at most `queries` different questions
        and `seconds` from now.

        Beyond it every question not yet answered raises LimitExceeded. The share is taken from the
        whole message's budget but never frees anyone else's: queries asked here count for the
        message too.
        """
        ...


class StaleAnswer(NamedTuple):
    """An answer used past its time because the DNS of its name failed (RFC 8767). `seconds` since
    the DNS gave it."""

    name: str
    seconds: float


class Kept(NamedTuple):
    """What was derived from DNS answers. `keep` says whether it may serve other messages too;
    `size` is about its bytes."""

    value: Any
    keep: bool
    size: int = 500


Work = Callable[[Resolver], Kept]


class Remembers:
    """A Resolver of one message that knows what was derived for others, for as long as every answer
    used then is still good."""

    __slots__ = ()

    def recall(self, key: Hashable) -> Any:
        """What `derive` of this key would give without any work, or None. Its questions then count
        as asked."""
        raise NotImplementedError

    def policy(self) -> Resolver:
        """The same for look-ups of the author's policy: what they ask never waits behind anything
        else."""
        raise NotImplementedError

    def delay(self, seconds: float) -> None:
        """So much of the message's time went by before it could ask anything, for want of room:
        what it lacks then is a Shortage."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The message has ended, or nobody waits for it: what it asks is given up, and whoever asks
        for it gets Abandoned."""
        raise NotImplementedError

    def pause(self) -> None:
        """Other messages may go on now, if this one has used the processor for long."""
        raise NotImplementedError

    def derive(self, key: Hashable, work: Work) -> Any:
        """What `work` gave with this key before, or gives now."""
        raise NotImplementedError

    def arrived(self, name: str, rdtype: Literal["TXT", "MX"] = "TXT") -> tuple[Any, ...]:
        """The records of a name that was prefetched, if they are there by now. For further hints,
        never for a verdict."""
        raise NotImplementedError

    def telling(self, call: Callable[[], None], queries: int) -> Resolver:
        """The same, for at most so many hints: whenever an answer comes to one of them, this is
        called, in the loop and where it may only take note."""
        raise NotImplementedError

    def knows(self, key: Hashable) -> bool:
        """Whether `recall` would give something. Nothing counts as asked."""
        raise NotImplementedError

    def stale_answers(self) -> tuple[StaleAnswer, ...]:
        """The answers that this message got past their time."""
        raise NotImplementedError


def for_policy(resolver: Resolver) -> Resolver:
    """The resolver for what leads to the author's policy (RFC 9989 4.10.1), which has places of its
    own among what is asked."""
    return resolver.policy() if isinstance(resolver, Remembers) else resolver


def delay(resolver: Resolver, seconds: float) -> None:
    """Take from the message's time what it spent waiting for its turn."""
    if isinstance(resolver, Remembers):
        resolver.delay(seconds)


def abandon(resolver: Resolver) -> None:
    """Let go of everything that is asked for this message."""
    if isinstance(resolver, Remembers):
        resolver.abandon()


def pause(resolver: Resolver) -> None:
    """Said between steps of work on a message: no message holds up the others for long. Cheap."""
    if isinstance(resolver, Remembers):
        resolver.pause()


def derive(resolver: Resolver, key: Hashable, work: Work) -> Any:
    """The value of `work`, which must depend on nothing but `key` and the answers to what it asks
    the resolver it is given.

    Remembered from message to message where the resolver can: never longer than the first of those
    answers.
    """
    return resolver.derive(key, work) if isinstance(resolver, Remembers) else work(resolver).value


def recall(resolver: Resolver, key: Hashable) -> Any:
    """What `derive` of this key would give at once, or None."""
    return resolver.recall(key) if isinstance(resolver, Remembers) else None


def arrived(resolver: Resolver, name: str, rdtype: Literal["TXT", "MX"] = "TXT") -> tuple[Any, ...]:
    """Records that a hint has brought already; nothing where that cannot be told without
    waiting."""
    return resolver.arrived(name, rdtype) if isinstance(resolver, Remembers) else ()


def telling(resolver: Resolver, call: Callable[[], None], queries: int) -> Resolver:
    """The resolver for hints that lead to further hints, so many at most: called whenever an answer
    to one comes, where that can be told."""
    return resolver.telling(call, queries) if isinstance(resolver, Remembers) else resolver


def knows(resolver: Resolver, key: Hashable) -> bool:
    """Whether `recall` of this key would give something."""
    return isinstance(resolver, Remembers) and resolver.knows(key)


def stale_answers(resolver: Resolver) -> tuple[StaleAnswer, ...]:
    """Answers that the message was given although their time was over; none where the resolver
    keeps none."""
    return resolver.stale_answers() if isinstance(resolver, Remembers) else ()
