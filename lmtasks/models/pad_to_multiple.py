"""Inputs filled up, on the way into a model, to the length that it insists on."""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import PreTrainedModel

from lmtasks.api import Batch
from lmtasks.models.forward import without_cache

_FILLERS = {"attention_mask": 0, "token_type_ids": 0, "document_ids": -1, "labels": -100, "targets": -100}
"""Fillers after the end of each input that has a column for each token; ``input_ids`` get padding."""


def fill_up(model: PreTrainedModel, multiple: int) -> None:
    """Make the model take inputs of any length, as if they were a multiple of so many tokens long.

    They get padding on the right, which the attention mask hides, and the logits of padding are cut off.
    Nothing of this is saved with the model.
    """
    forward = type(model).forward

    @functools.wraps(forward)
    def filled(self: PreTrainedModel, *arguments: Any, **inputs: Any) -> Any:
        ids: torch.Tensor | None = inputs.get("input_ids")
        if ids is None or not (missing := -ids.shape[1] % multiple):
            return forward(self, *arguments, **inputs)
        # A cache would keep the padding, too.
        padding = int(getattr(self.config, "pad_token_id", None) or 0)
        outputs = forward(self, *arguments, **{**_longer(inputs, missing, padding), **without_cache(self)})
        if getattr(outputs, "logits", None) is not None:
            outputs.logits = outputs.logits[:, : ids.shape[1]]
        return outputs

    # A method, so that a copy of the model fills up its own inputs.
    model.forward = types.MethodType(filled, model)


def _longer(inputs: Batch, missing: int, padding: int) -> Batch:
    """The inputs with so many more columns."""
    longer = dict(inputs)
    if inputs.get("attention_mask") is None:
        longer["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for name, filler in {**_FILLERS, "input_ids": padding}.items():
        if torch.is_tensor(longer.get(name)):
            longer[name] = pad(longer[name], (0, missing), value=filler)
    return longer
