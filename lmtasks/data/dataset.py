"""A split as a dataset whose every example knows the seed of its own randomness."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset

from lmtasks.api import Examples
from lmtasks.data.mixed import Mixed, in_own_order
from lmtasks.data.prepared.sharded import Sharded
from lmtasks.data.worker_errors import leaving_worker


class ExampleDataset(Dataset[dict[str, Any]]):
    """Examples with the seed from which their collator draws: (seed of the run, epoch, example id).

    Args:
        training: whether they are trained on. Numbers of prepared examples then are positions in an order of the
            epoch's own: no list of them has to be drawn.
    """

    def __init__(self, examples: Examples, seed: int, *, training: bool = False) -> None:
        self.examples = examples
        self.seed = seed
        self.ordered = training and in_own_order(examples)
        # In shared memory: the processes of a data loader that live through several epochs see it change.
        self._epoch: torch.Tensor = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with leaving_worker():
            return self._example(int(index), int(self._epoch))

    def _example(self, number: int, epoch: int) -> dict[str, Any]:
        examples = self.examples
        if self.ordered and isinstance(examples, Sharded):
            number = examples.in_order(number, epoch)
        # Only a mix has other examples in the next epoch; where it has one again, the seed is another.
        example = examples.example(number, epoch) if isinstance(examples, Mixed) else examples.example(number)
        return {**example, "seed": (self.seed, epoch, number)}

    def start_epoch(self, epoch: int) -> None:
        """Seeds from here on are for this epoch."""
        self._epoch[0] = epoch
