"""Cross-entropy of a projection to the vocabulary, a part of the vocabulary at a time.

The logits of a batch are the largest tensor of a step by far. Made a few tokens at a time, they would add to
the gradient of the weight, the second largest, with every piece. Made a few words of the vocabulary at a time,
each row of that gradient is written once. GPU kernels do the same (Wijmans et al. 2025, "Cut Your Losses in
Large-Vocabulary Language Models"). For the gradient the logits are made a second time, but for as many as may be kept.

The gradient of the loss by the logits is their softmax, less one at the label. Here it is the softmax over the words of
a piece; what makes it that over the vocabulary is one number for each token, which the few features are multiplied by
and not the many logits. The labels are left out of it and counted exactly: of a token that is nearly certain, the
difference from one would be nothing but rounding.

A projection that does not learn, as under an adapter, is gone through once: the gradient of the features is made along
with the loss, scaled piece by piece to what the sum over the vocabulary has come to (as in Dao et al. 2022,
"FlashAttention"), and nothing is kept but that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lmtasks.models.last_layer import ROWS

PIECE = 1 << 20
"""Logits that exist at once; 4 MiB in float32, which caches of processors hold."""

WORDS = 1 << 11
"""Words of a piece at least, though it has more logits then: each piece goes through the features a few times."""

TOKENS = 1 << 11
"""Tokens whose logits exist at once, at most: more would leave too few words for each."""

KEPT = 112 << 20
"""Bytes of probabilities that the forward pass leaves to the backward pass, at most: those of 1,024 tokens and 50,000
words in bfloat16, less than half of what logits in float32 take, which nothing else keeps."""

SPARE = 48 << 20
"""Bytes of probabilities up to which it leaves weights, too, where there is room beside all of these."""

AT_ONCE = {"cpu": PIECE}
"""Logits that exist at once where nothing is learned, by the kind of device; on others as many as ``MANY``.

Few enough for a processor's caches; a GPU would wait for the next product to be handed over.
"""

MANY = 1 << 23
"""32 MiB of logits in float32."""

_share = ContextVar("share", default=1.0)

Piece = tuple[Tensor, Tensor, Tensor | None]
"""Probabilities [tokens, words], the logarithm of their sum before they were such, [tokens, 1], and the weights
[words, size] that they come from, in the kind of the products, if these are kept."""


@contextmanager
def keeping(share: float) -> Iterator[None]:
    """While this is open a part of a batch is cut as the whole would be, and keeps its part of what may be kept."""
    before = _share.set(share)
    try:
        yield
    finally:
        _share.reset(before)


def projected_total(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    label_smoothing: float = 0.0,
    scales: Tensor | None = None,
) -> Tensor:
    """Sum of the cross-entropies of features that a linear layer projects to the vocabulary, in float32.

    Only the gradient is smoothed, see :func:`lmtasks.token_sums`.

    Args:
        features, labels: [tokens, size] and int64 [tokens], every one of them a target.
        weight, bias: of the layer, [vocabulary, size] and [vocabulary].
        scales: what the loss of each token is multiplied by, [tokens]; 1 when not given.
    """
    learns = weight.requires_grad or (bias is not None and bias.requires_grad)
    kind = FrozenTotal if features.requires_grad and torch.is_grad_enabled() and not learns else ProjectedTotal
    total: Tensor = kind.apply(features, labels, weight, bias, label_smoothing, scales)  # type: ignore[no-untyped-call]
    return total


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
        """As :func:`projected_total`."""
        kind, share = _kind(features), _share.get()
        normaliser, right = _at_first(features)
        kept: list[Piece] = []
        learned = share if any(ctx.needs_input_grad) else 0
        left, spare = KEPT * learned, SPARE * learned - len(labels) * len(weight) * kind.itemsize
        read = features.to(kind)
        with torch.autocast(features.device.type, enabled=False):
            for words, tokens in _pieces(len(weight), len(labels)):
                rows = weight[words].to(kind)
                chances, own = _piece(read, labels, rows, bias, words, tokens, right)
                normaliser[tokens] = torch.logaddexp(normaliser[tokens], own)
                left -= chances.numel() * kind.itemsize
                spare -= rows.nbytes * share if kind != weight.dtype else 0
                if left >= 0:
                    chances = _without_labels(chances, *_places(labels[tokens], words)).to(kind)
                    kept.append((chances, own, rows if spare >= 0 else None))
        ctx.save_for_backward(features, labels, weight, bias, normaliser, right, scales)
        ctx.kind, ctx.label_smoothing, ctx.kept = kind, label_smoothing, kept
        losses = (normaliser - right)[:, 0]
        return (losses if scales is None else losses * scales).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of features, weight and bias, each written in place."""
        features, labels, weight, bias, normaliser, right, scales = ctx.saved_tensors
        wanted, kind, kept = ctx.needs_input_grad, ctx.kind, iter(ctx.kept)
        of_features = torch.zeros_like(features, dtype=torch.float32) if wanted[0] else None
        of_weight = torch.empty_like(weight) if wanted[2] else None
        of_bias = torch.empty_like(bias) if wanted[3] and bias is not None else None
        pull = torch.ones_like(normaliser) * upstream if scales is None else scales[:, None] * upstream
        with torch.autocast(features.device.type, enabled=False):
            for words, tokens in _pieces(len(weight), len(labels)):
                chances, own, rows = next(kept, None) or _again(
                    features[tokens], labels[tokens], weight, bias, words, normaliser[tokens], kind
                )
                rows = weight[words].to(kind) if rows is None else rows
                share = pull[tokens] * (own - normaliser[tokens]).exp()
                add = Tensor.add_ if tokens.start else Tensor.copy_
                if of_features is not None:
                    of_features[tokens] += (chances @ rows) * share
                if of_weight is not None:
                    add(of_weight[words], chances.t() @ (features[tokens] * share).to(kind))
                if of_bias is not None:
                    add(of_bias[words], (chances.t() @ share.to(kind))[:, 0])
            ctx.kept.clear()
            of_label = pull * ((right - normaliser).exp() - 1 + ctx.label_smoothing)
            _add_labels((of_features, of_weight, of_bias), features, labels, weight, of_label)
            if ctx.label_smoothing:
                _smooth((of_features, of_weight, of_bias), features, weight, pull * ctx.label_smoothing / len(weight))
        of_features = None if of_features is None else of_features.to(features.dtype)
        return of_features, None, of_weight, of_bias, None, None


