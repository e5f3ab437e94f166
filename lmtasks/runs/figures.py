"""All figures of a model on a split, under the names that go into files."""

from __future__ import annotations

from typing import Any

import torch

from lmtasks.api import EVALUATION_SEED, Examples
from lmtasks.config.request import Request
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.text.packing import Packed
from lmtasks.progress import stage
from lmtasks.training.evaluation import evaluate_model

PLAIN = ("loss", "targets")
"""Figures that are called ``eval_...`` in the results, as users of the Trainer know them."""


def figures_of(model: torch.nn.Module, request: Request, processor: Any, examples: Examples) -> dict[str, float]:
    """All figures of a model on a split, under the names that go into files."""

    def figures(what: str, seen: Examples) -> dict[str, float]:
        with stage(what, len(seen), "examples") as progress:
            return evaluate_model(
                model,
                request.recipe,
                ExampleDataset(seen, EVALUATION_SEED),
                request.recipe.collator(processor, request.options, False),
                int(request.training["per_device_eval_batch_size"]),
                progress.update,
            )

    plain = figures("evaluating", examples)
    named = {f"eval_{name}" if name in PLAIN else name: value for name, value in plain.items()}
    if not isinstance(examples, Packed):
        return named
    for view, blocks in request.recipe.views(processor, request.options).items():
        seen = figures(f"evaluating, {view}", examples.recut(blocks))
        seen.pop("unigram_loss", None)  # of the text, not of the way of looking at it
        named |= {f"{view}_{name}": value for name, value in seen.items()}
        named[f"{view}_log_likelihood"] = -seen["loss"] * seen["targets"]
    return named
