"""A training carried out by an engine."""

from __future__ import annotations

from typing import Any

from lmtasks.api import Engine
from lmtasks.errors import PluginError
from lmtasks.training.cpu_memory import kept_memory
from lmtasks.training.failures import failures_told
from lmtasks.training.trained import Trained
from lmtasks.training.training import Training


def carried_out(engine: Engine, training: Training, options: Any) -> Trained:
    """The result of a training whose steps an engine makes.

    Raises:
        RunError: diverged, out of memory, or ended before all steps were done.
        Interrupted: stopped by a signal, after saving a checkpoint.
        Stopped: by a second signal, at once, or by one that came too late for a checkpoint.
        PluginError: the engine gives something else than the course did.
    """
    with failures_told(training.checkpoint), kept_memory(training.arguments.device):
        if not engine.restores:
            training.restore()
        trained = engine.train(training, options)
    if not isinstance(trained, Trained):
        raise PluginError(
            f"engine '{engine.name}' gives a {type(trained).__name__}, not what its course gave",
            "--engine trainer does without; let it end with `return course.done()`",
        )
    return trained
