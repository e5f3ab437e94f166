"""The callbacks of the Trainer: one that watches the clock, and one that writes CSV."""

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def callbacks(recipe: Any, options: Any) -> Sequence[TrainerCallback]:
    """The clock, where there is a budget."""
    return [] if options.minutes is None else [Clock(60 * options.minutes)]


class Clock(TrainerCallback):
    """Ends training once it has taken so many seconds; a step that has begun is finished."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self.end = time.monotonic() + self.seconds

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at it."""
        if time.monotonic() >= self.end:
            control.should_training_stop = True


def csv_tracker(options: Any) -> TrainerCallback:
    """The tracker of one run."""
    return CsvTracker()


class CsvTracker(TrainerCallback):
    """Writes ``figures.csv``: a row for each step at which something was logged, a column for each figure.

    The Trainer keeps all that was logged in its state, and in its checkpoints, so that a resumed run has no row twice.
    """

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the file anew: there are few rows, and another figure is another column."""
        rows: dict[int, dict[str, float]] = {}
        for entry in state.log_history:
            rows.setdefault(entry["step"], {}).update(entry)
        columns = dict.fromkeys(name for row in rows.values() for name in row)
        # The Trainer's own folder is that of the checkpoints.
        with (Path(args.output_dir).parent / "figures.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *(name for name in columns if name != "step")])
            writer.writeheader()
            writer.writerows(rows.values())
