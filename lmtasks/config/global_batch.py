"""The global batch: the examples of one optimiser step, and how the processes of a run divide them.

As long as it is the same, so is the run, whatever its processes: step k of an epoch takes the same examples. That is
why a checkpoint of two processes can go on in one. With what is listed in :data:`BOUND` the order goes by the division
itself, and then nothing can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmtasks.config.request import Request
from lmtasks.errors import InputError

BOUND: Mapping[str, tuple[Any, ...]] = {
    "dataloader_drop_last": (True,),
    "train_sampling_strategy": ("group_by_length", "batch_rebalance"),
}
"""Training arguments, and values of them with which examples are chosen by what one process takes at once."""


@dataclass(frozen=True)
class Division:
    """The global batch, divided among processes, devices and batches.

    Args:
        shares: processes, or devices of the one process, that take a part of it.
        per_device: examples that each takes at once.
        accumulation: how many times.
        bound: the training argument for which the order of examples depends on the division.
    """

    shares: int
    per_device: int
    accumulation: int
    bound: str | None = None

    @property
    def size(self) -> int:
        """How many they are."""
        return self.shares * self.per_device * self.accumulation

    def as_training(self) -> dict[str, int]:
        """The training arguments that make it."""
        return {"per_device_train_batch_size": self.per_device, "gradient_accumulation_steps": self.accumulation}

    def as_record(self) -> dict[str, int]:
        """What has to stay as it is for a run to go on."""
        if self.bound is None:
            return {"examples": self.size}
        return {"processes": self.shares, "at once": self.per_device, "times": self.accumulation}


def global_batch(request: Request, shares: int) -> Division:
    """The global batch of a request, divided among so many processes, or devices of the only one.

    Raises:
        InputError: it cannot be divided so, or the division would decide on the order of examples.
    """
    training, wanted = request.training, request.batch.train_batch_size
    bound = next((name for name, values in BOUND.items() if training.get(name) in values), None)
    largest = int(training["per_device_train_batch_size"])
    if wanted is None:
        return Division(shares, largest, int(training["gradient_accumulation_steps"]), bound)
    if bound:
        raise InputError(
            f"--train_batch_size cannot be divided alike with --{bound}: it takes examples by what a process takes at"
            " once",
            f"leave --{bound} out, or give --per_device_train_batch_size and --gradient_accumulation_steps",
        )
    share, rest = divmod(wanted, shares)
    if rest:
        raise InputError(
            f"--train_batch_size {wanted} cannot be divided among {shares} processes",
            f"--train_batch_size {(share + 1) * shares}, or a number of processes that divides {wanted}",
        )
    at_once = max(part for part in range(1, min(share, largest) + 1) if share % part == 0)
    return Division(shares, at_once, share // at_once)
