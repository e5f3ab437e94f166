"""A recipe's loss in which no shape depends on the data, so that a whole step can be compiled once.

The losses of recipes run the head only where there is a target: how much they compute, the data say. Here the head runs
everywhere, and what is no target counts for nothing.
"""

from __future__ import annotations

from typing import Any

import torch

from lmtasks import token_sums
from lmtasks.api import Batch, Recipe, Sums, loss_terms
from lmtasks.models.forward import without_cache
from lmtasks.models.losses import router_pull


class Everywhere(torch.nn.Module):
    """A model that takes ``targets``, as :func:`lmtasks.target_sums` gives them, and runs its head on every position.

    Everything else that is asked of it, such as its configuration or what stands beside it, is the model's own.
    """

    lmtasks_head = True

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("model"), name)

    def forward(
        self,
        targets: torch.Tensor | None = None,
        label_smoothing: float = 0.0,
        weights: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """The model's outputs, or where targets are given the sums of their losses."""
        if targets is None:
            return self.model(**inputs)
        outputs = self.model(**inputs, **without_cache(self.model))
        flat = None if weights is None else weights.flatten()
        total, count, more = token_sums(outputs.logits.flatten(0, 1), targets.flatten(), label_smoothing, flat)
        share = count if weights is None else (weights * (targets != -100)).sum()
        sums: Sums = (total + router_pull(self.model, outputs) * share, count, more)
        return sums


class RecipeLoss(torch.nn.Module):
    """The loss of a recipe's terms on a batch, as a module whose parameters are the model's.

    Args:
        recipe: with its options, as :attr:`lmtasks.Training.recipe` is.
    """

    PREFIX = "whole.model."
    """What the names of the model's parameters begin with here."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.whole = Everywhere(model)
        self.recipe, self.label_smoothing = recipe, label_smoothing

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of each term and its number of targets, both float32 [terms]."""
        if self.label_smoothing:
            batch = {**batch, "label_smoothing": self.label_smoothing}
        terms, _ = loss_terms(self.recipe.loss(self.whole, batch))
        sums, counts = zip(*[(term.sum, term.count) for term in terms.values()], strict=True)
        return torch.stack(list(sums)).float(), torch.stack(list(counts)).float()


def without_head(model: torch.nn.Module) -> torch.nn.Module:
    """The model as it was before its head was separated: that is of no use where it runs everywhere."""
    head = getattr(model, "lmtasks_head", None)
    if head is not None:
        head.remove()
    return model
