"""Learning rates of a schedule at a step, for a run that goes on with another length than it had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainingArguments, get_scheduler


def rate_at(arguments: TrainingArguments, step: int, steps: int) -> float | None:
    """The learning rate in the step after so many, of a run of so many in all; see :func:`rates`."""
    found = rates(arguments, steps)
    return None if found is None else found(step)


def rates(arguments: TrainingArguments, steps: int) -> Callable[[int], float] | None:
    """The learning rate in the step after so many, as the Trainer would have it.

    Args:
        steps: of the whole run.

    Returns:
        None where it depends on more than the step.
    """
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=arguments.learning_rate)
    schedule = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer=optimizer,
        num_warmup_steps=arguments.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
    if not isinstance(schedule, LambdaLR):
        return None
    share = schedule.lr_lambdas[0]
    return lambda step: float(arguments.learning_rate * share(step))


def set_rates(optimizer: Any, schedule: Any) -> None:
    """Give an optimizer the rates that its schedule has now; a checkpoint's are those of the schedule that it had."""
    schedule, optimizer = getattr(schedule, "scheduler", schedule), getattr(optimizer, "optimizer", optimizer)
    if isinstance(schedule, LambdaLR):
        for group, base, share in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
            group["lr"] = base * share(schedule.last_epoch)
        schedule._last_lr = [group["lr"] for group in optimizer.param_groups]  # which the Trainer logs
