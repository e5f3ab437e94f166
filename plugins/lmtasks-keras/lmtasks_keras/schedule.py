"""transformers' learning rates, for Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate for each optimiser step, after the last of which it stays.

    Args:
        table: the rate in each step.
        batches: that make a step. Keras counts batches where it accumulates gradients, and asks for each.
    """

    def __init__(self, table: Sequence[float], batches: int = 1) -> None:
        super().__init__()
        self.table, self.batches = np.asarray(table, dtype="float32"), batches

    def __call__(self, step: Any) -> Any:
        """The rate, a scalar, for a batch after so many."""
        place = ops.minimum(ops.cast(step, "int32") // self.batches, len(self.table) - 1)
        return ops.take(ops.convert_to_tensor(self.table), place)

    def get_config(self) -> dict[str, Any]:
        """What it was made with."""
        return {"table": self.table.tolist(), "batches": self.batches}
