"""Who goes first, and why (docs/design.md, Processes and loops)."""

from collections import Counter
from collections.abc import Hashable, Iterable

from dmarc_milter.process import fair_queue as module
from dmarc_milter.process.fair_queue import CREDIT, MANY, PACE, FairQueue

SLICE = 0.01


class Processor:
    """One processor: whatever is taken has SLICE, or less where its network has less to do."""

    def __init__(self, always: Iterable[Hashable] = ()) -> None:
        self.queue: FairQueue[None] = FairQueue()
        self.always = frozenset(always)
        """Networks that have the next thing to do as soon as one is done."""
        self.had: Counter[Hashable] = Counter()
        for network in self.always:
            self.queue.put(network, None)

    def serve(self, seconds: float = SLICE) -> Hashable:
        """Who goes next has so long."""
        network, _ = self.queue.take()
        if network in self.always:
            self.queue.put(network, None)
        self.queue.served(network, seconds)
        self.had[network] += 1
        return network

    def until(self, network: Hashable) -> int:
        """How many slices others have before this one is taken."""
        return next(others for others in range(10_000) if self.serve() == network)


def test_items_of_a_network_go_in_their_order() -> None:
    """First come, first served."""
    queue: FairQueue[int] = FairQueue()
    for number in range(5):
        queue.put("a", number)
    order = []
    while queue:
        network, item = queue.take()
        order.append(item)
        queue.served(network, SLICE)
    assert order == [0, 1, 2, 3, 4]


def test_networks_share_alike_however_many_items_they_have() -> None:
    """Time is shared by client network, not by message."""
    processor = Processor(range(10))
    for _ in range(500):
        processor.queue.put("many", None)
    for _ in range(1100):
        processor.serve()
    assert all(abs(had - 100) <= 6 for had in processor.had.values())


def test_who_pieces_cost_more_has_fewer_of_them() -> None:
    """Seconds are shared, not turns."""
    processor = Processor(("long", "short"))
    for _ in range(300):
        network, _ = processor.queue.take()
        processor.queue.put(network, None)
        processor.queue.served(network, SLICE * (5 if network == "long" else 1))
        processor.had[network] += 1
    assert 4.5 <= processor.had["short"] / processor.had["long"] <= 5.5


def test_who_comes_new_goes_before_all_that_always_have_something_to_do() -> None:
    """Wherever these stand; and again as long as it has had little, each time that it has
    waited."""
    for served in range(100, 125):
        processor = Processor(range(20))
        for _ in range(served):
            processor.serve()
        for _ in range(4):
            processor.queue.put("honest", None)
            assert processor.serve(0.003) == "honest"


def test_what_came_new_has_an_even_share_once_its_credit_is_spent() -> None:
    """A network is not new for ever."""
    processor = Processor(range(10))
    for _ in range(1000):
        processor.serve()
    processor.had.clear()
    processor.queue.put("honest", None)
    processor.always |= {"honest"}
    for _ in range(1100):
        processor.serve()
    assert processor.had["honest"] <= 100 + 2 * CREDIT / SLICE
    assert min(processor.had.values()) >= 90


def test_a_moment_of_idleness_earns_nothing() -> None:
    """Who has had its slices and comes with the next message is behind who has had none."""
    processor = Processor(range(20))
    for _ in range(1000):
        processor.serve()
    processor.queue.put("pausing", None)
    for _ in range(int(CREDIT / SLICE) + 1):
        processor.until("pausing")
        processor.queue.put("pausing", None)
    processor.queue.put("honest", None)
    assert processor.serve() == "honest"


def steady_beside_new_ones(new_at_once: int) -> float:
    """The part of an even share that one has who always has something to do, beside an endless row
    of networks that are new."""
    processor = Processor(("steady",))
    waiting = 0
    number = 0
    for _ in range(5000):
        while waiting < new_at_once:
            processor.queue.put(number, None)
            number, waiting = number + 1, waiting + 1
        waiting -= processor.serve() != "steady"
    return processor.had["steady"] / 5000 * (new_at_once + 1)


