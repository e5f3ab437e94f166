"""Sums of an evaluation: exact, whoever adds them in which order, and never more than one row in memory."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction
from typing import Any

import pytest

from lmtasks.config.world import ALONE
from lmtasks.data.dataset import ExampleDataset
from lmtasks.errors import RunError
from lmtasks.training import evaluation
from lmtasks.training.sums import Sums


class Together:
    """A world of processes whose sums are given."""

    def __init__(self, *all_sums: Sums) -> None:
        self.all = [(sums.total, sums.weights) for sums in all_sums]

    def gather(self, value: Any) -> list[Any]:
        return self.all


def sums_of(rows: list[dict[str, Any]]) -> Sums:
    sums = Sums()
    for row in rows:
        sums.add(row, {})
    return sums


def test_the_sum_is_that_of_fsum_however_it_is_divided() -> None:
    draw = random.Random(0)
    values = [draw.choice([1, -1]) * 10 ** draw.uniform(-12, 12) for _ in range(300)]
    exact = math.fsum(values)
    assert sum(values) != exact, "this can tell"
    rows = [{"loss": value, "targets": number} for number, value in enumerate(values)]
    whole, _ = sums_of(rows).of_all(ALONE)
    assert whole == {"loss": exact, "targets": 300 * 299 // 2}
    draw.shuffle(rows)
    parts = [sums_of(rows[:7]), Sums(), sums_of(rows[7:])]
    assert parts[0].of_all(Together(*parts))[0] == whole  # type: ignore[arg-type]


def test_tables_are_added_cell_by_cell() -> None:
    sums = sums_of([{"codes": [[1, 2.5], [0, 1]]}, {"codes": [[1, 0.5], [7, 0]]}])
    assert sums.of_all(ALONE)[0] == {"codes": [[2, 3.0], [7, 1]]}


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_stays_so(value: float) -> None:
    total = sums_of([{"loss": 1.0}, {"loss": value}, {"loss": 2.0}]).of_all(ALONE)[0]["loss"]
    assert total == value or (math.isnan(total) and math.isnan(value))


def test_a_weight_that_another_process_has_otherwise_is_refused() -> None:
    one, other = Sums(), Sums()
    one.add({"loss": 1.0}, {"own": 0.5})
    other.add({"loss": 1.0}, {"own": 0.25})
    assert one.of_all(ALONE) == ({"loss": 1.0}, {"own": 0.5})
    with pytest.raises(RunError, match="the weight of the term 'own' changes from batch to batch"):
        one.of_all(Together(one, other))  # type: ignore[arg-type]


def test_nothing_grows_with_the_number_of_batches() -> None:
    sums = sums_of([{"loss": 0.1 * number, "targets": 3} for number in range(5000)])
    assert sums.total == {"loss": sum(Fraction(0.1 * number) for number in range(5000)), "targets": 15_000}


class Numbers:
    """Examples of which nothing but the number is asked."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_are_every_example_once_and_no_list(size: int) -> None:
    from lmtasks.config.world import World

    dataset = ExampleDataset(Numbers(10**15), 0)  # type: ignore[arg-type]
    for rank in range(size):
        share = evaluation._Share(dataset, 8, World(rank, size))
        first = list(itertools.islice(share, 2))
        assert first == [range(rank, 8 * size + rank, size), range(8 * size + rank, 16 * size + rank, size)]
    few = ExampleDataset(Numbers(29), 0)  # type: ignore[arg-type]
    shares = [evaluation._Share(few, 4, World(rank, size)) for rank in range(size)]
    assert sorted(number for share in shares for batch in share for number in batch) == list(range(29))
    assert [len(list(share)) for share in shares] == list(map(len, shares))
    shares[0].rounds = len(shares[0]) + 2
    assert list(shares[0])[-2:] == [[0], [0]]
