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
        tell(f"epoch {epoch} {sorted(logs)} {logs.get('val_loss')}")

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


def patient():
    return keras.callbacks.EarlyStopping()


def exact():
    return keras.callbacks.EarlyStopping(monitor="val_accuracy", mode="max")


def best():
    return keras.callbacks.ModelCheckpoint("best.weights.h5", save_weights_only=True, save_best_only=True)


def last():
    return keras.callbacks.ModelCheckpoint("last.weights.h5", save_weights_only=True)


def whole():
    return keras.callbacks.ModelCheckpoint("model.keras")


def backup():
    return keras.callbacks.BackupAndRestore("backup")


def swapping():
    return keras.callbacks.SwapEMAWeights()


def slower():
    return keras.callbacks.ReduceLROnPlateau(monitor="loss")


def fixed():
    return keras.optimizers.SGD(0.1)


def averaging(learning_rate):
    return keras.optimizers.SGD(learning_rate, use_ema=True)


def scaled(learning_rate):
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(learning_rate))


def decaying(learning_rate):
    return keras.optimizers.SGD(learning_rate, weight_decay=0.25)


def accumulating(learning_rate):
    return keras.optimizers.SGD(learning_rate, gradient_accumulation_steps=4)


def number():
    return 1


def failing():
    raise ZeroDivisionError("nothing to divide by")
