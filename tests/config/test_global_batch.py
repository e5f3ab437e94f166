"""The global batch, divided among the processes that there are."""

from __future__ import annotations

from typing import Any

import pytest

from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.global_batch import Division, global_batch
from lmtasks.config.request import configure
from lmtasks.errors import InputError


def divided(processes: int, **values: Any) -> Division:
    request = configure(MASKED_LM, {"model": "m", "use_cpu": True, **values})
    return global_batch(request, processes)


@pytest.mark.parametrize(
    ("processes", "wanted", "largest", "at_once", "times"),
    [
        (1, 32, None, 8, 4),
        (2, 32, None, 8, 2),
        (4, 32, None, 8, 1),
        (8, 32, None, 4, 1),
        (32, 32, None, 1, 1),
        (2, 32, 16, 16, 1),
        (2, 24, 8, 6, 2),  # 12 each: 8 do not divide them
        (1, 13, 8, 1, 13),
    ],
)
def test_each_process_takes_as_much_at_once_as_it_may(
    processes: int, wanted: int, largest: int | None, at_once: int, times: int
) -> None:
    batch = divided(processes, train_batch_size=wanted, per_device_train_batch_size=largest)
    assert batch == Division(processes, at_once, times)
    assert batch.size == wanted
    assert batch.as_record() == {"examples": wanted}
    assert batch.as_training() == {"per_device_train_batch_size": at_once, "gradient_accumulation_steps": times}


def test_without_it_the_parts_make_the_whole() -> None:
    assert divided(2) == Division(2, 8, 1)
    assert divided(2, per_device_train_batch_size=4, gradient_accumulation_steps=3).as_record() == {"examples": 24}


def test_what_does_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="--train_batch_size 32 cannot be divided among 3 processes") as caught:
        divided(3, train_batch_size=32)
    assert caught.value.hint == "--train_batch_size 33, or a number of processes that divides 32"
    with pytest.raises(InputError, match="--train_batch_size and --gradient_accumulation_steps exclude each other"):
        divided(1, train_batch_size=32, gradient_accumulation_steps=2)


@pytest.mark.parametrize(
    "bound", [{"dataloader_drop_last": True}, {"train_sampling_strategy": "group_by_length"}], ids=lambda one: str(one)
)
def test_where_the_order_goes_by_the_division_that_is_what_a_run_is_known_by(bound: dict[str, Any]) -> None:
    batch = divided(2, per_device_train_batch_size=4, **bound)
    assert batch.as_record() == {"processes": 2, "at once": 4, "times": 1}
    with pytest.raises(InputError, match=f"cannot be divided alike with --{next(iter(bound))}"):
        divided(2, train_batch_size=8, **bound)
