"""Training of what was prepared, in the folder of its run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial

from transformers import TrainerCallback

from lmtasks.artifacts.run_folder import LOG
from lmtasks.progress import say
from lmtasks.runs.prepare import Prepared
from lmtasks.runs.versions import versions
from lmtasks.training.checkpoints import CheckpointCallback
from lmtasks.training.early_stopping import EarlyStop
from lmtasks.training.trackers import open_until_done
from lmtasks.training.trainer import Trained, train


def tracked(prepared: Prepared) -> AbstractContextManager[Callable[[Mapping[str, float]], None]]:
    """While this is open, so are the trackers of the run; gives what tells them the figures of the finished model."""
    return open_until_done(prepared.callbacks)


def train_prepared(prepared: Prepared) -> Trained:
    """Tell the plan, and train with checkpoints in the run folder, from the one that the run goes on from if it does.

    Raises:
        RunError, Interrupted, Stopped: see :func:`lmtasks.training.trainer.train`.
    """
    for line in prepared.plan.lines():
        say(line)
    request, folder, before_step = prepared.request, prepared.folder, prepared.request.recipe.before_step
    asked = prepared.place.asked
    facts = {
        "request": asked.fingerprint, "batch": dict(asked.batch), "seed": request.seed, "versions": versions()
    }  # fmt: skip
    limit, patience = request.training.get("save_total_limit"), request.stopping.early_stopping_patience
    checkpoints = CheckpointCallback(folder, prepared.processor, facts, limit, len(prepared.train_dataset))
    callbacks: list[TrainerCallback] = [*prepared.callbacks, checkpoints]
    if patience is not None:
        callbacks.append(EarlyStop(patience, request.stopping.early_stopping_threshold))
    return train(
        prepared.model,
        request.bound,
        prepared.arguments,
        prepared.train_dataset,
        prepared.eval_dataset,
        prepared.collators,
        folder / LOG,
        prepared.place.start.checkpoint,
        callbacks,
        *([partial(before_step, prepared.model, request.options)] if before_step else []),
    )
