"""Callbacks and optimisers that the tests name on the command line; imported in the process in which Keras runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import keras

TOLD = "LMTASKS_KERAS_TOLD"
"""A variable with the file into which they write."""


def tell(line):
    with Path(os.environ[TOLD]).open("a") as file:
        file.write(f"{line}\n")


class Telling(keras.callbacks.Callback):
    """Tells of what happens."""

    def on_train_begin(self, logs=None):
        tell("begin")

    def on_epoch_end(self, epoch, logs=None):
        print("an epoch has ended")
        tell(f"epoch {epoch} {sorted(logs)}")

    def on_train_end(self, logs=None):
        tell("end")


class Compiling(keras.callbacks.Callback):
    """Tells of the batches in which JAX compiled something."""

    def __init__(self):
        super().__init__()
        import jax

        self.compiled = 0
        jax.monitoring.register_event_duration_secs_listener(self.count)

    def count(self, event, seconds, **more):
        self.compiled += "backend_compile" in event

    def on_train_batch_begin(self, batch, logs=None):
        self.compiled = 0

    def on_train_batch_end(self, batch, logs=None):
        tell(f"{batch} {self.compiled > 0}")


class Dying(keras.callbacks.Callback):
    """Is killed in the second step."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class Failing(keras.callbacks.Callback):
    """Fails in the second step."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise ZeroDivisionError("nothing to divide by")


def stopping():
    return keras.callbacks.EarlyStopping(monitor="loss", baseline=0.0, patience=1)


def sgd(learning_rate):
    return keras.optimizers.SGD(learning_rate)


def number():
    return 1


def failing():
    raise ZeroDivisionError("nothing to divide by")
