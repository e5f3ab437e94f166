"""Both ends of a step in ``fit``: its batches, which the run sends, and its loss, which the run gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import keras
import numpy as np

from lmtasks_keras.batches import Shapes
from lmtasks_keras.optimizer_state import save


class Course(keras.callbacks.Callback):
    """Tells the run of each step, and does what it then asks for before the next.

    Args:
        batches: that make a step.
        done: steps that were done before.
    """

    def __init__(self, connection: Connection, batches: int) -> None:
        super().__init__()
        self.connection, self.batches, self.seen = connection, batches, 0
        self.evaluated: float | None = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """A batch is done, and with the last of its step the step."""
        self.seen += 1
        if self.seen % self.batches:
            return
        self._sync()
        norm = getattr(self.model.optimizer, "norm", None)
        told = None if norm is None else float(keras.ops.convert_to_numpy(norm))
        terms = {name: float(logs[f"step_loss_{name}"]) for name in self.model.terms if name}
        self.connection.send(("step", float(logs["step_loss"]), terms, told))
        self.serve()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Nothing was evaluated in it."""
        self.evaluated = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Let the callbacks after this one see the loss of the run's last evaluation in the epoch."""
        if self.evaluated is not None:
            logs["val_loss"] = self.evaluated

    def serve(self) -> None:
        """Do what the run asks for, until it lets training go on, or stops it."""
        while True:
            kind, *rest = self.connection.recv()
            if kind == "weights":
                named = self.model.layer.named
                self.connection.send({name: np.array(keras.ops.convert_to_numpy(one)) for name, one in named.items()})
            elif kind == "save":
                save(self.model.optimizer, *rest)
                self.connection.send("saved")
            else:
                self.model.stop_training |= kind == "stop"
                self.evaluated = next((loss for loss in rest if loss is not None), self.evaluated)
                return

    def _sync(self) -> None:
        """Let Keras' variables have the values that JAX holds during ``fit``."""
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()


class WholeTraining(keras.callbacks.CallbackList):
    """Callbacks to which several calls of ``fit`` are one training: it begins once, and ends once."""

    begun = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Tell them, if it is the first."""
        if not self.begun:
            self.begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Not yet."""
        self.logs = logs

    def end(self) -> None:
        """Tell them that it has ended."""
        super().on_train_end(self.logs)


def source(connection: Connection, number: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """So many batches with what their sums are divided by, float32 [terms], asked of the run when they are needed."""
    given = 0
    while given < number:
        connection.send(None)
        of_a_step = connection.recv()
        yield from of_a_step
        given += len(of_a_step)


def dataset(batches: Iterator[Any], shapes: Shapes, terms: Sequence[str], floating: frozenset[str]) -> Any:
    """The batches as ``fit`` takes them; for TensorFlow with their shapes, and none is asked for ahead."""
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow

    kinds = {name: tensorflow.float32 if name in floating else tensorflow.int32 for name in shapes}
    inputs = {name: tensorflow.TensorSpec(shape, kinds[name]) for name, shape in shapes.items()}
    counts = tensorflow.TensorSpec((len(terms),), tensorflow.float32)
    return tensorflow.data.Dataset.from_generator(lambda: batches, output_signature=(inputs, counts))
