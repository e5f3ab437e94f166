"""The batches of prepared examples: those that accelerate would divide, begun anywhere."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, SequentialSampler

from lmtasks.training.positions import Positions


def loader(examples: int, batch: int, rank: int, size: int, *, drop_last: bool = False) -> DataLoader[Any]:
    """What accelerate makes of a loader of consecutive numbers."""
    numbers = range(examples)
    plain: DataLoader[Any] = DataLoader(
        numbers,  # type: ignore[arg-type]
        batch,
        sampler=SequentialSampler(numbers),
        drop_last=drop_last,
        collate_fn=list,
    )
    return prepare_data_loader(plain, num_processes=size, process_index=rank, put_on_device=False, even_batches=True)


def put(examples: int, batch: int, rank: int, size: int, *, drop_last: bool = False) -> tuple[Any, Positions]:
    positions = Positions(examples, batch, rank, size, drop_last=drop_last)
    made = loader(examples, batch, rank, size, drop_last=drop_last)
    positions.put_into(made)
    return made, positions


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("examples", "batch"), [(29, 4), (32, 4), (33, 4), (40, 8), (1, 4), (9, 1)])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_process_has_the_batches_that_accelerate_gives_it(
    examples: int, batch: int, size: int, drop_last: bool
) -> None:
    for rank in range(size):
        made, _ = put(examples, batch, rank, size, drop_last=drop_last)
        expected = loader(examples, batch, rank, size, drop_last=drop_last)
        assert len(made) == len(expected)
        ours, theirs = list(made), list(expected)
        assert list(map(len, ours)) == list(map(len, theirs))
        for turn, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            own = max(0, min(batch, examples - (turn * size + rank) * batch))  # what fills them up counts for nothing
            assert one[:own] == other[:own]


@pytest.mark.parametrize("size", [1, 2])
def test_what_is_announced_to_be_left_out_is_not_made(size: int) -> None:
    whole, positions = put(33, 4, 0, size)
    every = list(whole)
    positions.leave_out(2)
    assert list(skip_first_batches(whole, 2)) == every[2:]
    assert list(whole) == every, "of the next epoch nothing is left out"
    positions.leave_out(2)
    assert list(itertools.islice(positions, 3)) == [(), (), range(8 * size, 8 * size + 4)]
