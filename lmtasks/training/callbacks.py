"""Callbacks of the Trainer: epochs, schedules, checkpoints, the log and signals."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtasks.data.dataset import ExampleDataset
from lmtasks.errors import RunError
from lmtasks.progress import Progress

BeforeStep = Callable[[int], None]


class EpochCallback(TrainerCallback):
    """Tells the training examples which epoch it is, also after a resumption."""

    def __init__(self, dataset: ExampleDataset) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """``state.epoch`` is a fraction in mid-epoch; its whole part is the epoch."""
        self.dataset.start_epoch(int(state.epoch or 0))


class ScheduleCallback(TrainerCallback):
    """Lets the recipe change the model as training goes on; see :attr:`lmtasks.Recipe.before_step`."""

    def __init__(self, before_step: BeforeStep) -> None:
        self.before_step = before_step

    def on_step_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Tell how many steps are done, those before a resumption included."""
        self.before_step(state.global_step)


class CheckpointCallback(TrainerCallback):
    """Puts the processing class into every checkpoint, so that each can be used on its own.

    The Trainer would do it if it were given a tokenizer, but would then also rewrite the
    model's special token ids behind the user's back.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Add to ``checkpoint-N``, which the Trainer has just written."""
        if state.is_world_process_zero:
            self.processor.save_pretrained(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


class NothingTwiceCallback(TrainerCallback):
    """Where no step was left to do, neither saves nor evaluates what the checkpoint has of the epoch's end."""

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Note the steps that were done before."""
        self.first = state.global_step

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Comes after the Trainer's own callback has decided what is due."""
        if state.global_step == self.first:
            control.should_save = False
            if any("eval_loss" in entry and entry["step"] == self.first for entry in state.log_history):
                control.should_evaluate = False


class LogCallback(TrainerCallback):
    """Writes ``log.jsonl``, shows progress, and stops a run that has diverged.

    Args:
        path: the log file, appended to.
        per_step: how many of the unit a step takes, for the rate that is shown.
    """

    def __init__(self, path: Path, per_step: int, unit: str = "tokens") -> None:
        self.path, self.per_step, self.unit = path, per_step, unit
        self.note = ""

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Open the progress display."""
        self.progress = Progress("training", state.max_steps, "steps")
        self.began, self.first = time.monotonic(), state.global_step

    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Advance the progress display."""
        elapsed = max(time.monotonic() - self.began, 1e-9)
        rate = (state.global_step - self.first) * self.per_step / elapsed
        self.progress.update(state.global_step, f"{self.note}{rate:,.0f} {self.unit}/s")

    def on_train_end(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Close the progress display."""
        self.progress.close()

    def on_log(self, args: Any, state: TrainerState, *_: Any, logs: dict[str, Any], **__: Any) -> None:
        """Append to the log; refuse to go on with numbers that are none.

        Raises:
            RunError: loss or gradient norm is not finite.
        """
        if "loss" in logs:
            self.note = f"loss {logs['loss']:.3f}, "
        if state.is_world_process_zero:
            # JSON has no number for what is not finite.
            said = {name: value if _is_finite(value) else str(value) for name, value in logs.items()}
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **said}) + "\n")
        for name in ("loss", "grad_norm", "train_loss"):
            if not _is_finite(logs.get(name)):
                raise RunError(
                    f"training diverged: {name} is {logs[name]} at step {state.global_step}",
                    "lower --learning_rate or raise --warmup_steps",
                )


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


class SignalCallback(TrainerCallback):
    """On SIGINT or SIGTERM, finish the step, save a checkpoint, and stop; on a second one, at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SignalCallback:
        # Python lets only the main thread have signal handlers; elsewhere the caller keeps his own.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        self.received = number
        signal.signal(number, self._previous[number])

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Only between steps is there a state that can be resumed exactly."""
        if self.received is not None:
            control.should_save = control.should_training_stop = True
