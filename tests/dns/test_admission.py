"""Who gets the places of questions in flight: shares, turns, policies first, and what a message
that ends leaves behind."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmarc_milter.core.fair_sharing import Asker, Pool, Shares, State, Ticket, client_network
from dmarc_milter.dns.admission import PATIENCE, Admission, AdmittedQuestion, Moves, shares

LIMIT = 480  # 120 places for policies, 360 for others: a network may have 60 of these, a message 30


class World:
    """An Admission, and what a resolver would know of it. `sent` holds what is in flight."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.admission = Admission(limit)
        self.sent: dict[str, AdmittedQuestion] = {}
        self.now = 1000.0

    def ask(self, name: str, network: str, message: str = "", *, policy: bool = False) -> bool:
        """Whether it is in flight now."""
        asker = Asker(network, message or network)
        self.play(self.admission.ask((name, "TXT"), name, asker, policy=policy, now=self.now))
        return name in self.sent

    def flood(self, network: str, count: int, message: str = "", *, policy: bool = False) -> int:
        """So many different questions; how many are in flight."""
        names = [f"{number}.{message or network}.slow" for number in range(count)]
        return sum([self.ask(name, network, message, policy=policy) for name in names])

    def answered(self, name: str) -> None:
        self.play(self.admission.done(self.sent.pop(name), self.now))

    def leave(self, network: str, message: str = "") -> Moves:
        moves = self.admission.leave(Asker(network, message or network), self.now)
        self.play(moves)
        return moves

    def play(self, moves: Moves) -> None:
        for entry in moves.recall:
            self.sent.pop(entry.item, None)
        for entry in moves.send:
            self.sent[entry.item] = entry

    def held(self) -> Counter[str]:
        return Counter(str(entry.asker.network) for entry in self.sent.values() if entry.asker)


@pytest.fixture
def world() -> World:
    return World()


def test_a_question_alone_is_sent_at_once(world: World) -> None:
    assert world.ask("a.example", "n")
    world.answered("a.example")
    assert (world.admission.in_flight, world.admission.waiting) == (0, 0)


def test_equal_questions_are_one(world: World) -> None:
    """Whoever asks what is in flight already takes no place."""
    assert all(world.ask("a.example", network) for network in ("n", "m", "o"))
    assert world.admission.in_flight == 1


def test_a_message_has_a_share_and_then_waits(world: World) -> None:
    assert world.flood("n", 52, "m1") == 30
    assert world.admission.waiting == 22
    assert world.flood("n", 52, "m2") == 30
    assert world.flood("n", 5, "m3") == 0, "the network has its share now"
    assert world.flood("elsewhere", 5) == 5


def test_an_answer_lets_the_next_go_at_once(world: World) -> None:
    world.flood("n", 52)
    for waiting in range(22, 0, -1):
        assert world.admission.waiting == waiting
        world.answered(next(iter(world.sent)))
        assert world.admission.in_flight == 30


def test_networks_take_turns(world: World) -> None:
    """Round robin: of the places that become free each network that waits gets as many as any
    other, whoever came first."""
    for number in range(12):
        world.flood(f"early{number}", 52)
    for number in range(6):
        world.flood(f"late{number}", 20)
    while world.admission.waiting:
        for name in list(world.sent)[:60]:
            world.answered(name)
        if all(f"late{number}" in world.held() for number in range(6)):
            break
    late = [world.held()[f"late{number}"] for number in range(6)]
    assert max(late) - min(late) <= 1


def test_messages_of_a_network_take_turns(world: World) -> None:
    world.flood("n", 52, "m1")
    world.flood("n", 52, "m2")
    world.flood("n", 3, "m3")
    for name in list(world.sent)[:3]:
        world.answered(name)
    assert sum(name.endswith(".m3.slow") for name in world.sent) == 3


