"""lmtasks: from text to a published language model, one recipe per task.

To declare: :class:`Recipe`, :class:`Architecture`, :class:`Blocks`, :func:`option`, ...
To do: :func:`run`, :func:`evaluate`, :func:`predict`, :func:`push`. Every name is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmtasks.architecture import Architecture
    from lmtasks.blocks import Blocks, stack, template_tokens
    from lmtasks.catalog import Catalog, load_catalog
    from lmtasks.errors import InputError, Interrupted, LmtasksError, RunError
    from lmtasks.hookspecs import hookimpl
    from lmtasks.inference import predict
    from lmtasks.losses import causal_loss, masked_loss, target_sums, token_sums
    from lmtasks.medium import Medium
    from lmtasks.models import register_architectures
    from lmtasks.options import option
    from lmtasks.publishing import push
    from lmtasks.recipe import EVALUATION_SEED, BlockOptions, Recipe, Starter, TokenizerSpec
    from lmtasks.runner import Run, evaluate, run

__version__ = "0.1.0"

__all__ = [
    "EVALUATION_SEED",
    "Architecture",
    "BlockOptions",
    "Blocks",
    "Catalog",
    "InputError",
    "Interrupted",
    "LmtasksError",
    "Medium",
    "Recipe",
    "Run",
    "RunError",
    "Starter",
    "TokenizerSpec",
    "causal_loss",
    "evaluate",
    "hookimpl",
    "load_catalog",
    "masked_loss",
    "option",
    "predict",
    "push",
    "recipes",
    "register_architectures",
    "run",
    "stack",
    "target_sums",
    "template_tokens",
    "token_sums",
]

_HOMES = {
    "architecture": ["Architecture"],
    "blocks": ["Blocks", "stack", "template_tokens"],
    "catalog": ["Catalog", "load_catalog"],
    "errors": ["InputError", "Interrupted", "LmtasksError", "RunError"],
    "hookspecs": ["hookimpl"],
    "inference": ["predict"],
    "losses": ["causal_loss", "masked_loss", "target_sums", "token_sums"],
    "medium": ["Medium"],
    "models": ["register_architectures"],
    "options": ["option"],
    "publishing": ["push"],
    "recipe": ["EVALUATION_SEED", "BlockOptions", "Recipe", "Starter", "TokenizerSpec"],
    "runner": ["Run", "evaluate", "run"],
}
"""The module that each public name lives in."""


def recipes() -> dict[str, Recipe]:
    """The installed recipes by name, as ``lmtasks list`` shows them."""
    from lmtasks.catalog import load_catalog

    return dict(load_catalog().recipes)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that neither torch nor anything else is paid for in vain."""
    import importlib

    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"lmtasks.{module}"), name)
    raise AttributeError(f"module 'lmtasks' has no attribute '{name}'")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return __all__
