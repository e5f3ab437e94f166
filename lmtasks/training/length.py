"""How long a training is: steps of a run, and examples of a step."""

from __future__ import annotations

import math

from transformers import TrainingArguments


def total_steps(examples: int, arguments: TrainingArguments) -> int:
    """Optimiser steps of a run over so many examples, as the Trainer counts them; none where there is no batch."""
    share = examples / (arguments.train_batch_size * arguments.world_size)
    batches = math.floor(share) if arguments.dataloader_drop_last else math.ceil(share)
    if batches and arguments.max_steps > 0:
        return int(arguments.max_steps)
    steps_per_epoch = math.ceil(batches / arguments.gradient_accumulation_steps)
    steps: int = math.ceil(arguments.num_train_epochs * steps_per_epoch)
    return steps


def examples_per_step(arguments: TrainingArguments) -> int:
    """Examples of one optimiser step."""
    size: int = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return size
