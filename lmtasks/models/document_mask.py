"""Documents that share a block without seeing each other, for any architecture that can.

A batch says with ``document_ids`` which token belongs to which document. Right before the model runs,
they become what the model understands: a mask that is a block on the diagonal for each document, and
positions that start anew. Whether the model heeds these is measured, not believed.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel

from lmtasks.api import Batch, Recipe
from lmtasks.errors import InputError, first_line
from lmtasks.models.agreement import agree
from lmtasks.models.architectures import with_gradients
from lmtasks.models.companions import companions
from lmtasks.models.forward import MODEL_FAILURES, first_position, position_tables
from lmtasks.models.probes import embedded_forward, reaches


def isolate(model: PreTrainedModel, recipe: Recipe) -> None:
    """Make the model, and those beside it, take ``document_ids``, int64 [examples, length], -1 at padding; or none.

    Nothing of this is saved with the model.

    Raises:
        InputError: the recipe does not say what a position may see.
    """
    if recipe.attention is None:
        raise InputError(
            f"{recipe.name} cannot isolate documents: it does not say whether its models look ahead",
            "leave --isolate_documents out",
        )
    for one in (model, *companions(model).values()):
        if isinstance(one, PreTrainedModel):
            _translate(one, recipe.attention == "causal")


def _translate(model: PreTrainedModel, causal: bool) -> None:
    """Put mask and positions in the place of ``document_ids`` in what the model gets."""

    def translate(module: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> Any:
        if "document_ids" not in inputs:
            return None
        documents = inputs.pop("document_ids")
        inputs["attention_mask"] = _mask(model, documents, causal)
        if "position_ids" in inspect.signature(model.forward).parameters:
            first = next(map(first_position, position_tables(model)), 0)
            inputs["position_ids"] = _positions(documents) + first
        return args, inputs

    model.register_forward_pre_hook(translate, with_kwargs=True)


def _mask(model: PreTrainedModel, documents: torch.Tensor, causal: bool) -> torch.Tensor | dict[str, torch.Tensor]:
    """Mask of the positions that see each other, [examples, 1, length, length]; one for each kind of layer."""
    length = documents.shape[1]
    distance = torch.arange(length, device=documents.device)
    distance = distance[:, None] - distance[None, :]
    seen = documents[:, :, None] == documents[:, None, :]
    seen = (seen & (distance >= 0) if causal else seen)[:, None]
    kinds = getattr(model.config, "layer_types", None) or ()
    window = getattr(model.config, "sliding_window", None)
    if not window or (kinds and "sliding_attention" not in kinds):
        return _understood(model, seen)
    # transformers' windows: so many tokens with the token itself, or so many to either side.
    near = _understood(model, seen & (distance < window if causal else distance.abs() <= window))
    return {"full_attention": _understood(model, seen), "sliding_attention": near} if kinds else near


def _understood(model: PreTrainedModel, seen: torch.Tensor) -> torch.Tensor:
    """The mask as the model's attention takes it: yes and no, or what to add to the scores."""
    if model.config._attn_implementation == "sdpa":
        return seen
    scores = torch.zeros(seen.shape, dtype=model.dtype, device=seen.device)
    return scores.masked_fill(~seen, torch.finfo(model.dtype).min)


def _positions(documents: torch.Tensor) -> torch.Tensor:
    """Positions that start at 0 in every document, int64 [examples, length]."""
    place = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    first = torch.zeros_like(documents)
    first[:, 1:] = torch.where(documents.diff() != 0, place[:, 1:], 0)
    return place - first.cummax(dim=1).values


def probe_isolation(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> None:
    """One example taken as two documents: each must come out as it does alone, and feel nothing of the other.

    Raises:
        InputError: the model has no such mask, ignores it, or counts positions across documents.
    """
    ids = batch["input_ids"][:1]
    cut = ids.shape[1] // 3
    if not cut:
        return
    documents = torch.zeros_like(ids)
    documents[:, cut:] = 1
    try:
        with with_gradients(model):
            logits, embedded = embedded_forward(model, {"input_ids": ids, "document_ids": documents})
            alone = [embedded_forward(model, {"input_ids": part})[0] for part in (ids[:, :cut], ids[:, cut:])]
            leaks = reaches(logits[:, cut:], embedded, slice(None, cut))
            leaks = leaks or reaches(logits[:, :cut], embedded, slice(cut, None))
    except MODEL_FAILURES as error:
        raise _refusal(recipe, model, f"it takes no mask of documents ({first_line(error)})") from error
    if leaks:
        raise _refusal(recipe, model, "its tokens see other documents all the same")
    # A wrong position moves far more than another kernel's rounding.
    if not agree(logits, torch.cat(alone, dim=1), spread=1e-3):
        raise _refusal(recipe, model, "a document comes out otherwise than alone")


def _refusal(recipe: Recipe, model: PreTrainedModel, reason: str) -> InputError:
    return InputError(
        f"{recipe.name} cannot isolate documents with this {model.config.model_type} model: {reason}",
        "leave --isolate_documents out, or use --line_by_line for an example of each document",
    )
