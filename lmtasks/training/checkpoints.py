"""The callback that makes checkpoints what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

from lmtasks.artifacts.checkpoints import checkpoint_path, finish, retain
from lmtasks.config.world import World


class CheckpointCallback(TrainerCallback):
    """Completes every checkpoint: the processing class, the manifest, and the end of those that are too many.

    The Trainer would save the processing class if it were given a tokenizer, but would then also rewrite the
    model's special token ids behind the user's back. Its own ``save_total_limit`` goes by names and times of
    folders, whosever they are, and removes what a resumption needs.

    Args:
        facts: what the manifest tells of the run.
        limit: how many checkpoints to keep; None for all.
        examples: of an epoch.
    """

    def __init__(self, run: Path, processor: Any, facts: Mapping[str, Any], limit: int | None, examples: int) -> None:
        self.run, self.processor, self.facts, self.limit, self.examples = run, processor, facts, limit, examples

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
            finish(checkpoint, {**whole, "position": self._position(args, state), **self.facts})
            self._retain(state)
        world.barrier()

    def _position(self, args: TrainingArguments, state: TrainerState) -> dict[str, int]:
        """How far the run is in its data, in the words of no number of processes: epoch, and examples of it done."""
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        epoch, steps = divmod(state.global_step, max(1, math.ceil(self.examples / batch)))
        return {"epoch": epoch, "examples": min(steps * batch, self.examples), "of": self.examples}

    def _retain(self, state: TrainerState) -> None:
        if self.limit:
            retain(self.run, state.global_step, self.limit, state.best_model_checkpoint)
