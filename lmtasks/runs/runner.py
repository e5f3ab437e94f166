"""The runner: executes any recipe, and knows none by name.

prepare (:mod:`lmtasks.runs.prepare`) → train → evaluate → save → verify → card → push.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmtasks.api import Recipe
from lmtasks.config.request import configure, read_yaml
from lmtasks.config.world import World
from lmtasks.errors import InputError
from lmtasks.models.architectures import register_architectures
from lmtasks.registry.catalog import load_catalog
from lmtasks.runs.apart import require_apart
from lmtasks.runs.carry_out import carry_out
from lmtasks.runs.interruption import interruptible
from lmtasks.runs.plan import Plan
from lmtasks.runs.result import Run

__all__ = ["Run", "run"]


def run(recipe: str | Recipe, *, config: str | Path | None = None, **values: Any) -> Run | Plan:
    """Train a model as the recipe says.

    Args:
        recipe: name of an installed recipe, or a recipe.
        config: YAML file with more values; keyword arguments win over it.
        values: everything that the command line takes, under the same names, and ``train_dataset`` and
            ``eval_dataset`` for data in memory.

    Returns:
        the finished run, of before where ``resume_from_checkpoint="auto"`` finds it so; with ``dry_run=True`` the
        plan.

    Raises:
        InputError: the request cannot be carried out; nothing was written.
        RunError: it was carried out and failed, or the machine did: disk full, no permission, out of memory.
        Interrupted: a signal stopped it; the message says what is safe.
    """
    if not isinstance(recipe, str | Recipe):
        raise InputError(f"recipe cannot be a {type(recipe).__name__}", "give a name from lmtasks list, or a Recipe")
    catalog = load_catalog()
    chosen = recipe if isinstance(recipe, Recipe) else catalog.recipe(recipe)
    request = configure(catalog.watched(chosen), values, read_yaml(config) if config else None)
    require_apart(request)
    register_architectures(catalog)
    with interruptible() as stage:
        return carry_out(request, catalog, World.current(), stage)