def test_an_endless_row_of_new_networks_keeps_nobody_out() -> None:
    """An attacker may have a network for every message: who always has something to do has a good
    part of its share all the same."""
    for new_at_once in (1, 5, 50):
        assert steady_beside_new_ones(new_at_once) >= 0.9 * PACE


def test_the_row_of_new_networks_starves_others_without_the_pace() -> None:
    """What PACE is for."""
    pace = module.PACE
    module.PACE = 0.0  # type: ignore[misc]
    try:
        assert steady_beside_new_ones(5) < 0.1
    finally:
        module.PACE = pace  # type: ignore[misc]


def test_new_ones_do_not_wait_behind_all_that_lag_after_a_flood_of_new_ones() -> None:
    """However long the flood was: it does not move the place of new ones ahead of everybody."""
    processor = Processor(range(10))
    for number in range(20_000):
        processor.queue.put(("flood", number), None)
        processor.serve()
    while len(processor.queue) > 10:
        processor.serve()
    waits = []
    for number in range(100):
        processor.queue.put(("honest", number), None)
        waits.append(processor.until(("honest", number)))
        for _ in range(10):
            processor.serve()
    assert max(waits) <= 30
    assert waits[5:] == [0] * 95


def test_networks_that_are_all_new_wait_for_one_slice_of_each_other() -> None:
    """Forty networks with long messages that came at one moment: a short message that came last has
    its turn after their first slices, not after their messages, and then goes first."""
    processor = Processor(range(40))
    processor.queue.put("honest", None)
    assert processor.until("honest") <= 40
    processor.queue.put("honest", None)
    assert processor.until("honest") <= 40


def test_what_was_had_before_a_rest_does_not_count() -> None:
    """An idle processor is nobody's loss."""
    processor = Processor()
    for _ in range(100):
        processor.queue.put("busy", None)
        processor.serve()
        processor.queue.rest(SLICE)
    processor.queue.put("new", None)
    processor.queue.put("busy", None)
    processor.queue.put("newer", None)
    assert [processor.serve() for _ in range(3)] == ["new", "busy", "newer"]


def test_what_is_done_beside_the_turns_counts_too() -> None:
    """Reading a client's packets is part of its network's share."""
    processor = Processor()
    processor.queue.put("other", None)
    assert not processor.queue.is_behind("talker")
    processor.queue.charge("talker", CREDIT / 2)
    assert not processor.queue.is_behind("talker")
    processor.queue.charge("talker", 2 * CREDIT)
    assert processor.queue.is_behind("talker")
    processor.queue.put("talker", None)
    processor.queue.put("honest", None)
    assert [processor.serve() for _ in range(3)] == ["other", "honest", "talker"]
    assert not processor.queue.is_behind("talker"), "nobody waits"


def test_what_was_done_while_it_waits_counts_from_its_next_turn_on() -> None:
    """It keeps the turn that it has waited for."""
    processor = Processor(("talker",))
    processor.queue.charge("talker", 10 * SLICE)
    processor.queue.put("honest", None)
    assert processor.serve() == "talker"
    processor.queue.put("honest", None)
    assert [processor.serve() for _ in range(2)] == ["honest", "honest"]


def test_networks_that_only_talk_are_forgotten() -> None:
    """Their number is the attacker's, without a turn too."""
    queue: FairQueue[None] = FairQueue()
    for number in range(5 * MANY):
        queue.charge(number, SLICE)
        assert queue.known <= MANY + 10


def test_what_is_remembered_of_networks_is_bounded() -> None:
    """Their number is the attacker's."""
    processor = Processor(("busy",))
    for number in range(5 * MANY):
        processor.queue.put(number, None)
        processor.until(number)
        assert processor.queue.known <= MANY + 10


def test_nothing_that_waits_is_forgotten() -> None:
    """Only what waits for nothing."""
    processor = Processor()
    numbers = range(4 * MANY)
    for number in numbers:
        processor.queue.put(number, None)
    assert {processor.serve() for _ in numbers} == set(numbers)
    assert not processor.queue
