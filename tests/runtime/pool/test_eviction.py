"""Who goes: GreedyDual-Size, and no more than must."""

import pytest

from mova_runtime.engines.memory import Limits, Memory
from mova_runtime.engines.pool.eviction import GreedyDual, choose
from mova_runtime.engines.pool.holding import Evictable


def things(*charges):
    return [Evictable(charge if isinstance(charge, Memory) else Memory(charge), 1.0) for charge in charges]


@pytest.mark.parametrize(
    ("charges", "used", "limits", "chosen"),
    [
        ((1, 1, 1), 3, Limits(3), []),
        ((1, 1, 1), 3, Limits(2), [0]),
        ((1, 1, 1), 5, Limits(3), [0, 1]),
        ((1, 2, 9), 20, Limits(11), [2]),  # the large one alone is enough
        ((1, 2, 9), 20, Limits(10), [0, 2]),
        ((1, 2, 9), 20, Limits(9), [1, 2]),
        ((1, 2, 9), 20, Limits(1), [0, 1, 2]),  # not enough either
        ((Memory(0, 5), Memory(5, 0)), Memory(9, 9), Limits(5, 9), [1]),  # only the host's is short
        ((Memory(0, 5), Memory(5, 0)), Memory(9, 9), Limits(9, 5), [0]),
        ((Memory(0, 5), Memory(5, 0)), Memory(9, 9), Limits(1, 9), [1]),  # not enough, and the GPU's would not help
        ((Memory(0, 5), Memory(5, 0)), Memory(9, 9), Limits(13, shared=True), [0]),
        ((0, 5), 9, Limits(5), [1]),
    ],
)
def test_no_more_go_than_must(charges, used, limits, chosen):
    candidates = things(*charges)
    used = used if isinstance(used, Memory) else Memory(used)
    got, left = choose(candidates, used, limits)
    assert [candidates.index(thing) for thing in got] == chosen
    assert left == used - sum((thing.charge for thing in got), Memory())


def test_priorities_are_seconds_by_byte_above_what_went_last():
    order, (slow, quick, large) = GreedyDual(), things(10, 10, 1000)
    slow.seconds = 4.0
    for thing in (slow, quick, large):
        order.touch(thing, thing.charge)
    assert (slow.priority, quick.priority, large.priority) == (0.4, 0.1, 0.001)
    order.evicted([large, quick])
    order.touch(large, large.charge)
    assert large.priority == pytest.approx(0.101)
    order.evicted([])
    order.evicted(things(1))  # of a lower priority: a later class went before an earlier one
    order.touch(quick, quick.charge)
    assert quick.priority == pytest.approx(0.2)
    order.touch(slow, slow.charge)
    assert slow.turn > quick.turn > large.turn


def test_nothing_weighs_as_much_as_a_byte():
    order, (thing,) = GreedyDual(), things(0)
    order.touch(thing, thing.charge)
    assert thing.priority == 1.0
