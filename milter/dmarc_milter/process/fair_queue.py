"""Whose turn it is: processor time shared by client network.

Every network has a place, in seconds of processor time: what it has had moves it back, and the one
in front goes next (start-time fair queueing). Whoever had less than a share is ahead of those who
always have something to do, by CREDIT at most: a short message goes before long ones. Policy alone:
no clock, no loop; the owner says how long each has had.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

CREDIT: Final = 0.05
"""Seconds that a network which had little is ahead of those that always have something to do."""
PACE: Final = 0.5
"""How quickly idleness is worth less, in shares of a network: below 1, or those who come new would
wait behind all who lag; above 0, or an endless row of new networks would keep all others out. These
have PACE of an even share at least, whatever comes."""
MANY: Final = 1000
"""Networks that wait for nothing: from here on they are looked through."""

Item = TypeVar("Item")


class _Network(Generic[Item]):
    """`place`: in the order, seconds. `busy`: it is in the order, or being served."""

    __slots__ = ("busy", "items", "place")

    def __init__(self, place: float) -> None:
        self.place = place
        self.busy = False
        self.items: deque[Item] = deque()


class FairQueue(Generic[Item]):
    """Items that wait, by network. What `take` gives is served until `served` is called: one at a
    time. A network's items go in their order."""

    def __init__(self) -> None:
        self._networks: dict[Hashable, _Network[Item]] = {}
        self._order: list[tuple[float, int, Hashable]] = []
        self._number = itertools.count()
        self._front = 0.0
        """The place of whoever comes new: idleness earns no more than that."""

    def __len__(self) -> int:
        """Networks that wait, without the one that is served."""
        return len(self._order)

    @property
    def known(self) -> int:
        """Networks that something is remembered of."""
        return len(self._networks)

    def put(self, network: Hashable, item: Item) -> None:
        """It waits."""
        entry = self._entry(network)
        entry.items.append(item)
        if not entry.busy:
            self._enter(network, entry)

    def take(self) -> tuple[Hashable, Item]:
        """The next one and its network. Raises IndexError where none waits."""
        place, _, network = heapq.heappop(self._order)
        self._front = max(self._front, place - CREDIT)
        return network, self._networks[network].items.popleft()

    def served(self, network: Hashable, seconds: float) -> None:
        """What `take` gave last has had so much processor time."""
        entry = self._networks[network]
        self._move_back(entry, seconds)
        if entry.items:
            self._enter(network, entry)
            return
        entry.busy = False
        self._forget_if_many()

    def charge(self, network: Hashable, seconds: float) -> None:
        """It has had so much processor time beside its turns."""
        self._move_back(self._entry(network), seconds)
        self._forget_if_many()

    def is_behind(self, network: Hashable) -> bool:
        """Whether somebody waits who has had less by more than CREDIT."""
        entry = self._networks.get(network)
        return entry is not None and bool(self._order) and entry.place > self._order[0][0] + CREDIT

    def rest(self, seconds: float) -> None:
        """Nothing waited for so long: what somebody has had before counts for less."""
        self._front += seconds

    def _entry(self, network: Hashable) -> _Network[Item]:
        """A network's, a new one if need be; one that waits for nothing is not ahead of the
        front."""
        entry = self._networks.get(network)
        if entry is None:
            entry = self._networks[network] = _Network(self._front)
        elif not entry.busy and entry.place < self._front:
            entry.place = self._front
        return entry

    def _move_back(self, entry: _Network[Item], seconds: float) -> None:
        entry.place += seconds
        self._front += PACE * seconds / (len(self._order) + 1)

    def _enter(self, network: Hashable, entry: _Network[Item]) -> None:
        entry.busy = True
        heapq.heappush(self._order, (entry.place, next(self._number), network))

    def _forget_if_many(self) -> None:
        if len(self._networks) > MANY + 2 * len(self._order):
            self._forget()

    def _forget(self) -> None:
        """Those that stand as new ones would; all that wait for nothing if they are too many."""
        busy = {key: one for key, one in self._networks.items() if one.busy}
        kept = {key: one for key, one in self._networks.items() if one.place > self._front} | busy
        self._networks = kept if len(kept) <= MANY // 2 + 2 * len(self._order) else busy
