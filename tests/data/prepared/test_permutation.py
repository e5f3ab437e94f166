"""The permutation without a list: each number once, chosen by the key, alike on every machine."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lmtasks.data.prepared.permutation import Permutation


@pytest.mark.parametrize("size", [*range(1, 40), 63, 64, 65, 1000, 4096, 4097])
def test_every_number_comes_once(size: int) -> None:
    mixed = Permutation(size, "key", size)
    assert sorted(map(mixed, range(size))) == list(range(size))


def test_the_order_is_the_same_on_every_machine() -> None:
    assert [Permutation(10, 42, 0)(place) for place in range(10)] == [7, 4, 6, 1, 2, 3, 9, 0, 5, 8]
    assert [Permutation(10**12, 42, 0)(place) for place in (0, 1, 10**12 - 1)] == [
        377754599468,
        674860278668,
        547642818843,
    ]


def test_each_order_of_few_numbers_is_about_as_frequent_as_any_other() -> None:
    keys = 6000
    seen = dict.fromkeys(itertools.permutations(range(4)), 0)
    for key in range(keys):
        mixed = Permutation(4, key)
        seen[tuple(map(mixed, range(4)))] += 1  # type: ignore[index]
    expected = keys / math.factorial(4)
    chi_squared = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi_squared < 60  # 23 degrees of freedom: 49.7 one time in a thousand; keys are fixed, so this never changes


def test_neighbours_and_places_are_independent() -> None:
    size = 20_000
    order = np.asarray([Permutation(size, 7)(place) for place in range(size)]) / size
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 0.03
    rises = (np.diff(order) > 0).mean()
    assert abs(rises - 0.5) < 0.015


def test_two_keys_have_orders_of_their_own() -> None:
    one, other = Permutation(1000, 42, 0), Permutation(1000, 42, 1)
    assert sum(one(place) == other(place) for place in range(1000)) < 10
