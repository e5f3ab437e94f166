"""What Ray Train is told of a run."""

from __future__ import annotations

import os

WORKER = "LMTASKS_RAY_WORKER"
"""A variable that the workers of the launcher have."""


def callbacks(recipe, options):
    """One that reports every evaluation in training; none in a process that is no worker of the launcher."""
    if WORKER not in os.environ:
        return []
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        """Reports the figures of every evaluation; all workers have to, or Ray waits for the others."""

        def on_evaluate(self, args, state, control, metrics=None, **named):
            import ray.train

            numbers = {name: value for name, value in (metrics or {}).items() if isinstance(value, int | float)}
            ray.train.report({"step": state.global_step, **numbers})

    return [Report()]
