"""The figures of a program's own ``compute_metrics``, as the Trainer would ask for them."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader
from transformers import EvalPrediction
from transformers.trainer_pt_utils import EvalLoopContainer

from lmtasks.api import Batch, Collate, model_inputs
from lmtasks.config.hooks import Hooks
from lmtasks.config.request import Request
from lmtasks.data.dataset import ExampleDataset
from lmtasks.errors import InputError
from lmtasks.models.forward import in_mode
from lmtasks.progress import say, stage
from lmtasks.training.evaluation import fixed_chance

NO_LABEL = -100
"""What shorter examples are filled up with, labels and logits alike, as by the Trainer."""


def require_labels(request: Request, example: Batch) -> None:
    """Refuse ``compute_metrics`` for a recipe whose batches have no labels to compare with.

    Raises:
        InputError: they have none.
    """
    if request.hooks.compute_metrics is not None and "labels" not in example:
        raise InputError(
            f"compute_metrics needs labels, and the batches of {request.recipe.name} have none", "leave it out"
        )


def own_figures(
    model: torch.nn.Module, request: Request, dataset: ExampleDataset, collate: Collate, ours: dict[str, float]
) -> dict[str, float]:
    """What ``compute_metrics`` says of an evaluation set, by name with ``eval_`` before it; nothing without one.

    Args:
        ours: the figures of lmtasks. One of the same name is left out, and that is told.
    """
    figures: dict[str, float] = {}
    if (compute := request.hooks.compute_metrics) is None:
        return figures
    size = int(request.training["per_device_eval_batch_size"])
    for figure, value in compute(_predicted(model, dataset, collate, size, request.hooks)).items():
        name = f"eval_{figure.removeprefix('eval_')}"
        if name in ours:
            say(f"compute_metrics: its {figure} is left out, lmtasks has measured {name} itself")
        else:
            figures[name] = float(value)
    return figures


def _predicted(
    model: torch.nn.Module, dataset: ExampleDataset, collate: Collate, size: int, hooks: Hooks
) -> EvalPrediction:
    """Logits [examples, length, vocabulary], or what the program keeps of them, and labels [examples, length]."""
    device = next(model.parameters()).device
    predictions, labels = (EvalLoopContainer(padding_index=NO_LABEL) for _ in range(2))
    # A generator of its own: a loader draws a number when it starts.
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=size, collate_fn=collate, generator=torch.Generator())
    with in_mode(model), torch.no_grad(), fixed_chance(), stage("predicting", len(dataset), "examples") as progress:
        for number, batch in enumerate(loader, start=1):
            batch = send_to_device(batch, device)
            logits = model(**model_inputs(batch)).logits
            if hooks.preprocess_logits_for_metrics is not None:
                logits = hooks.preprocess_logits_for_metrics(logits, batch["labels"])
            for container, content in ((predictions, logits), (labels, batch["labels"])):
                container.add(content)
                container.to_cpu_and_numpy()
            progress.update(min(number * size, len(dataset)))
    return EvalPrediction(predictions=predictions.get_arrays(), label_ids=labels.get_arrays())