def test_policies_have_places_of_their_own(world: World) -> None:
    """Whatever else is asked fills the others; and policies do not fill those."""
    for number in range(40):
        world.flood(f"n{number}", 52)
    assert world.admission.in_flight == 360
    assert all(world.ask(f"_dmarc.{name}.example", "honest", policy=True) for name in "abcdefgh")
    for number in range(40):
        world.flood(f"p{number}", 40, f"walks{number}", policy=True)
    assert world.admission.in_flight == 480
    assert not any(
        "walks" in name
        for name in [
            entry.item for entry in world.sent.values() if entry.pool is world.admission._others
        ]
    )


def test_who_waits_for_a_policy_does_not_wait_where_another_asked_the_same_for_less(
    world: World,
) -> None:
    """An include of _dmarc.legit.example in the sender's SPF record, waiting among hundreds, holds
    up nobody's policy."""
    for number in range(40):
        world.flood(f"n{number}", 52)
    assert not world.ask("_dmarc.legit.example", "n1")
    assert world.ask("_dmarc.legit.example", "honest", policy=True)


def test_who_joins_a_question_that_waits_has_a_turn_of_its_own(world: World) -> None:
    """Asking for somebody's names in an overfull queue holds up nobody else's questions for
    them."""
    world.flood("attacker", 52)
    assert not world.ask("key.legit.example", "attacker")
    assert world.ask("key.legit.example", "honest")


def test_a_newcomer_takes_a_place_from_who_has_most_for_long(world: World) -> None:
    """All places are taken for seconds by names that never answer: who has few is not kept waiting
    for that."""
    for number in range(40):
        world.flood(f"n{number}", 52)
    assert not world.ask("key.legit.example", "honest"), "answers get a moment"
    world.now += PATIENCE
    world.play(world.admission.relieve(world.now))
    assert "key.legit.example" in world.sent
    assert all(world.ask(f"{number}.legit.example", "honest") for number in range(4))
    assert world.admission.in_flight == 360


def test_those_with_equal_parts_displace_nobody(world: World) -> None:
    """Forty networks that all want more than there is do not take each other's places."""
    for number in range(40):
        world.flood(f"n{number}", 52)
        world.now += PATIENCE
        world.play(world.admission.relieve(world.now))
    before = dict(world.sent)
    held = world.held().values()
    assert max(held) - min(held) <= 1
    for _ in range(10):
        world.now += PATIENCE
        world.play(world.admission.relieve(world.now))
    assert world.sent == before


def test_within_a_network_a_message_with_few_displaces_one_with_many(world: World) -> None:
    """An attacker at the same provider is another message of the same network."""
    world.flood("provider", 52, "m1")
    world.flood("provider", 52, "m2")
    world.now += PATIENCE
    assert world.ask("key.legit.example", "provider", "honest")
    assert world.held()["provider"] == 60


def test_a_message_that_ends_leaves_nothing_behind(world: World) -> None:
    world.flood("n", 52, "m1")
    moves = world.leave("n", "m1")
    assert len(moves.recall) == 52
    assert (world.admission.in_flight, world.admission.waiting, world.sent) == (0, 0, {})
    assert not world.admission._wanted
    assert not world.admission._others._networks


def test_what_another_message_waits_for_goes_on(world: World) -> None:
    """Both what is in flight and what waits, now as the other's own."""
    world.flood("n", 31, "m1")
    assert world.ask("0.m1.slow", "other")
    world.flood("other", 30, "big")
    assert not world.ask("30.m1.slow", "other", "big")
    moves = world.leave("n", "m1")
    assert {entry.item for entry in moves.recall}.isdisjoint({"0.m1.slow", "30.m1.slow"})
    assert world.sent["0.m1.slow"].asker == Asker("other", "other")
    world.answered("0.big.slow")
    assert "30.m1.slow" in world.sent


def test_the_place_of_what_was_given_up_is_free_at_once(world: World) -> None:
    world.flood("n", 52, "m1")
    world.flood("n", 52, "m2")
    world.flood("n", 9, "m3")
    assert sum(entry.item.endswith(".m3.slow") for entry in world.leave("n", "m2").send) == 9


