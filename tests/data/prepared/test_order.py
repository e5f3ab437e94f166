"""The order of prepared examples: all of them, in any position at once, and near each other as far as is said."""

from __future__ import annotations

import itertools

import pytest

from lmtasks.data.prepared.order import Order

SIZES = (7, 7, 7, 7, 3)


def numbers(order: Order, epoch: int) -> list[tuple[int, int]]:
    return [(place.shard, place.example) for place in (order(position, epoch) for position in range(order.total))]


@pytest.mark.parametrize("sizes", [SIZES, (1,), (5,), (1, 2, 3, 4, 5, 6)])
@pytest.mark.parametrize("window", [1, 2, 5, 100])
@pytest.mark.parametrize("lanes", [1, 2, 4, 40])
def test_an_epoch_has_every_example_once(sizes: tuple[int, ...], window: int, lanes: int) -> None:
    order = Order(sizes, window, lanes, seed=3)
    every = [(shard, number) for shard, size in enumerate(sizes) for number in range(size)]
    first, second = numbers(order, 0), numbers(order, 1)
    assert sorted(first) == sorted(second) == every
    assert first != second or len(every) < 6
    assert numbers(order, 0) == first, "also after another epoch"
    assert numbers(Order(sizes, window, lanes, seed=3), 0) == first
    assert numbers(Order(sizes, window, lanes, seed=4), 0) != first or len(every) < 6


def test_examples_of_a_window_are_of_few_shards_and_mixed() -> None:
    order = Order([50] * 20, window=100, lanes=1, seed=0)
    for window in range(10):
        places = [order(position, 0) for position in range(100 * window, 100 * (window + 1))]
        assert {place.window for place in places} == {window}
        shards = order.shards(0, window, 0)
        assert len(shards) == 2
        assert {place.shard for place in places} == set(shards)
        assert 30 < sum(one.shard != other.shard for one, other in itertools.pairwise(places)) < 70
    assert order.shards(0, 10, 0) == []
    assert sorted(shard for window in range(10) for shard in order.shards(0, window, 0)) == list(range(20))


def test_a_process_that_takes_the_same_part_of_each_batch_reads_its_own_shards_alone() -> None:
    batch, processes, at_once = 8, 4, 2
    order = Order([10] * 64, window=20, lanes=batch, seed=0)
    of = {process: set() for process in range(processes)}
    for position in range(order.total):
        of[position % batch // at_once].add(order(position, 0).shard)
    assert sorted(shard for shards in of.values() for shard in shards) == list(range(64)), "none in two processes"


@pytest.mark.parametrize("position", [-1, 31, 10**9])
def test_beyond_the_end_there_is_nothing(position: int) -> None:
    with pytest.raises(IndexError, match=f"position {position} of 31"):
        Order(SIZES, 4, 1, 0)(position, 0)