class FrozenTotal(torch.autograd.Function):
    """The same of a layer that does not learn."""

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
        """As :func:`projected_total`."""
        kind = _kind(features)
        normaliser, right = _at_first(features)
        read, of_features = features.to(kind), torch.zeros_like(features, dtype=torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            for words, tokens in _pieces(len(weight), len(labels)):
                rows = weight[words].to(kind)
                chances, own = _piece(read, labels, rows, bias, words, tokens, right)
                whole = torch.logaddexp(normaliser[tokens], own)
                pull = _without_labels(chances, *_places(labels[tokens], words)).to(kind) @ rows
                of_features[tokens] *= (normaliser[tokens] - whole).exp()
                of_features[tokens] += pull * (own - whole).exp()
                normaliser[tokens] = whole
            gradients = (of_features, None, None)
            _add_labels(gradients, features, labels, weight, (right - normaliser).exp() - 1 + label_smoothing)
            if label_smoothing:
                _smooth(gradients, features, weight, torch.full_like(normaliser, label_smoothing / len(weight)))
        losses = (normaliser - right)[:, 0]
        if scales is not None:
            losses, of_features = losses * scales, of_features * scales[:, None]
        ctx.save_for_backward(of_features)
        ctx.dtype = features.dtype
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the features."""
        (of_features,) = ctx.saved_tensors
        return (of_features * upstream).to(ctx.dtype), None, None, None, None, None


@torch.no_grad()
def likelihoods(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log p of each label in nats, float32 [tokens], and whether it is the best guess, bool [tokens].

    Without gradients, otherwise as in :class:`ProjectedTotal`. Words are the rows of the products here: torch
    multiplies many rows by few columns up to twice as fast as the other way round.

    Raises:
        IndexError: a label that the layer has no word for.
    """
    device, kind, count = features.device.type, _kind(features), len(labels)
    # Further columns of nothing: libraries prepare code for each number of them, and batches have many.
    missing = -count % ROWS
    labels, features = functional.pad(labels, (0, missing)), functional.pad(features, (0, 0, 0, missing))
    right, total = torch.zeros(2, len(labels), device=features.device)
    best, first = torch.full_like(right, torch.finfo(right.dtype).min), torch.zeros_like(labels, dtype=torch.bool)
    words = max(1, AT_ONCE.get(device, MANY) // max(1, len(labels)))
    words = 1 << (words.bit_length() - 1)  # of these numbers, too, there are few
    with torch.autocast(device, enabled=False):
        read = features.to(kind)
        for part, tokens in _labelled(labels, len(weight), words):
            logits = functional.linear(weight[part].to(kind), read)
            logits = (logits if bias is None else logits.add_(bias[part, None].to(kind))).float()
            if len(tokens):
                own, places = logits[:, tokens], labels[tokens] - part.start
                right[tokens] = own.gather(0, places[None])[0]
                # Of words that are as likely the first is the guess.
                first[tokens] = (own.argmax(0) == places) & (right[tokens] > best[tokens])
            most = torch.maximum(best, logits.amax(0))
            # The sum of all that was seen so far, each as a share of the largest.
            total = total * (best - most).exp() + logits.sub_(most).exp_().sum(0)
            best = most
    return (right - best - total.log())[:count], (first & (right == best))[:count]


def _labelled(labels: Tensor, vocabulary: int, words: int) -> Iterator[tuple[slice, Tensor]]:
    """Pieces of the vocabulary, and the tokens, int64, whose labels are among their words.

    Only of these tokens it has to be known which word is the best: torch is slow to say where a maximum is.

    Raises:
        IndexError: a label beyond the vocabulary.
    """
    order = labels.argsort()
    ranked, firsts = labels[order], range(0, vocabulary, words)
    ends = torch.searchsorted(ranked, torch.tensor([*firsts, vocabulary], device=labels.device)).tolist()
    if ends[-1] < len(labels):
        raise IndexError(f"a label is {int(ranked[-1])}, and the layer has {vocabulary} words")
    for first, start, end in zip(firsts, ends, ends[1:], strict=False):
        yield slice(first, first + words), order[start:end]


def plain_likelihoods(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same of logits [tokens, vocabulary] that are there already."""
    told = logits.float().log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    return told, logits.argmax(-1) == labels


def _kind(features: Tensor) -> torch.dtype:
    """What products are computed in."""
    device = features.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else features.dtype


def _at_first(features: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the sum over the vocabulary, and the logits of the labels, [tokens, 1], before any is known."""
    normaliser = torch.full((len(features), 1), -torch.inf, device=features.device)
    return normaliser, torch.zeros_like(normaliser)


def _piece(
    features: Tensor, labels: Tensor, rows: Tensor, bias: Tensor | None, words: slice, tokens: slice, right: Tensor
) -> tuple[Tensor, Tensor]:
    """Probabilities among some words, and the logarithm of their sum before they were such.

    Args:
        rows: of the weight, those of these words.
        right: the logits of labels among the words are written into it.
    """
    logits = _logits(features[tokens], rows, bias, words)
    places, inside = _places(labels[tokens], words)
    right[tokens] += torch.where(inside, logits.gather(1, places), 0.0)
    chances = logits.softmax(1)
    # What softmax has subtracted; by itself it would cost as much once more.
    return chances, logits.amax(1, keepdim=True) - chances.amax(1, keepdim=True).log()


def _again(
    features: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    words: slice,
    normaliser: Tensor,
    kind: torch.dtype,
) -> Piece:
    """A piece that was not kept, of the whole vocabulary's probabilities."""
    rows = weight[words].to(kind)
    chances = _logits(features, rows, bias, words).sub_(normaliser).exp_()
    return _without_labels(chances, *_places(labels, words)).to(kind), normaliser, rows


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Of features, weight and bias, as far as they are wanted."""


def _add_labels(gradients: Gradients, features: Tensor, labels: Tensor, weight: Tensor, slope: Tensor) -> None:
    """Add what comes from the slopes of the loss by the logits of the labels, [tokens, 1]."""
    of_features, of_weight, of_bias = gradients
    if of_features is not None:
        of_features += slope * weight[labels]
    if of_weight is not None:
        of_weight.index_add_(0, labels, (slope * features).to(of_weight.dtype))
    if of_bias is not None:
        of_bias.index_add_(0, labels, slope[:, 0].to(of_bias.dtype))


def _smooth(gradients: Gradients, features: Tensor, weight: Tensor, share: Tensor) -> None:
    """Take off what label smoothing gives to each word of the vocabulary, [tokens, 1]."""
    of_features, of_weight, of_bias = gradients
    if of_features is not None:
        of_features -= share * weight.sum(0)
    if of_weight is not None:
        of_weight -= (share * features).sum(0)
    if of_bias is not None:
        of_bias -= share.sum()


def _pieces(vocabulary: int, count: int) -> Iterator[tuple[slice, slice]]:
    """Parts of the vocabulary, and for each of them parts of the tokens."""
    share = _share.get()
    tokens = max(1, min(count, int(TOKENS * share)))
    words = max(int(PIECE * share) // tokens, WORDS)
    for first in range(0, vocabulary, words):
        for start in range(0, max(count, 1), tokens):
            yield slice(first, min(first + words, vocabulary)), slice(start, start + tokens)


def _logits(features: Tensor, rows: Tensor, bias: Tensor | None, words: slice) -> Tensor:
    """The logits of some tokens for some words of the vocabulary, whose rows of the weight these are, float32."""
    part = None if bias is None else bias[words].to(rows.dtype)
    return functional.linear(features.to(rows.dtype), rows, part).float()


def _places(labels: Tensor, words: slice) -> tuple[Tensor, Tensor]:
    """Where among some words the labels are, and whether they are there at all, both [tokens, 1]."""
    places = labels[:, None] - words.start
    inside = (places >= 0) & (places < words.stop - words.start)
    return places.clamp(0, words.stop - words.start - 1), inside


def _without_labels(chances: Tensor, places: Tensor, inside: Tensor) -> Tensor:
    """The probabilities [tokens, words] with those of the labels zero, in their place."""
    return chances.scatter_(1, places, torch.where(inside, 0.0, chances.gather(1, places)))
