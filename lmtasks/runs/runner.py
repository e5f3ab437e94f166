"""The runner: executes any recipe, and knows none by name.

prepare (:mod:`lmtasks.runs.prepare`) → train → evaluate → save → verify → card → push.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import EvalPrediction, TrainerCallback

from lmtasks.api import Recipe
from lmtasks.config.request import configure, read_yaml
from lmtasks.config.world import World
from lmtasks.errors import InputError
from lmtasks.models.architectures import register_architectures
from lmtasks.progress import quietly, speak
from lmtasks.registry.catalog import load_catalog
from lmtasks.runs.carry_out import carry_out
from lmtasks.runs.interruption import interruptible
from lmtasks.runs.objects import hooks_of, written
from lmtasks.runs.plan import Plan
from lmtasks.runs.result import Run

__all__ = ["Run", "run"]


def run(
    recipe: str | Recipe,
    *,
    config: str | Path | None = None,
    callbacks: Sequence[TrainerCallback | type[TrainerCallback]] = (),
    compute_metrics: Callable[[EvalPrediction], Mapping[str, float]] | None = None,
    preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None = None,
    **values: Any,
) -> Run | Plan:
    """Train a model as the recipe says.

    Args:
        recipe: name of an installed recipe, or a recipe.
        config: YAML file with more values; keyword arguments win over it.
        callbacks: of the Trainer, for this run. One that ends training early has a right to it.
        compute_metrics: figures of one's own, as the Trainer takes them, of the trained model on each evaluation set:
            an ``EvalPrediction`` with logits [examples, length, vocabulary] and labels [examples, length], filled up
            with -100, to figures by name, which are recorded as ``eval_NAME``. All logits are in memory at once,
            unless the next argument makes less of them.
        preprocess_logits_for_metrics: logits and labels of a batch to what is kept of them, as for the Trainer.
        values: everything that the command line takes, under the same names; ``train_dataset`` and ``eval_dataset``
            for data in memory; as ``model`` also a ``PreTrainedModel``, which stays as it is, and as ``tokenizer``
            (or ``processing_class``) also one in memory.

    Returns:
        the finished run, of before where ``resume_from_checkpoint="auto"`` finds it so; with ``dry_run=True`` the
        plan.

    Raises:
        InputError: the request cannot be carried out; nothing was written.
        RunError: it was carried out and failed, or the machine did: disk full, no permission, out of memory.
        Interrupted: a signal stopped it; the message says what is safe.
    """
    world = World.current()
    speak(world.is_main)
    if not isinstance(recipe, str | Recipe):
        raise InputError(f"recipe cannot be a {type(recipe).__name__}", "give a name from lmtasks list, or a Recipe")
    catalog = load_catalog()
    chosen = recipe if isinstance(recipe, Recipe) else catalog.recipe(recipe)
    hooks = hooks_of(callbacks, compute_metrics, preprocess_logits_for_metrics)
    with quietly(), written(values) as named, interruptible() as stage:
        request = configure(catalog.watched(chosen), named, read_yaml(config) if config else None)
        register_architectures(catalog)
        return carry_out(replace(request, hooks=hooks), catalog, world, stage)
