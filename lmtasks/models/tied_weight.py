"""One gradient for a weight that embeds the tokens of a model and is the last layer of its head, too.

By itself the embedding would make a gradient of its own, with a row of zeros for every word that a batch does not have,
and autograd would add it to that of the head, number by number. Here the few other rows are added to the head's, once
both are there: the weight comes to both from one node, whose turn it is only when all that came of it is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

Rows = list[tuple[Tensor, Tensor]]
"""Ids [...] of words, and gradients [..., size] of their rows."""


def tied_embedding(model: Any, weight: Tensor) -> torch.nn.Embedding | None:
    """The embedding of the model's tokens, where it has this weight and does nothing but look it up."""
    found = model.get_input_embeddings()
    if type(found) is not torch.nn.Embedding or found.weight is not weight or "forward" in vars(found):
        return None
    return None if found.max_norm is not None or found.scale_grad_by_freq or found.sparse else found


@contextmanager
def one_gradient(embedding: torch.nn.Embedding) -> Iterator[Tensor]:
    """The weight for the head; what the embedding looks up while this is open has its gradient in the head's.

    The embedding has a plain forward, and its weight a gradient to come.
    """
    rows: Rows = []
    weight, done = _Shared.apply(embedding.weight, rows)  # type: ignore[no-untyped-call]
    values, padding = weight.detach(), embedding.padding_idx
    embedding.forward = lambda input: _LookUp.apply(input, values, padding, done, rows)  # type: ignore[method-assign, no-untyped-call]
    try:
        yield weight
    finally:
        del embedding.forward


class _Shared(torch.autograd.Function):
    """The weight as the head gets it, and a number that each look-up depends on."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight)
        ctx.rows = rows
        return weight.view_as(weight), weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, _: Tensor | None) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        gradient = torch.zeros_like(weight) if gradient is None else gradient
        for ids, upstream in ctx.rows:
            gradient.index_add_(0, ids.flatten(), upstream.flatten(0, -2).to(gradient.dtype))
        ctx.rows.clear()
        return gradient, None


class _LookUp(torch.autograd.Function):
    """The rows of some ids; those of padding are not learned."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, values: Tensor, padding: int | None, done: Tensor, rows: Rows) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.padding, ctx.rows = padding, rows
        return functional.embedding(ids, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, None, None, Tensor, None]:
        (ids,) = ctx.saved_tensors
        learned = ids != ctx.padding if ctx.padding is not None else torch.ones_like(ids, dtype=torch.bool)
        ctx.rows.append((ids[learned], upstream[learned]))
        return None, None, None, upstream.new_zeros(()), None
