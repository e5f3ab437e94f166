"""lmtasks: from text to a published language model, one recipe per task.

Declaring (light): :class:`Recipe`, :class:`Architecture`, :class:`Blocks`, :func:`option`, ...
Doing (heavy, imported when first used): :func:`run`, :func:`evaluate`, :func:`predict`, :func:`push`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmtasks.architecture import Architecture
from lmtasks.catalog import Catalog, load_catalog
from lmtasks.errors import InputError, Interrupted, LmtasksError, RunError
from lmtasks.hookspecs import hookimpl
from lmtasks.options import option
from lmtasks.packing import Blocks, stack, template_tokens
from lmtasks.recipe import BlockOptions, Recipe, Starter, TokenizerSpec

if TYPE_CHECKING:
    from lmtasks.inference import predict
    from lmtasks.losses import causal_loss, masked_loss, token_sums
    from lmtasks.models import register_architectures
    from lmtasks.publishing import push
    from lmtasks.runner import Run, evaluate, run

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "BlockOptions",
    "Blocks",
    "Catalog",
    "InputError",
    "Interrupted",
    "LmtasksError",
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
    "template_tokens",
    "token_sums",
]

_HEAVY = {
    "Run": "runner",
    "causal_loss": "losses",
    "evaluate": "runner",
    "masked_loss": "losses",
    "predict": "inference",
    "push": "publishing",
    "register_architectures": "models",
    "run": "runner",
    "token_sums": "losses",
}


def recipes() -> dict[str, Recipe]:
    """The installed recipes by name, as ``lmtasks list`` shows them."""
    return dict(load_catalog().recipes)


def __getattr__(name: str) -> Any:
    """Import what is heavy on first use, so that ``import lmtasks`` stays cheap."""
    if name not in _HEAVY:
        raise AttributeError(f"module 'lmtasks' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"lmtasks.{_HEAVY[name]}"), name)
