"""Global batches: the examples of each optimiser step, in the order of the Trainer, for who makes the steps himself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from lmtasks.api import Batch
from lmtasks.training.course import CourseTrainer


@dataclass(frozen=True)
class GlobalBatch:
    """The examples of one optimiser step.

    Args:
        batches: as the collator makes them, on the device of the arguments; ``--gradient_accumulation_steps`` of them,
            at the end of an epoch perhaps fewer, and the last one shorter.
        counts: targets of all of them, for each term of the loss: the divisors of its sums. At least 1.
        epoch: which they are of, from 0.
    """

    batches: tuple[Batch, ...]
    counts: dict[str, int]
    epoch: int


def global_batches(trainer: CourseTrainer) -> Iterator[GlobalBatch]:
    """The global batch of each step that is left, from the checkpoint on, until training stops."""
    done = trainer.first
    while done < trainer.steps:
        epoch, within = divmod(done, trainer.steps_per_epoch)
        iterator = trainer.batches_of(epoch, within)
        while not trainer.control.should_training_stop and done < trainer.steps:
            batches = tuple(itertools.islice(iterator, trainer.args.gradient_accumulation_steps))
            if not batches:
                break
            if done == trainer.first and within:
                trainer.restore_chance()
            yield GlobalBatch(batches, trainer.counted(batches), epoch)
            done += 1
        if trainer.control.should_training_stop:
            return
