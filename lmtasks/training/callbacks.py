"""Callbacks of the Trainer: epochs, schedules, and the log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtasks.artifacts.durable import write_text
from lmtasks.data.dataset import ExampleDataset
from lmtasks.errors import RunError
from lmtasks.progress import Progress
from lmtasks.training.live_line import LiveLine
from lmtasks.training.rate import set_rates
from lmtasks.training.totals import KEY

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
        """Open the progress display; of a resumed run, take out of the log what is done once more."""
        if state.global_step and state.is_world_process_zero:
            self._keep(state.global_step)
        self.line = LiveLine(state.max_steps, state.global_step, self.per_step, self.unit, args.device)
        self.line.losses += [entry["loss"] for entry in state.log_history if "loss" in entry]
        self.progress = Progress("training", state.max_steps, "steps", self.line)
        self.began, self.first = time.monotonic(), state.global_step
        self.told = self.began, self.first

    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Advance the progress display."""
        elapsed = max(time.monotonic() - self.began, 1e-9)
        rate = (state.global_step - self.first) * self.per_step / elapsed
        self.line.step = state.global_step
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
            self.line.losses.append(logs["loss"])
        if state.is_world_process_zero:
            # JSON has no number for what is not finite.
            said = {name: value if _is_finite(value) else str(value) for name, value in logs.items()}
            said |= self._speed(state.global_step) if "loss" in logs else {}
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **said}) + "\n")
        for name in ("loss", "grad_norm", "train_loss"):
            if not _is_finite(logs.get(name)):
                raise RunError(
                    f"training diverged: {name} is {logs[name]} at step {state.global_step}",
                    "lower --learning_rate or raise --warmup_steps",
                )

    def _speed(self, step: int) -> dict[str, float]:
        """How fast training was since the line before; evaluations and checkpoints in between count as time."""
        (before, first), now = self.told, time.monotonic()
        self.told = now, step
        speed = (step - first) * self.per_step / max(now - before, 1e-9)
        return {f"train_{self.unit.replace(' ', '_')}_per_second": round(speed, 1)}

    def _keep(self, steps: int) -> None:
        """Keep the log of so many steps; what tells of the end, and half a line of a killed run, goes."""
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.exists() else ():
            with suppress(ValueError, TypeError, KeyError):  # whatever else stands there, no line of ours
                entry = json.loads(line)
                if entry["step"] <= steps and "train_runtime" not in entry:
                    kept.append(f"{line}\n")
        write_text(self.path, "".join(kept))


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


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
