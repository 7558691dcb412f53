"""Places that are handed out fairly: round robin over client networks, then over a network's
messages.

Policy alone: no clock, no lock, no threads. Whoever owns a Pool gives the time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from enum import Enum, auto
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple

PREFIX: Final = {4: 24, 6: 64}
"""Bits of an address that make up a client network: whoever has one address of it commonly has
all."""
LOOKED_AT: Final = 64
"""Places that one search for somebody to displace looks at."""


class Asker(NamedTuple):
    """Who wants a place: a message and the client network that it came from."""

    network: Hashable
    message: Hashable


def client_network(address: IPv4Address | IPv6Address | None) -> Hashable:
    """What an Asker's network is for this client; all clients without a known address are one
    network."""
    return (
        None
        if address is None
        else (address.version, int(address) >> (address.max_prefixlen - PREFIX[address.version]))
    )


class State(Enum):
    """Where a Ticket stands."""

    WAITING = auto()
    IN = auto()
    """It has a place."""
    OVER = auto()


class Ticket:
    """One thing that needs a place, wanted by one or more askers. `since`: seconds, when it got its
    place."""

    __slots__ = ("asker", "askers", "item", "since", "state")

    def __init__(self, item: Any) -> None:
        self.item = item
        self.askers: dict[Asker, None] = {}
        self.asker: Asker | None = None
        """Whose share its place is counted in."""
        self.state = State.WAITING
        self.since = 0.0


class _MessageShare:
    __slots__ = ("places", "waiting")

    def __init__(self) -> None:
        self.places = 0
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()


class _NetworkShare:
    __slots__ = ("level", "messages", "places", "ready")

    def __init__(self) -> None:
        self.places: dict[Ticket, None] = {}
        """Tickets that have a place, the oldest first."""
        self.messages: dict[Hashable, _MessageShare] = {}
        self.ready: OrderedDict[_MessageShare, None] = OrderedDict()
        """Messages below their share with something that waits, the next one first."""
        self.level = -1
        """Its places when it was put into the pool's order; -1: it waits for nothing, or has its
        share."""


class Shares(NamedTuple):
    """How many places there are, and how many of them one client network and one message may
    have."""

    size: int
    network: int
    message: int


class Pool:
    """So many places, and everybody who waits for one.

    The next place goes to the network that has the fewest, of equals to the one whose turn it is;
    within it likewise to a message.
    """

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.used = 0
        self.waiting = 0
        """Tickets that wait; one that two askers want counts once."""
        self._networks: dict[Hashable, _NetworkShare] = {}
        self._order: list[OrderedDict[_NetworkShare, None]] = [
            OrderedDict() for _ in range(shares.network)
        ]
        """Networks that could take a place, by how many they have."""
        self._ready = 0

    def enter(self, ticket: Ticket, asker: Asker, now: float) -> bool:
        """Want a place for a ticket. Whether it has one now: it may have had it already, for
        another asker; else it waits."""
        if ticket.state is State.IN:
            ticket.askers[asker] = None
            return True
        first = not ticket.askers
        ticket.askers[asker] = None
        network, message = self._places_of(asker)
        shares = self.shares
        if (
            self.used < shares.size
            and len(network.places) < shares.network
            and message.places < shares.message
        ):
            if not first:
                self._admit(ticket, asker, now)
                return True
            # Nearly always: nobody else wants it, so there is no queue to take it from.
            self.used += 1
            ticket.state, ticket.since, ticket.asker = State.IN, now, asker
            network.places[ticket] = None
            message.places += 1
            if network.ready:
                self._arrange(network, message)
            return True
        self.waiting += first
        message.waiting[ticket] = None
        self._arrange(network, message)
        return False

    def next(self, now: float) -> Ticket | None:
        """Give a free place to whoever's turn it is; None when there is no place, or nobody who may
        have it."""
        if not self._ready or self.used >= self.shares.size:
            return None
        network = next(next(iter(level)) for level in self._order if level)
        message = min(network.ready, key=lambda message: message.places)
        ticket = next(iter(message.waiting))
        asker = next(
            candidate for candidate in ticket.askers if self._message(candidate) is message
        )
        self._admit(ticket, asker, now)
        return ticket

    def done(self, ticket: Ticket) -> None:
        """It needs no place any more, whether it has one or waits."""
        if ticket.state is State.IN:
            self._free(ticket)
            ticket.askers.clear()
        for asker in tuple(ticket.askers):
            self.withdraw(ticket, asker)
        ticket.state = State.OVER

    def withdraw(self, ticket: Ticket, asker: Asker) -> bool:
        """This asker wants it no more. Whether nobody does: one that waited is over then, one with
        a place keeps it until `done`."""
        if asker not in ticket.askers:
            return False
        del ticket.askers[asker]
        if ticket.state is State.WAITING:
            self._unqueue(ticket, asker)
            self.waiting -= not ticket.askers
            ticket.state = ticket.state if ticket.askers else State.OVER
        elif ticket.state is State.IN and ticket.askers and ticket.asker == asker:
            self._charge(ticket, next(iter(ticket.askers)))
        return not ticket.askers

    def displace(self, now: float, patience: float) -> Ticket | None:
        """Take the place of one that has had it for `patience` seconds, if whoever waits then has
        no more than it leaves the other.

        The ticket waits again, last in its message. None where nobody has that much more than one
        who waits.
        """
        full = self.used >= self.shares.size
        before = now - patience
        victim = (self._unlike_others(before) if full else None) or self._within(before)
        if victim is None:
            return None
        self._free(victim)
        victim.state = State.WAITING
        self.waiting += bool(victim.askers)
        for asker in victim.askers:
            network, message = self._places_of(asker)
            message.waiting[victim] = None
            self._arrange(network, message)
        return victim

    # What follows keeps the tables in step.

    def _places_of(self, asker: Asker) -> tuple[_NetworkShare, _MessageShare]:
        """The asker's tables, new ones if need be."""
        network = self._networks.get(asker.network)
        if network is None:
            network = self._networks[asker.network] = _NetworkShare()
        message = network.messages.get(asker.message)
        if message is None:
            message = network.messages[asker.message] = _MessageShare()
        return network, message

    def _message(self, asker: Asker) -> _MessageShare:
        return self._networks[asker.network].messages[asker.message]

    def _admit(self, ticket: Ticket, asker: Asker, now: float) -> None:
        self.waiting -= 1
        self.used += 1
        ticket.state, ticket.since = State.IN, now
        self._charge(ticket, asker)
        for candidate in ticket.askers:
            self._unqueue(ticket, candidate)

    def _charge(self, ticket: Ticket, asker: Asker) -> None:
        """Count the place in this asker's share, and in nobody else's."""
        self._discharge(ticket)
        network, message = self._places_of(asker)
        ticket.asker = asker
        network.places[ticket] = None
        message.places += 1
        network.ready.pop(message, None)  # its turn is over
        self._arrange(network, message)

    def _discharge(self, ticket: Ticket) -> None:
        asker, ticket.asker = ticket.asker, None
        if asker is None:
            return
        network = self._networks[asker.network]
        message = network.messages[asker.message]
        del network.places[ticket]
        message.places -= 1
        if network.ready or message.waiting:
            self._arrange(network, message)
        self._forget(asker)

    def _free(self, ticket: Ticket) -> None:
        self.used -= 1
        self._discharge(ticket)

    def _unqueue(self, ticket: Ticket, asker: Asker) -> None:
        network = self._networks.get(asker.network)
        message = network.messages.get(asker.message) if network else None
        if network is None or message is None:
            return
        message.waiting.pop(ticket, None)
        self._arrange(network, message)
        self._forget(asker)

    def _arrange(self, network: _NetworkShare, message: _MessageShare) -> None:
        """Whether the message, and then its network, could take a place."""
        if message.waiting and message.places < self.shares.message:
            network.ready.setdefault(message, None)
        else:
            network.ready.pop(message, None)
        held = len(network.places)
        level = held if network.ready and held < self.shares.network else -1
        if level == network.level:
            return
        if network.level >= 0:
            del self._order[network.level][network]
            self._ready -= 1
        if level >= 0:
            self._order[level][network] = None
            self._ready += 1
        network.level = level

    def _forget(self, asker: Asker) -> None:
        network = self._networks[asker.network]
        message = network.messages[asker.message]
        if not message.waiting and not message.places:
            del network.messages[asker.message]
        if not network.messages:
            del self._networks[asker.network]

    def _unlike_others(self, before: float) -> Ticket | None:
        """All places are taken: the oldest place of a network that has at least two more than one
        which waits."""
        level = next((number for number, networks in enumerate(self._order) if networks), None)
        if level is None:
            return None
        rich = sorted(
            (network for network in self._networks.values() if len(network.places) >= level + 2),
            key=lambda network: -len(network.places),
        )
        oldest = (next(iter(network.places)) for network in rich[:LOOKED_AT])
        return next((ticket for ticket in oldest if ticket.since <= before), None)

    def _within(self, before: float) -> Ticket | None:
        """There are places, but not for networks that have their share: the same between the
        messages of one of these."""
        for network in self._blocked():
            fewest = min(message.places for message in network.ready)
            for ticket in list(network.places)[:LOOKED_AT]:
                if (
                    ticket.since <= before
                    and ticket.asker
                    and self._message(ticket.asker).places >= fewest + 2
                ):
                    return ticket
        return None

    def _blocked(self) -> Iterator[_NetworkShare]:
        full = (
            network
            for network in self._networks.values()
            if len(network.places) >= self.shares.network and network.ready
        )
        yield from (network for network, _ in zip(full, range(LOOKED_AT), strict=False))
