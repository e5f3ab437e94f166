"""The loss of a recipe on each text by itself, where its models have no likelihood of a text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device

from lmtasks.api import EVALUATION_SEED, BlockOptions, LossTerm, Recipe, has_targets, loss_terms
from lmtasks.artifacts.run_folder import read_record, read_whole
from lmtasks.config.request import configure, recorded_values
from lmtasks.data.text.packing import Packed
from lmtasks.errors import InputError
from lmtasks.models.forward import in_mode, moved, sparse
from lmtasks.progress import stage
from lmtasks.runs.load import load
from lmtasks.training.evaluation import fixed_chance

Terms = dict[str, list[LossTerm]]


def own_losses(name: str, recipe: Recipe, texts: Sequence[str], revision: str) -> list[tuple[float, int, int]]:
    """The loss of each text in nats per target, its targets, and the examples that it made.

    A text is read as a line by itself, in as many examples as it needs. What is drawn, such as masks, is drawn as in
    an evaluation, and from the text alone: neither its place nor its company matters.

    Raises:
        InputError: the recipe does not take texts one by one, or a text has nothing to predict.
    """
    if recipe.medium or not issubclass(recipe.options, BlockOptions):
        raise InputError(
            f"a {recipe.name} model has neither a likelihood nor a loss of a text by itself",
            "lmtasks evaluate RUN has the figures of all together",
        )
    values: dict[str, Any] = {"eval_dataset": list(texts), "line_by_line": True, "model_name_or_path": name}
    values |= {} if revision == "main" else {"revision": revision}
    with read_whole(name):
        request = configure(recipe, values, recorded_values(read_record(name) or {}, values))
        loaded = load(replace(request, sample=None), training=False)
    examples, data = loaded.data.encoded.evaluation, loaded.data
    if not isinstance(examples, Packed):
        raise InputError(f"the examples of {recipe.name} do not tell which text they are of", "")
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    model, bound = moved(loaded.model, device or torch.device("cpu")), data.request.bound
    collate = recipe.collator(data.processor, data.request.options, False)
    seen, found = defaultdict[int, int](int), defaultdict[int, Terms](lambda: defaultdict(list))
    with in_mode(model), sparse(model), torch.no_grad(), stage("scoring", len(examples), "examples") as progress:
        for number in range(len(examples)):
            text = int(np.searchsorted(examples.stream.documents, examples.places(number)[0], side="right")) - 1
            batch = collate([{**examples.example(number), "seed": (EVALUATION_SEED, 0, seen[text])}])
            seen[text] += 1
            if has_targets(recipe.targets(batch)):
                with fixed_chance():
                    terms, _ = loss_terms(bound.loss(model, send_to_device(batch, model.device)))
                for term, one in terms.items():
                    found[text][term].append(one)
            progress.update(number + 1)
    return [(*_mean(found[text], text + 1), seen[text]) for text in range(len(texts))]


def _mean(terms: Terms, number: int) -> tuple[float, int]:
    """The weighted sum of the means of the terms, and the targets of the first."""
    counts = {name: sum(int(one.count) for one in parts) for name, parts in terms.items()}
    if not any(counts.values()):
        raise InputError(f"text {number} has nothing to predict", "leave it out")
    means = (
        parts[0].weight * sum(float(one.sum) for one in parts) / counts[name]
        for name, parts in terms.items()
        if counts[name]
    )
    return sum(means), next(iter(counts.values()))
