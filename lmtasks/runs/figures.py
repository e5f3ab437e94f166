"""All figures of a model on a split, under the names that go into files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lmtasks.api import EVALUATION_SEED, Examples, target_counts
from lmtasks.config.evaluation_sets import PLAIN, in_set
from lmtasks.config.request import Request
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.examples import one_example
from lmtasks.data.text.packing import Packed
from lmtasks.progress import stage
from lmtasks.runs.own_figures import own_figures
from lmtasks.training.evaluation import evaluate_model


def figures_of(
    model: torch.nn.Module, request: Request, processor: Any, evaluations: Mapping[str, Examples]
) -> dict[str, float]:
    """All figures of a model on its evaluation sets, under the names that go into files.

    Those of the first set come first, under plain names; those of named sets then, the first one's included.
    """
    sets = {name: _of_set(model, request, processor, name, examples) for name, examples in evaluations.items()}
    figures = dict(next(iter(sets.values())))
    for name, own in sets.items():
        figures |= {in_set(figure, name): value for figure, value in own.items()} if name else {}
    return figures


def _of_set(
    model: torch.nn.Module, request: Request, processor: Any, name: str, examples: Examples
) -> dict[str, float]:
    def figures(what: str, seen: Examples) -> dict[str, float]:
        with stage(f"evaluating {name}".strip() + what, len(seen), "examples") as progress:
            return evaluate_model(
                model,
                request.bound,
                ExampleDataset(seen, EVALUATION_SEED),
                request.recipe.collator(processor, request.options, False),
                int(request.training["per_device_eval_batch_size"]),
                progress.update,
            )

    plain = figures("", examples)
    terms = target_counts(request.recipe.targets(one_example(request, processor, examples, "evaluation")))
    eval_names = {*PLAIN, *(f"{term}_loss" for term in terms if term)}
    named = {f"eval_{figure}" if figure in eval_names else figure: value for figure, value in plain.items()}
    collate = request.recipe.collator(processor, request.options, False)
    named |= own_figures(model, request, ExampleDataset(examples, EVALUATION_SEED), collate, named)
    if not isinstance(examples, Packed):
        return named
    for view, blocks in request.recipe.views(processor, request.options).items():
        seen = figures(f", {view}", examples.recut(blocks))
        seen.pop("unigram_loss", None)  # of the text, not of the way of looking at it
        named |= {f"{view}_{figure}": value for figure, value in seen.items()}
        named[f"{view}_log_likelihood"] = -seen["loss"] * seen["targets"]
    return named
