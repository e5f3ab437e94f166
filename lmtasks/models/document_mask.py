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
from lmtasks.models.architectures import with_gradients
from lmtasks.models.probes import embedded_forward, reaches

Mask = torch.Tensor | dict[str, torch.Tensor]


def isolate(model: PreTrainedModel, recipe: Recipe) -> None:
    """Make the model take ``document_ids``, int64 [examples, length], -1 at padding.

    Does nothing to a batch without them. Nothing of this is saved with the model.

    Raises:
        InputError: the recipe does not say what a position may see.
    """
    if recipe.attention is None:
        raise InputError(
            f"{recipe.name} cannot isolate documents: it does not say whether its models look ahead",
            "leave --isolate_documents out",
        )
    causal = recipe.attention == "causal"

    def translate(module: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> Any:
        if "document_ids" not in inputs:
            return None
        documents = inputs.pop("document_ids")
        inputs["attention_mask"] = _mask(model, documents, causal)
        if "position_ids" in inspect.signature(model.forward).parameters:
            inputs["position_ids"] = _positions(documents) + _first_position(model)
        return args, inputs

    model.register_forward_pre_hook(translate, with_kwargs=True)


def _mask(model: PreTrainedModel, documents: torch.Tensor, causal: bool) -> Mask:
    """Which position sees which, [examples, 1, length, length]; one for each kind of layer if there are several."""
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


def _first_position(model: PreTrainedModel) -> int:
    """What a model calls its first position: RoBERTa's family counts from its padding id on."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


def probe_isolation(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> None:
    """Two documents in one block: each must come out as it does alone, and feel nothing of the other.

    Args:
        model: after :func:`isolate`.
        batch: one example of full length, as the recipe collates it; taken as two documents.

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
        with with_gradients(model), torch.enable_grad():
            logits, embedded = embedded_forward(model, {"input_ids": ids, "document_ids": documents})
            alone = [embedded_forward(model, {"input_ids": part})[0] for part in (ids[:, :cut], ids[:, cut:])]
            leaks = reaches(logits[:, cut:], embedded, slice(None, cut))
            leaks = leaks or reaches(logits[:, :cut], embedded, slice(cut, None))
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise _refusal(recipe, model, f"it takes no mask of documents ({first_line(error)})") from error
    if leaks:
        raise _refusal(recipe, model, "its tokens see other documents all the same")
    expected = torch.cat(alone, dim=1).float()
    # Other kernels add up in another order; a wrong position moves far more than that.
    if not torch.allclose(logits.float(), expected, rtol=1e-3, atol=1e-3 * float(expected.detach().std())):
        raise _refusal(recipe, model, "a document comes out otherwise than alone")


def _refusal(recipe: Recipe, model: PreTrainedModel, reason: str) -> InputError:
    return InputError(
        f"{recipe.name} cannot isolate documents with this {model.config.model_type} model: {reason}",
        "leave --isolate_documents out, or use --line_by_line for an example of each document",
    )