def test_a_small_limit_still_lets_everybody_through() -> None:
    """Few descriptors: one place at a time, and everyone's turn comes."""
    world = World(limit=2)
    for number in range(5):
        world.flood(f"n{number}", 3)
    order = []
    while world.sent:
        name = next(iter(world.sent))
        order.append(name.split(".")[1])
        world.answered(name)
    assert sorted(order) == sorted(f"n{number}" for number in range(5) for _ in range(3))
    assert len(set(order[1:6])) == 5, "turns"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("0.0.0.1", "::1", False),
    ],
)
def test_a_client_network_is_a_24_or_a_64(one: str, other: str, same: bool) -> None:
    assert (client_network(ip_address(one)) == client_network(ip_address(other))) is same
    assert client_network(None) is None


def numbers(limit: int) -> st.SearchStrategy[int]:
    return st.integers(0, limit)


STEPS = st.lists(
    st.tuples(st.sampled_from("aaaaaadddlrt"), numbers(4), numbers(3), numbers(11), st.booleans()),
    max_size=120,
)


@given(STEPS, st.sampled_from([2, 3, 8, 30]))
def test_whatever_happens_the_books_are_right(
    steps: list[tuple[str, int, int, int, bool]], limit: int
) -> None:
    """No share and no limit is exceeded by what is asked, nothing is sent twice, nobody waits where
    there is room, nothing is left."""
    world, open_messages = World(limit), set()
    for what, network, message, name, policy in steps:
        asker = (f"n{network}", f"n{network}m{message}")
        if what == "a":
            open_messages.add(asker)
            world.ask(str(name), *asker, policy=policy)
        elif what == "d" and world.sent:
            world.answered(sorted(world.sent)[name % len(world.sent)])
        elif what == "l":
            open_messages.discard(asker)
            world.leave(*asker)
        elif what == "r":
            world.play(world.admission.relieve(world.now))
        world.now += 0.3
        _check(world)
    for asker in open_messages:
        world.leave(*asker)
    assert (world.admission.in_flight, world.admission.waiting, world.sent) == (0, 0, {})
    assert not world.admission._wanted
    assert not world.admission._entries
    assert not world.admission._others._networks
    assert not world.admission._policy._networks


def _check(world: World) -> None:
    admission = world.admission
    entries = admission._entries.values()
    assert {entry.item for entry in entries if entry.state is State.IN} == set(world.sent)
    for pool in (admission._policy, admission._others):
        mine = [entry for entry in entries if entry.pool is pool]
        assert pool.used == sum(entry.state is State.IN for entry in mine) <= pool.shares.size
        assert pool.waiting == sum(entry.state is State.WAITING for entry in mine)
        _check_turns(pool, [entry for entry in mine if entry.state is State.WAITING])
    assert all(entry.askers for entry in entries)


def _check_turns(pool: Pool, waiting: list[AdmittedQuestion]) -> None:
    networks = {name: len(each.places) for name, each in pool._networks.items()}
    messages = {
        (name, key): m.places
        for name, each in pool._networks.items()
        for key, m in each.messages.items()
    }
    assert sum(networks.values()) == sum(messages.values()) == pool.used
    for asker in itertools.chain.from_iterable(entry.askers for entry in waiting):
        room = pool.used < pool.shares.size and networks[asker.network] < pool.shares.network
        assert not (room and messages[asker] < pool.shares.message), (
            "it waits although there is a place"
        )


def test_a_pool_serves_threads_too() -> None:
    """Tickets may be anything: the next one is of the network with the fewest."""
    pool = Pool(Shares(4, 2, 2))
    tickets: Iterator[Ticket] = map(Ticket, itertools.count())
    assert [pool.enter(next(tickets), Asker("a", number), 0) for number in range(3)] == [
        True,
        True,
        False,
    ]
    first = next(iter(pool._networks["a"].places))
    assert [pool.enter(next(tickets), Asker("b", number), 0) for number in range(3)] == [
        True,
        True,
        False,
    ]
    pool.done(first)
    found = pool.next(0)
    assert found is not None
    assert found.asker == Asker("a", 2)
    assert pool.next(0) is None


def test_shares_are_never_nothing() -> None:
    assert all(shares(size).network >= 1 <= shares(size).message for size in range(1, 100))
