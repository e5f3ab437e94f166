"""Cross-entropy of a projection to the vocabulary, a part of the vocabulary at a time.

The logits of a batch are the largest tensor of a step by far. Made a few tokens at a time, they would add to
the gradient of the weight, the second largest, with every piece. Made a few words of the vocabulary at a time,
each row of that gradient is written once; for it the logits are made twice. GPU kernels do the same (Wijmans
et al. 2025, "Cut Your Losses in Large-Vocabulary Language Models").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PIECE = 1 << 22
"""Logits that exist at once; 16 MiB in float32."""

TOKENS = 1 << 11
"""Tokens whose logits exist at once, at most: more would leave too few words for each."""


class ProjectedTotal(torch.autograd.Function):
    """Sum of the cross-entropies of features that a linear layer projects to the vocabulary."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        labels: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        label_smoothing: float,
        scales: Tensor | None = None,
    ) -> Tensor:
        """The sum in float32; only the gradient is smoothed, see :func:`lmtasks.token_sums`.

        Args:
            features, labels: [tokens, size] and int64 [tokens], every one of them a target.
            weight, bias: of the layer, [vocabulary, size] and [vocabulary].
            scales: what the loss of each token is multiplied by, [tokens]; 1 when not given.
        """
        device = features.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype
        normaliser = torch.full((len(labels),), -torch.inf, device=features.device)
        right = torch.zeros_like(normaliser)
        with torch.autocast(device, enabled=False):
            for words, tokens in _pieces(len(weight), len(labels)):
                logits = _logits(features[tokens], weight, bias, words, kind)
                normaliser[tokens] = torch.logaddexp(normaliser[tokens], logits.logsumexp(1))
                places, inside = _places(labels[tokens], words)
                right[tokens] += torch.where(inside, logits.gather(1, places)[:, 0], 0.0)
        ctx.save_for_backward(features, labels, weight, bias, normaliser, scales)
        ctx.kind, ctx.label_smoothing = kind, label_smoothing
        losses = normaliser - right
        return (losses if scales is None else losses * scales).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of features, weight and bias, each written in place."""
        features, labels, weight, bias, normaliser, scales = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_features = torch.zeros_like(features, dtype=torch.float32) if wanted[0] else None
        of_weight = torch.empty_like(weight) if wanted[2] else None
        of_bias = torch.empty_like(bias) if wanted[3] and bias is not None else None
        with torch.autocast(features.device.type, enabled=False):
            for words, tokens in _pieces(len(weight), len(labels)):
                slope = _logits(features[tokens], weight, bias, words, ctx.kind)
                slope.sub_(normaliser[tokens, None]).exp_()
                places, inside = _places(labels[tokens], words)
                slope.scatter_add_(1, places, torch.where(inside, ctx.label_smoothing - 1.0, 0.0)[:, None])
                if ctx.label_smoothing:
                    slope.sub_(ctx.label_smoothing / len(weight))
                slope.mul_(upstream if scales is None else upstream * scales[tokens, None])
                slope = slope.to(ctx.kind)
                add = Tensor.add_ if tokens.start else Tensor.copy_
                if of_features is not None:
                    of_features[tokens] += slope @ weight[words].to(ctx.kind)
                if of_weight is not None:
                    add(of_weight[words], slope.t() @ features[tokens].to(ctx.kind))
                if of_bias is not None:
                    add(of_bias[words], slope.sum(0))
        of_features = None if of_features is None else of_features.to(features.dtype)
        return of_features, None, of_weight, of_bias, None, None


def _pieces(vocabulary: int, count: int) -> Iterator[tuple[slice, slice]]:
    """Parts of the vocabulary, and for each of them parts of the tokens."""
    tokens = max(1, min(count, TOKENS))
    words = max(1, PIECE // tokens)
    for first in range(0, vocabulary, words):
        for start in range(0, max(count, 1), tokens):
            yield slice(first, min(first + words, vocabulary)), slice(start, start + tokens)


def _logits(features: Tensor, weight: Tensor, bias: Tensor | None, words: slice, kind: torch.dtype) -> Tensor:
    """The logits of some tokens for some words of the vocabulary, float32 [tokens, words]."""
    part = None if bias is None else bias[words].to(kind)
    return torch.nn.functional.linear(features.to(kind), weight[words].to(kind), part).float()


def _places(labels: Tensor, words: slice) -> tuple[Tensor, Tensor]:
    """Where among some words the labels are, [tokens, 1], and whether they are there at all."""
    places = labels - words.start
    inside = (places >= 0) & (places < words.stop - words.start)
    return places.clamp(0, words.stop - words.start - 1)[:, None], inside
