"""Training of what was prepared, in the folder of its run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

from transformers import TrainerCallback

from lmtasks.progress import say
from lmtasks.runs.prepared import Prepared
from lmtasks.runs.versions import versions
from lmtasks.training.checkpoints import CheckpointCallback
from lmtasks.training.early_stopping import EarlyStop
from lmtasks.training.engines import carried_out
from lmtasks.training.trackers import open_until_done
from lmtasks.training.trained import Trained


def tracked(prepared: Prepared) -> AbstractContextManager[Callable[[Mapping[str, float]], None]]:
    """While this is open, so are the trackers of the run; gives what tells them the figures of the finished model."""
    return open_until_done(prepared.callbacks)


def train_prepared(prepared: Prepared) -> Trained:
    """Tell the plan, and train with checkpoints in the run folder, from the one that the run goes on from if it does.

    Raises:
        RunError, Interrupted, Stopped: see :func:`lmtasks.training.engines.carried_out`.
    """
    for line in prepared.plan.lines():
        say(line)
    request, asked = prepared.request, prepared.place.asked
    facts = {
        "request": asked.fingerprint, "batch": dict(asked.batch), "seed": request.seed, "versions": versions(),
        "engine": prepared.engine.name,
    }  # fmt: skip
    limit, patience = request.training.get("save_total_limit"), request.stopping.early_stopping_patience
    examples = len(prepared.train_dataset)
    checkpoints = CheckpointCallback(prepared.folder, prepared.processor, facts, limit, examples)
    callbacks: list[TrainerCallback] = [*prepared.callbacks, checkpoints]
    if patience is not None:
        callbacks.append(EarlyStop(patience, request.stopping.early_stopping_threshold))
    engine, checkpoint = prepared.engine, prepared.place.start.checkpoint
    training = replace(prepared.training, checkpoint=checkpoint, callbacks=callbacks, saves=engine.resumes)
    return carried_out(engine, training, request.engine_options)
