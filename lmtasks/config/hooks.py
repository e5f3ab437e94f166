"""What a Python program wants called in its run; a command line has nothing of the kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import EvalPrediction, TrainerCallback


@dataclass(frozen=True)
class Hooks:
    """Functions of a program, for one run. None of it is recorded, or makes another run of it.

    Args:
        callbacks: of the Trainer.
        compute_metrics: an EvalPrediction to figures by name, as the Trainer takes it.
        preprocess_logits_for_metrics: logits and labels of a batch to what is kept of them.
    """

    callbacks: tuple[TrainerCallback, ...] = ()
    compute_metrics: Callable[[EvalPrediction], Mapping[str, float]] | None = None
    preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None


NO_HOOKS = Hooks()
