"""The built-in engine: the Trainer, with its own loop."""

from __future__ import annotations

from typing import Any

from lmtasks.training.callbacks import EpochCallback
from lmtasks.training.signals import Signals
from lmtasks.training.trained import Trained, trained_by
from lmtasks.training.trainer import RecipeTrainer
from lmtasks.training.training import Training


def train(training: Training, options: Any = None) -> Trained:
    """Train the model in place.

    Raises:
        RunError: diverged, out of memory, or ended before all steps were done.
        Interrupted: stopped by a signal, after saving a checkpoint.
        Stopped: by a second signal, at once, or by one that came too late for a checkpoint.
    """
    checkpoint = training.checkpoint
    with Signals(keep=True) as signals:
        wiring = training.wiring(signals)
        wiring["callbacks"].insert(0, EpochCallback(training.train_dataset))
        trainer = RecipeTrainer(**wiring)
        output = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        return trained_by(trainer, training.callbacks, output.metrics)
