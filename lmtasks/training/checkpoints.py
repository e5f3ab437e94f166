"""Callbacks that make checkpoints what they are, and go on from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtasks.artifacts.checkpoints import checkpoint_path, finish, retain
from lmtasks.config.world import World
from lmtasks.training.rate import set_rates
from lmtasks.training.totals import KEY


class CheckpointCallback(TrainerCallback):
    """Completes every checkpoint: the processing class, the manifest, and the end of those that are too many.

    The Trainer would save the processing class if it were given a tokenizer, but would then also rewrite the
    model's special token ids behind the user's back. Its own ``save_total_limit`` goes by names and times of
    folders, whosever they are, and removes what a resumption needs.

    Args:
        facts: what the manifest tells of the run.
        limit: how many checkpoints to keep; None for all.
    """

    def __init__(self, run: Path, processor: Any, facts: Mapping[str, Any], limit: int | None) -> None:
        self.run, self.processor, self.facts, self.limit = run, processor, facts, limit

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Let those go that a killed run had no time to let go; a run that only has to be saved makes no other."""
        if state.global_step and state.is_world_process_zero:
            self._retain(state)

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Add to ``checkpoint-N``, which the Trainer has just written."""
        world = World.current(talking=True)
        world.barrier()  # each process writes a part
        if state.is_world_process_zero:
            checkpoint = checkpoint_path(self.run, state.global_step)
            self.processor.save_pretrained(checkpoint)
            whole = {"step": state.global_step, "processes": world.size, "resumable": not args.save_only_model}
            finish(checkpoint, {**whole, **self.facts})
            self._retain(state)
        world.barrier()

    def _retain(self, state: TrainerState) -> None:
        if self.limit:
            retain(self.run, state.global_step, self.limit, state.best_model_checkpoint)


class ResumeCallback(TrainerCallback):
    """Where a run goes on: with the intervals that it has now, and doing nothing twice."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: Any
    ) -> None:
        """Note the steps that were done before. Intervals and rates of the checkpoint may be of a shorter run."""
        self.first = state.global_step
        state.compute_steps(args, state.max_steps)
        planned = state.stateful_callbacks.get(KEY, {}).get("planned", state.max_steps)
        if planned != state.max_steps:
            set_rates(rest["optimizer"], rest["lr_scheduler"])

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Where no step was left to do, neither save nor evaluate what the checkpoint has of the epoch's end.

        Comes after the Trainer's own callback has decided what is due.
        """
        if state.global_step == self.first:
            control.should_save = False
            if any("eval_loss" in entry and entry["step"] == self.first for entry in state.log_history):
                control.should_evaluate = False
