"""lmtasks: from text to a published language model, one recipe per task.

To declare: :class:`Recipe`, :class:`Architecture`, :class:`Blocks`, :func:`option`, ...
To do: :func:`run`, :func:`load_run`, :func:`evaluate`, :func:`prepare`, :func:`predict`, :func:`merge`, :func:`push`.
Every name is imported on first use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmtasks.api import (
        EVALUATION_SEED,
        Architecture,
        BlockOptions,
        Blocks,
        Command,
        Engine,
        Extension,
        Format,
        Frozen,
        Handle,
        Job,
        Launcher,
        LossTerm,
        Medium,
        Reading,
        Recipe,
        Starter,
        TokenizerSpec,
        WordSegmenter,
        hookimpl,
        model_inputs,
        option,
        stack,
        template_tokens,
        token_count,
        token_mask,
        token_sums,
        unwrapped,
    )
    from lmtasks.artifacts.publish import push
    from lmtasks.cli.worker import worker
    from lmtasks.errors import InputError, Interrupted, LmtasksError, PluginError, RunError
    from lmtasks.inference.predictor import predict
    from lmtasks.models.architectures import register_architectures
    from lmtasks.models.checkpoint import from_pretrained
    from lmtasks.models.layers import keep_layers
    from lmtasks.models.losses import causal_loss, masked_loss, target_sums
    from lmtasks.registry.catalog import Catalog, load_catalog
    from lmtasks.runs.comparison import Comparison, Difference, Measured, compare
    from lmtasks.runs.data_preparation import prepare
    from lmtasks.runs.finished import load_run
    from lmtasks.runs.merging import merge
    from lmtasks.runs.resampling import Estimate
    from lmtasks.runs.result import Run
    from lmtasks.runs.runner import run
    from lmtasks.runs.scoring import Score, TokenScore, score
    from lmtasks.runs.standalone_evaluation import evaluate
    from lmtasks.training.course import Course
    from lmtasks.training.global_batches import GlobalBatch
    from lmtasks.training.trained import Trained
    from lmtasks.training.training import Training

if "RANK" in os.environ:
    # Of several processes each would say once that no parameter was unused; torch asks only when it is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

__version__ = "0.1.0"

__all__ = [
    "EVALUATION_SEED",
    "Architecture",
    "BlockOptions",
    "Blocks",
    "Catalog",
    "Command",
    "Comparison",
    "Course",
    "Difference",
    "Engine",
    "Estimate",
    "Extension",
    "Format",
    "Frozen",
    "GlobalBatch",
    "Handle",
    "InputError",
    "Interrupted",
    "Job",
    "Launcher",
    "LmtasksError",
    "LossTerm",
    "Measured",
    "Medium",
    "PluginError",
    "Reading",
    "Recipe",
    "Run",
    "RunError",
    "Score",
    "Starter",
    "TokenScore",
    "TokenizerSpec",
    "Trained",
    "Training",
    "WordSegmenter",
    "causal_loss",
    "compare",
    "evaluate",
    "from_pretrained",
    "hookimpl",
    "keep_layers",
    "load_catalog",
    "load_run",
    "masked_loss",
    "merge",
    "model_inputs",
    "option",
    "predict",
    "prepare",
    "push",
    "recipes",
    "register_architectures",
    "run",
    "score",
    "stack",
    "target_sums",
    "template_tokens",
    "token_count",
    "token_mask",
    "token_sums",
    "unwrapped",
    "worker",
]

_HOMES = {
    "artifacts.publish": ["push"],
    "cli.worker": ["worker"],
    "errors": ["InputError", "Interrupted", "LmtasksError", "PluginError", "RunError"],
    "inference.predictor": ["predict"],
    "models.architectures": ["register_architectures"],
    "models.checkpoint": ["from_pretrained"],
    "models.layers": ["keep_layers"],
    "models.losses": ["causal_loss", "masked_loss", "target_sums"],
    "registry.catalog": ["Catalog", "load_catalog"],
    "runs.comparison": ["Comparison", "Difference", "Measured", "compare"],
    "runs.data_preparation": ["prepare"],
    "runs.merging": ["merge"],
    "runs.finished": ["load_run"],
    "runs.resampling": ["Estimate"],
    "runs.result": ["Run"],
    "runs.runner": ["run"],
    "runs.scoring": ["Score", "TokenScore", "score"],
    "runs.standalone_evaluation": ["evaluate"],
    "training.course": ["Course"],
    "training.global_batches": ["GlobalBatch"],
    "training.trained": ["Trained"],
    "training.training": ["Training"],
}
"""The module of each public name that is not declared in :mod:`lmtasks.api`."""


def recipes() -> dict[str, Recipe]:
    """The installed recipes by name, as ``lmtasks list`` shows them."""
    from lmtasks.registry.catalog import load_catalog

    return dict(load_catalog().recipes)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that neither torch nor anything else is paid for in vain."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module 'lmtasks' has no attribute '{name}'")
    home = next((module for module, names in _HOMES.items() if name in names), "api")
    return getattr(importlib.import_module(f"lmtasks.{home}"), name)


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return __all__
