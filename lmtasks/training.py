"""Training with the transformers Trainer, and the one thing that it gets wrong: the division.

The Trainer divides a model's loss by whatever the model's signature suggests; for most masked
models that multiplies loss and gradients by the number of accumulated batches (transformers
issue 47688). Here the recipe's loss is a sum, and the sum is divided once, by the number of
targets in the whole global batch.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from lmtasks.allocation import kept_memory
from lmtasks.arguments import refused
from lmtasks.errors import InputError, Interrupted, RunError, first_line
from lmtasks.evaluation import Collate, evaluate_model
from lmtasks.examples import Examples
from lmtasks.models import with_gradients
from lmtasks.progress import Progress
from lmtasks.recipe import Batch, Recipe

BeforeStep = Callable[[int], None]

REPEATED = "repeated"
"""In a batch that has nothing new in it: it takes part in a step and counts for nothing."""


class RecipeTrainer(Trainer):
    """The Trainer with a recipe's loss and lmtasks' evaluation.

    Args:
        recipe: gives loss and targets.
        eval_collate: the recipe's collator for evaluation.
        Everything else as for the Trainer.
    """

    def __init__(self, *, recipe: Recipe, eval_collate: Collate, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.recipe = recipe
        self.eval_collate = eval_collate
        self.loss_is_scaled_for_ga = True  # see compute_loss
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor]:
        """The batches of one optimiser step, and the number of their targets in all processes."""
        batches = [self._without_repeats(batch) for batch in itertools.islice(epoch_iterator, num_batches)]
        counts = [0 if REPEATED in batch else self.recipe.targets(batch).numel() for batch in batches]
        return batches, self.accelerator.reduce(torch.tensor(sum(counts), device=device), reduction="sum")

    def _without_repeats(self, batch: Batch) -> Batch:
        """The batch without the examples that another process, or an earlier step, already has.

        accelerate fills the last batches of an epoch with the first examples once more, so that all
        processes have equally many (``even_batches``). A single process has no such examples, and
        several must do what one does.
        """
        loading, processes = self.accelerator, self.accelerator.num_processes
        filled = loading.gradient_state.end_of_dataloader and loading.even_batches
        if processes == 1 or not filled or self.args.dataloader_drop_last:
            return batch
        rows = len(next(value for value in batch.values() if torch.is_tensor(value)))
        last = len(self.train_dataset) % (rows * processes)
        own = last - loading.process_index * rows
        if not last or own >= rows:
            return batch
        # One example stays, even if none is new: the others wait for this process's backward pass.
        first = {name: value[: max(1, own)] if torch.is_tensor(value) else value for name, value in batch.items()}
        return first if own > 0 else {**first, REPEATED: True}

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The batch's share of the mean over the global batch.

        Times the number of processes, because data parallelism averages their gradients. The Trainer's
        own label smoothing is in the method that this one replaces: only the recipe's loss smooths.
        """
        if self.args.label_smoothing_factor:
            inputs = {**inputs, "label_smoothing": self.args.label_smoothing_factor}
        repeated = inputs.get(REPEATED, False)
        total, _, *_ = self.recipe.loss(model, {name: value for name, value in inputs.items() if name != REPEATED})
        assert num_items_in_batch is not None  # get_batch_samples counts
        # A global batch without any target has nothing to teach: zero, not a division by zero.
        share: torch.Tensor = total / num_items_in_batch.clamp(min=1) * self.accelerator.num_processes
        return share * 0 if repeated else share

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """lmtasks' figures under the names that the Trainer's users know."""
        examples = self.eval_dataset
        assert isinstance(examples, Examples)  # the runner gives it
        figures = evaluate_model(self.model, self.recipe, examples, self.eval_collate, self.args.eval_batch_size)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class EpochCallback(TrainerCallback):
    """Tells the training examples which epoch it is, also after a resumption."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """``state.epoch`` is a fraction in mid-epoch; its whole part is the epoch."""
        self.examples.start_epoch(int(state.epoch or 0))


class ScheduleCallback(TrainerCallback):
    """Lets the recipe change the model as training goes on; see :attr:`lmtasks.Recipe.before_step`."""

    def __init__(self, before_step: BeforeStep) -> None:
        self.before_step = before_step

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell how many steps are done, those before a resumption included."""
        self.before_step(state.global_step)


