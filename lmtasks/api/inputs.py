"""What a loss reads: the inputs of its model, which positions hold a token, and the model under its wrapper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from lmtasks.api.recipe import Batch


def model_inputs(batch: Batch) -> Batch:
    """What a model takes of a batch: all but ``labels``, of which it would make a loss, and ``label_smoothing``."""
    return {name: value for name, value in batch.items() if name not in ("labels", "label_smoothing")}


def token_mask(batch: Batch) -> torch.Tensor:
    """Which positions hold a token, and no padding: bool [examples, length]."""
    ids: torch.Tensor = batch["input_ids"]
    mask: torch.Tensor = batch.get("attention_mask", ids.new_ones(ids.shape))
    return mask.bool()


def token_count(batch: Batch) -> torch.Tensor:
    """How many positions hold a token, and no padding: scalar int64."""
    return token_mask(batch).sum()


def unwrapped(model: Any) -> Any:
    """The model itself, with its configuration and companions, where several processes train it in a wrapper."""
    return getattr(model, "module", model)
