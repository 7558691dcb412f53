"""Which questions are in flight and which wait: fair to client networks and messages, with places
kept for author policies.

Policy alone: no I/O, no clock. The resolver gives the time (seconds, monotonic) and does what Moves
say. A question is sent once for all who ask it. Answers
at hand never come here.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from dmarc_milter.core.fair_sharing import Asker, Pool, Shares, State, Ticket
from dmarc_milter.dns.answer import Key

POLICY_PART: Final = 4
"""One of so many places is kept for the look-ups of author policies, which use no others."""
NETWORK_PART: Final = 6
"""A client network may have one of so many of a pool's places."""
MESSAGE_PART: Final = 12
PATIENCE: Final = 0.5
"""Seconds that a question stays in flight although another client network has far less and waits:
most answers take less."""


class AdmittedQuestion(Ticket):
    """A question that is in flight or waits. `item` is the resolver's own; `key` and `pool` are
    Admission's."""

    __slots__ = ("key", "pool")

    def __init__(self, item: Any, key: Key, pool: Pool) -> None:
        super().__init__(item)
        self.key, self.pool = key, pool


class Moves(NamedTuple):
    """What is to be done now: questions to send, and those to take back, which wait again unless
    nobody wants them any more."""

    send: list[AdmittedQuestion]
    recall: list[AdmittedQuestion]


NOTHING = Moves([], [])
"""Never changed."""


def shares(size: int) -> Shares:
    """Of a pool of this size."""
    return Shares(size, max(1, size // NETWORK_PART), max(1, size // MESSAGE_PART))


class Admission:
    """The places of one process's questions in flight: `limit` in all."""

    def __init__(self, limit: int) -> None:
        kept = max(1, limit // POLICY_PART)
        self._policy = Pool(shares(kept))
        self._others = Pool(shares(max(1, limit - kept)))
        self._entries: dict[Key, AdmittedQuestion] = {}
        self._wanted: dict[Asker, dict[AdmittedQuestion, None]] = {}
        """What each message wants, so that it can leave."""

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return self._policy.waiting + self._others.waiting

    @property
    def in_flight(self) -> int:
        """Questions that have a place."""
        return self._policy.used + self._others.used

    def find(self, key: Key) -> AdmittedQuestion | None:
        """The question, if somebody asks it already."""
        return self._entries.get(key)

    def ask(self, key: Key, item: Any, asker: Asker, *, policy: bool, now: float) -> Moves:
        """A question is asked. `item` is what a new one carries; if it may be sent it is among
        those to send."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = AdmittedQuestion(
                item, key, self._policy if policy else self._others
            )
        self._wanted.setdefault(asker, {})[entry] = None
        had = entry.state is State.IN
        if policy and not had and entry.pool is self._others and entry.askers:
            self._promote(entry, now)
        if entry.pool.enter(entry, asker, now):
            return NOTHING if had else Moves([entry], [])
        moves = Moves([], [])
        self._relieve(entry.pool, now, moves)
        return moves

    def done(self, entry: AdmittedQuestion, now: float) -> Moves:
        """It is settled, or given up: whoever waits may have its place."""
        if self._entries.get(entry.key) is not entry:
            return NOTHING
        self._drop(entry)
        if not entry.pool.waiting:
            return NOTHING
        moves = Moves([], [])
        self._fill(entry.pool, now, moves)
        return moves

    def leave(self, asker: Asker, now: float) -> Moves:
        """The message has ended: what nobody else wants is given up, be it in flight or not."""
        wanted = self._wanted.pop(asker, None)
        if not wanted:
            return NOTHING
        moves = Moves([], [])
        for entry in wanted:
            if entry.pool.withdraw(entry, asker):
                self._drop(entry)
                moves.recall.append(entry)
        if moves.recall:
            self._fill(self._policy, now, moves)
            self._fill(self._others, now, moves)
        return moves

    def relieve(self, now: float) -> Moves:
        """From time to time while something waits: who has had much for long gives way to who has
        little."""
        moves = Moves([], [])
        for pool in (self._policy, self._others):
            if pool.waiting:
                self._relieve(pool, now, moves)
        return moves

    def _relieve(self, pool: Pool, now: float, moves: Moves) -> None:
        while (victim := pool.displace(now, PATIENCE)) is not None:
            assert isinstance(victim, AdmittedQuestion)
            moves.recall.append(victim)
            self._fill(pool, now, moves)

    @staticmethod
    def _fill(pool: Pool, now: float, moves: Moves) -> None:
        while (entry := pool.next(now)) is not None:
            assert isinstance(entry, AdmittedQuestion)
            moves.send.append(entry)

    def _promote(self, entry: AdmittedQuestion, now: float) -> None:
        """Somebody waits for it as a policy now: it gets the places kept for that, and so does
        whoever asked before."""
        askers = tuple(entry.askers)
        for asker in askers:
            entry.pool.withdraw(entry, asker)
        entry.state, entry.pool = State.WAITING, self._policy
        for asker in askers:
            self._policy.enter(entry, asker, now)

    def _drop(self, entry: AdmittedQuestion) -> None:
        for asker in entry.askers:
            wanted = self._wanted[asker]
            del wanted[entry]
            if not wanted:
                del self._wanted[asker]
        entry.pool.done(entry)
        del self._entries[entry.key]