class CheckpointCallback(TrainerCallback):
    """Puts the processing class into every checkpoint, so that each can be used on its own.

    The Trainer would do it if it were given a tokenizer, but would then also rewrite the
    model's special token ids behind the user's back.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """After the Trainer has written ``checkpoint-N``."""
        if state.is_world_process_zero:
            self.processor.save_pretrained(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


class LogCallback(TrainerCallback):
    """Writes ``log.jsonl``, shows progress, and stops a run that has diverged.

    Args:
        path: the log file, appended to.
        per_step: for the rate that is shown, in
        unit: such as "tokens".
    """

    def __init__(self, path: Path, per_step: int, unit: str = "tokens") -> None:
        self.path = path
        self.per_step, self.unit = per_step, unit
        self.progress: Progress | None = None
        self.note = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the progress display."""
        if state.is_world_process_zero:
            self.progress = Progress("training", state.max_steps, "steps")
        self.began, self.first = time.monotonic(), state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Advance the progress display."""
        if self.progress is not None:
            elapsed = max(time.monotonic() - self.began, 1e-9)
            rate = (state.global_step - self.first) * self.per_step / elapsed
            self.progress.update(state.global_step, f"{self.note}{rate:,.0f} {self.unit}/s")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the progress display."""
        if self.progress is not None:
            self.progress.close()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append to the log; refuse to go on with numbers that are none.

        Raises:
            RunError: loss or gradient norm is not finite.
        """
        logs = logs or {}
        if "loss" in logs:
            self.note = f"loss {logs['loss']:.3f}, "
        if state.is_world_process_zero:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **_sayable(logs)}) + "\n")
        for name in ("loss", "grad_norm", "train_loss"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise RunError(
                    f"training diverged: {name} is {logs[name]} at step {state.global_step}",
                    "lower --learning_rate or raise --warmup_steps",
                )


def _sayable(logs: dict[str, Any]) -> dict[str, Any]:
    """The entries with words for the floats that JSON has no number for."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in logs.items()
    }


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

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Only between steps is there a state that can be resumed exactly."""
        if self.received is not None:
            control.should_save = control.should_training_stop = True


def rehearse(
    model: PreTrainedModel,
    recipe: Recipe,
    arguments: TrainingArguments,
    examples: Examples,
    collate: Collate,
    steps: int,
) -> None:
    """Build what the arguments ask for once, elsewhere, so that what cannot be is refused while nothing is written.

    Args:
        collate: the recipe's collator for training.
        steps: optimiser steps of the run.

    Raises:
        InputError: a package that an argument needs is missing, a value is out of range, the recipe's
            loss would train without the label smoothing that was asked for, or its batches cannot be
            shared by several processes.
    """
    if arguments.world_size > 1 and not arguments.dataloader_drop_last:
        _require_rows(recipe, examples, collate)
    if arguments.label_smoothing_factor:
        _require_smoothing(model, recipe, examples, collate)
    with tempfile.TemporaryDirectory() as elsewhere:
        there = copy.copy(arguments)
        there.output_dir = elsewhere
        try:
            trainer = RecipeTrainer(
                recipe=recipe,
                eval_collate=collate,
                model=model,
                args=there,
                data_collator=collate,
                train_dataset=examples,
                eval_dataset=examples,
            )
            trainer.create_optimizer_and_scheduler(steps)
            trainer.get_train_dataloader()
        except (ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
            raise refused(error) from error


def _require_rows(recipe: Recipe, examples: Examples, collate: Collate) -> None:
    """See that examples can be taken out of a batch, as several processes must at the end of an epoch.

    Raises:
        InputError: some tensor does not have one row for each example.
    """
    batch = collate([examples[0]] * 2)
    for name, value in batch.items():
        if torch.is_tensor(value) and (not value.ndim or len(value) != 2):
            raise InputError(
                f"{recipe.name} cannot train in several processes:"
                f" '{name}' in its batches is not a row for each example",
                "train in one process, or leave out the end of an epoch with --dataloader_drop_last",
            )


def _require_smoothing(model: PreTrainedModel, recipe: Recipe, examples: Examples, collate: Collate) -> None:
    """See the gradient of one example change when its labels are smoothed, and leave no trace.

    Raises:
        InputError: it does not change, or the loss fails on a batch that says ``label_smoothing``.
    """
    batches = (collate([examples[number]]) for number in examples.material.longest_first())
    batch = next((batch for batch in batches if recipe.targets(batch).numel()), None)
    if batch is None:
        return  # nothing to learn, smoothed or not
    plain = _gradient(model, recipe, batch)
    advice = "leave --label_smoothing_factor out"
    try:
        # Strong, whatever factor was asked for: a slight change could drown in rounding.
        smoothed = _gradient(model, recipe, {**batch, "label_smoothing": 0.5})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{recipe.name} cannot train with --label_smoothing_factor: {first_line(error)}", advice
        ) from error
    if _norm([one - other for one, other in zip(plain, smoothed, strict=True)]) <= 1e-4 * _norm(plain):
        raise InputError(f"{recipe.name} takes no notice of --label_smoothing_factor", advice)


def _norm(gradient: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in gradient))


def _gradient(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> list[torch.Tensor]:
    """The gradient of the loss for each parameter that is trained, in float32, without dropout.

    The parameters' own gradients, the model's mode and the random state are left as they are.
    """
    device = next(model.parameters()).device
    inputs = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with with_gradients(model), torch.random.fork_rng(devices=[]), torch.enable_grad():
        total = recipe.loss(model, inputs)[0]
        gradients = torch.autograd.grad(total, trained, allow_unused=True, materialize_grads=True)
    return [part.float() for part in gradients]


def train(
    model: PreTrainedModel,
    recipe: Recipe,
    processor: Any,
    arguments: TrainingArguments,
    train_examples: Examples,
    eval_examples: Examples,
    collates: tuple[Collate, Collate],
    log: Path,
    checkpoint: Path | None,
    before_step: BeforeStep = lambda steps: None,
) -> tuple[RecipeTrainer, dict[str, float]]:
    """Train the model in place.

    Args:
        processor: the processing class, for the checkpoints.
        collates: the recipe's collators for training and evaluation.
        log: file for the log, one JSON object a line.
        checkpoint: folder of the checkpoint to go on from.
        before_step: called before every step with the number of steps done.

    Returns:
        the trainer, and ``train_loss``, ``train_runtime`` in seconds, ``train_tokens_per_second``, ...

    Raises:
        RunError: diverged or out of memory.
        Interrupted: stopped by a signal, after saving a checkpoint.
    """
    material = train_examples.material
    examples_per_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    per_step = round(examples_per_step * material.per_example)
    log_callback = LogCallback(log, per_step, material.unit)
    with SignalCallback() as signals:
        trainer = RecipeTrainer(
            recipe=recipe,
            eval_collate=collates[1],
            model=model,
            args=arguments,
            data_collator=collates[0],
            train_dataset=train_examples,
            eval_dataset=eval_examples,
            callbacks=[
                EpochCallback(train_examples),
                ScheduleCallback(before_step),
                CheckpointCallback(processor),
                log_callback,
                signals,
            ],
        )
        try:
            with kept_memory(arguments.device):
                output = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise RunError(
                "out of memory while training",
                "halve --per_device_train_batch_size and double --gradient_accumulation_steps: the same result",
            ) from error
    if signals.received is not None:
        name = signal.Signals(signals.received).name
        raise Interrupted(
            f"stopped by {name} after step {trainer.state.global_step}, with a checkpoint",
            "the same command with --resume_from_checkpoint true goes on from there",
            signals.received,
        )
    metrics = dict(output.metrics)
    steps = trainer.state.global_step - log_callback.first
    speed = f"train_{material.unit.replace(' ', '_')}_per_second"
    metrics[speed] = round(steps * per_step / metrics["train_runtime"], 1)
    return trainer, metrics
