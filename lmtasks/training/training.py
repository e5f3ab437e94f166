"""A training: what an engine gets from the core, the same whichever engine it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from lmtasks.api import Collate, Recipe
from lmtasks.artifacts.checkpoints import step_of
from lmtasks.data.dataset import ExampleDataset
from lmtasks.errors import InputError
from lmtasks.training.callbacks import BeforeStep, LogCallback, ScheduleCallback
from lmtasks.training.course import Course, CourseTrainer
from lmtasks.training.global_batches import GlobalBatch, global_batches
from lmtasks.training.length import examples_per_step, total_steps
from lmtasks.training.rate import rates
from lmtasks.training.signals import Signals


@dataclass(frozen=True)
class Training:
    """A model to be trained, and all that there is to train it with.

    Args:
        model: on the device of the arguments, with the weights to begin with: of a run that goes on those of the
            checkpoint. It is trained in place.
        recipe: its loss is called with model and batch.
        arguments: the Trainer's.
        eval_dataset: several by name, of which the first chooses the best model; or the only one.
        collates: the recipe's collators for training and evaluation.
        log: file for the log, one JSON object a line.
        checkpoint: folder of the checkpoint to go on from, whose files are as they were written.
        callbacks: for checkpoints, and for an early end: one whose ``ended_training`` is true had a right to it.
        before_step: changes the model before each step, with the number of steps done. The course calls it; who has
            read the weights of the model before has to read them again.
        saves: whether checkpoints are made: not where the engine could not go on from them.
    """

    model: PreTrainedModel
    recipe: Recipe
    arguments: TrainingArguments
    train_dataset: ExampleDataset
    eval_dataset: ExampleDataset | dict[str, ExampleDataset]
    collates: tuple[Collate, Collate]
    log: Path
    checkpoint: Path | None = None
    callbacks: Sequence[TrainerCallback] = ()
    before_step: BeforeStep | None = None
    saves: bool = True

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return total_steps(len(self.train_dataset), self.arguments)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return self._trainer.steps_per_epoch

    @property
    def done(self) -> int:
        """Steps that the run has done before, of which the checkpoint is."""
        return step_of(self.checkpoint) if self.checkpoint else 0

    @property
    def undecayed(self) -> frozenset[str]:
        """Names among the model's ``named_parameters()`` that weight decay leaves alone: biases and norms."""
        decayed = self._trainer.get_decay_parameter_names(self.model)
        return frozenset(name for name, _ in self.model.named_parameters()) - frozenset(decayed)

    def rate(self, step: int) -> float:
        """The learning rate in the step after so many.

        Raises:
            InputError: it goes by figures of the evaluation, which only the Trainer's own loop can.
        """
        return self._rates(step)

    def global_batches(self) -> Iterator[GlobalBatch]:
        """The examples of each optimiser step that is left, in the Trainer's order and with its masks.

        They end with the last step, and where the course has told that training stops.
        """
        return global_batches(self._trainer)

    def course(self, sync: Callable[[], None], save: Callable[[Path], None] | None = None) -> Course:
        """The course of the training, to be entered, and told of each step; see :class:`lmtasks.Course`.

        Args:
            sync: writes the engine's weights into :attr:`model`. Called before anything looks at them.
            save: writes what else the engine needs to go on into the folder of a checkpoint, beside the weights.
        """
        return Course(self._trainer, sync, save)

    def wiring(self, signals: Signals) -> dict[str, Any]:
        """The arguments of a :class:`lmtasks.training.trainer.RecipeTrainer` that trains this."""
        examples = self.train_dataset.examples
        per_step = round(examples_per_step(self.arguments) * examples.per_example)
        schedule = [ScheduleCallback(self.before_step)] if self.before_step else []
        return {
            "recipe": self.recipe,
            "eval_collate": self.collates[1],
            "signals": signals,
            "model": self.model,
            "args": self.arguments,
            "data_collator": self.collates[0],
            "train_dataset": self.train_dataset,
            "eval_dataset": self.eval_dataset,
            "callbacks": [*schedule, LogCallback(self.log, per_step, examples.unit), *self.callbacks],
        }

    def restore(self) -> None:
        """Set the model to the weights of the checkpoint, if there is one."""
        if self.checkpoint is not None:
            self._trainer._load_from_checkpoint(str(self.checkpoint))

    @cached_property
    def _rates(self) -> Callable[[int], float]:
        found = rates(self.arguments, self.steps)
        if found is None:
            kind = self.arguments.lr_scheduler_type.value
            raise InputError(
                f"--lr_scheduler_type {kind} goes by figures of the evaluation, and so needs the Trainer",
                "another schedule, or --engine trainer",
            )
        return found

    @cached_property
    def _trainer(self) -> CourseTrainer:
        """The Trainer without its loop; made when first needed, for it sets the seed."""
        return CourseTrainer(
            rate=self.rate,
            steps=self.steps,
            checkpoint=self.checkpoint,
            saves=self.saves,
            **self.wiring(Signals(keep=True)),
        )
