"""Dropout on a CPU, with draws that cost little, and attention, with dropout or in bfloat16.

torch draws for each number on its own, on one core, which was a tenth of a step. For attention with dropout it has no
kernel there, only a sum of parts, most of them slower than the products, and the kernel that it has for training in
bfloat16 takes twice as long as the products of short rows. Here four numbers share one draw of 64 bits of a generator
that is twice as fast (SFC64), whose seed torch's own draws: so a seed, or the state in a checkpoint, says the bits as
before. Models ask for dropout by the functions of torch, which are others while a training lasts; evaluation draws
nothing and is as it is.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lmtasks.models.replaced import replaced

DRAWS = 1 << 16
"""Values of a draw: a probability is that of the next of so many parts, and what is kept is scaled by just that."""

WHOLE = {2: torch.int16, 4: torch.int32}
"""Integers as wide as the numbers that are dropped, in bytes."""

SHORT = 256
"""Keys up to which attention without dropout is products, too: it keeps weights for each query and key until then."""

plain_dropout, plain_attention = functional.dropout, functional.scaled_dot_product_attention


@contextlib.contextmanager
def cheap_dropout(device: torch.device) -> Iterator[None]:
    """Dropout and attention of any model draw cheaply while this is open, where the device is a CPU."""
    if device.type != "cpu":
        yield
        return
    with replaced((functional, "dropout", dropout), (functional, "scaled_dot_product_attention", attention)):
        yield


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """The input with some of its numbers zero and the others scaled up, as torch's function of this name."""
    if not training or inplace or not _cheap(input, p):
        return plain_dropout(input, p, training, inplace)
    return _through(input, *drawn(input.shape, p))


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention as torch's ``scaled_dot_product_attention``, which does what is no slower there."""
    draws = _cheap(query, dropout_p)
    if not draws and (dropout_p or not _short(query, key)):
        return plain_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    if enable_gqa:
        key, value = (one.repeat_interleave(query.shape[-3] // one.shape[-3], -3) for one in (key, value))
    unseen, bias = _bias(query, key, attn_mask, is_causal)
    scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores.add_(bias)
    weights = scores.softmax(-1)
    if draws:
        mask, larger = drawn(scores.shape, dropout_p)
        # The values are fewer numbers than the weights, to scale.
        weights, value = _through(weights, mask, 1.0), value * larger
    seen = weights @ value
    return seen if unseen is None else seen.masked_fill(unseen, 0)


def _bias(query: Tensor, key: Tensor, mask: Tensor | None, causal: bool) -> tuple[Tensor | None, Tensor | None]:
    """Queries that see nothing, if there are any, and what is added to the scores."""
    if causal:
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    if mask is None:
        return None, None
    if mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=query.dtype).masked_fill(~mask, -math.inf)
    mask = mask.to(query.dtype)
    unseen = mask.detach().amax(-1, keepdim=True) == -math.inf
    # Softmax has no answer for them: they look everywhere, and what they find is left out.
    return (unseen, mask.masked_fill(unseen, 0)) if unseen.any() else (None, mask)


def _cheap(input: Tensor, p: float) -> bool:
    """Whether there is something to draw for numbers of a kind that is known here."""
    fits = input.device.type == "cpu" and input.is_floating_point() and input.itemsize in WHOLE
    return fits and not input.is_nested and is_drawn(p)


def is_drawn(p: float) -> bool:
    """Whether a probability is one that draws here can have, and not that of never or always."""
    return 0 < round(p * DRAWS) < DRAWS


def _short(query: Tensor, key: Tensor) -> bool:
    """Whether these are rows of a training in bfloat16 for which the products are the faster way."""
    on_cpu, learns = query.device.type == "cpu" and not query.is_nested, torch.is_grad_enabled() and query.requires_grad
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    return on_cpu and learns and kind == torch.bfloat16 and key.shape[-2] <= SHORT


def fresh_seed() -> int:
    """A seed for :func:`drawn`, the next that torch's generator says."""
    return int(torch.randint(2**63 - 1, ()))


def drawn(shape: torch.Size, p: float, seed: int | None = None) -> tuple[Tensor, float]:
    """Where numbers stay, int16 with all bits or none, and what those are multiplied by.

    Args:
        p: probability that a number is dropped.
        seed: of the draws, by which they can be repeated; a fresh one when not given.
    """
    dropped, count = round(p * DRAWS), shape.numel()
    draws = np.random.SFC64(fresh_seed() if seed is None else seed).random_raw(-(-count // 4))
    mask = torch.from_numpy(draws.view(np.int16))[:count].view(shape)
    return mask.ge_(dropped - DRAWS // 2).neg_(), DRAWS / (DRAWS - dropped)


def passed(numbers: Tensor, mask: Tensor) -> Tensor:
    """The numbers that a mask lets through, and zeros; without gradients."""
    whole, left = WHOLE[numbers.itemsize], torch.empty_like(numbers)
    torch.bitwise_and(numbers.view(whole), mask.to(whole), out=left.view(whole))
    return left


def _through(numbers: Tensor, mask: Tensor, scale: float) -> Tensor:
    """The numbers that a mask lets through, scaled."""
    left: Tensor = _Through.apply(numbers, mask, scale)  # type: ignore[no-untyped-call]
    return left


class _Through(torch.autograd.Function):
    """The same, and on the way back their gradients."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        left = passed(numbers, mask)
        return left if scale == 1 else left.mul_(scale)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        return _through(upstream, ctx.saved_tensors[0], ctx.scale), None, None
