"""The result of a training, whichever engine has made its steps."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, TrainerCallback, TrainerState

from lmtasks.errors import Interrupted, RunError, Stopped
from lmtasks.training.length import examples_per_step
from lmtasks.training.trainer import RecipeTrainer


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Args:
        model: without the wrappers of several processes and of bfloat16: what is measured is what will be loaded.
        metrics: ``train_loss``, ``train_runtime`` in seconds, ``train_tokens_per_second``, ...; of all steps, those
            before a resumption included.
        state: the Trainer's, with its log.
    """

    model: PreTrainedModel
    metrics: dict[str, float]
    state: TrainerState


def trained_by(trainer: RecipeTrainer, callbacks: Sequence[TrainerCallback], metrics: Mapping[str, float]) -> Trained:
    """The result of a trainer that has come to an end, if it had a right to; in all processes at once.

    Args:
        callbacks: one whose ``ended_training`` is true had a right to an early end.
        metrics: the Trainer's own.

    Raises:
        RunError: it ended before all steps were done.
        Interrupted: it was stopped by a signal, after saving a checkpoint.
        Stopped: by a signal that came too late for a checkpoint.
    """
    signals, steps, planned = trainer.signals.signals, trainer.state.global_step, trainer.state.max_steps
    signals.agree()
    if signals.received is not None and trainer.signals.saved != steps:
        raise Stopped(signals.received)  # too late for a checkpoint: what is safe, the folder tells
    if signals.received is not None:
        raise Interrupted(
            f"stopped by {signal.Signals(signals.received).name} after step {steps}, with a checkpoint",
            "the same command with --resume_from_checkpoint true goes on from there",
            signals.received,
        )
    if steps < planned and not any(getattr(callback, "ended_training", False) for callback in callbacks):
        raise RunError(
            f"training ended after {steps} of {planned} steps", "lower --per_device_train_batch_size, or give more data"
        )
    examples = trainer.train_dataset.examples
    units = (steps - trainer.totals.first) * round(examples_per_step(trainer.args) * examples.per_example)
    speed = round(units / metrics["train_runtime"], 1)
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    own = {f"train_{examples.unit.replace(' ', '_')}_per_second": speed}
    return Trained(model, {**metrics, **own}, trainer.state)
