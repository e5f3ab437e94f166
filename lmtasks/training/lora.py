"""LoRA on a CPU, in as few passes over its numbers as it needs.

What peft adds to a frozen layer is little to multiply and much to move: copies between dtypes, dropout, scaling and
sums each read and write all that the layer takes or gives, and keep much of it for the way back. Here a layer with its
adapter is one operation. Frozen weights are cast once, and inputs once for all layers that share them; of dropout only
the mask is kept. The numbers are peft's, and so are the draws.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakIdKeyDictionary

from lmtasks.training.dropout import WHOLE, drawn, is_drawn, passed


@contextlib.contextmanager
def cheap_lora(device: torch.device) -> Iterator[None]:
    """Layers with LoRA of any model are one operation while this is open, where the device is a CPU."""
    peft = sys.modules.get("peft.tuners.lora.layer")
    if device.type != "cpu" or peft is None:
        yield
        return
    plain = peft.Linear.forward
    peft.Linear.forward = _in_place_of(plain, peft.Linear)
    try:
        yield
    finally:
        peft.Linear.forward = plain


def _in_place_of(plain: Callable[..., Tensor], kind: type[nn.Module]) -> Callable[..., Tensor]:
    """The forward pass of peft's layers, which is left to peft where it is another than the usual one."""
    casts = _Casts()

    def forward(layer: Any, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        usual = type(layer) is kind and not arguments and not named and _is_usual(layer, x)
        return _adapted(layer, x, casts) if usual else plain(layer, x, *arguments, **named)

    return forward


def _is_usual(layer: Any, x: Tensor) -> bool:
    """Whether a layer that learns is a frozen one with one plain adapter, and nobody looks into it."""
    if not torch.is_grad_enabled() or layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return False
    [name], base = layer.active_adapters, layer.base_layer
    if name not in layer.lora_A or name in layer.lora_variant or layer.lora_B[name].bias is not None:
        return False
    if type(base) is not nn.Linear and type(base).__name__ != "Conv1D":
        return False
    parts = (base, layer.lora_dropout[name], layer.lora_A[name], layer.lora_B[name])
    return (
        not any(map(_is_watched, parts))
        and not any(one.requires_grad for one in base.parameters())
        and _fits(x, *parts)
    )


def _is_watched(part: nn.Module) -> bool:
    """Whether somebody's code runs with this module, or in its place."""
    hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
    return any(hooks) or "forward" in vars(part)


def _fits(x: Tensor, base: nn.Module, dropout: nn.Module, *adapter: nn.Module) -> bool:
    """Whether numbers are of a kind that is known here, and one kind for all of them is what peft would take."""
    weights = [one for part in (base, *adapter) for one in part.parameters()]
    if x.is_nested or not all(type(one) is nn.Parameter and one.is_floating_point() for one in weights):
        return False
    kind, p = _kind(x), _probability(dropout)
    alike = torch.is_autocast_enabled("cpu") or all(one.dtype == kind for one in weights)
    return alike and kind.itemsize in WHOLE and (not p or is_drawn(p))


def _probability(dropout: nn.Module) -> float:
    """That of a drop; peft has a layer that does nothing where there is none."""
    return dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0


def _kind(x: Tensor) -> torch.dtype:
    """What products are computed in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


class _Casts:
    """What does not change, in the kind of numbers that products are computed in."""

    def __init__(self) -> None:
        self._frozen: Any = WeakIdKeyDictionary()
        self._input: tuple[Tensor, int, Tensor] | None = None

    def frozen(self, weight: Tensor, kind: torch.dtype) -> Tensor:
        """A weight, cast when it is first asked for, or was changed since."""
        if weight.dtype == kind:
            return weight.detach()
        known: tuple[int, Tensor] | None = self._frozen.get(weight)
        if known is None or known[0] != weight._version or known[1].dtype != kind:
            known = self._frozen[weight] = weight._version, weight.detach().to(kind)
        return known[1]

    def input(self, x: Tensor, kind: torch.dtype) -> Tensor:
        """An input as rows; queries, keys and values have the same one."""
        if self._input is not None and self._input[0] is x and self._input[1] == x._version:
            return self._input[2]
        rows = x.detach().reshape(-1, x.shape[-1]).to(kind)
        self._input = (x, x._version, rows)
        return rows


def _adapted(layer: Any, x: Tensor, casts: _Casts) -> Tensor:
    """What a layer and its adapter make of an input."""
    [name], base, kind = layer.active_adapters, layer.base_layer, _kind(x)
    weight, bias = casts.frozen(base.weight, kind), None if base.bias is None else casts.frozen(base.bias, kind)
    mask, larger = None, 1.0
    if p := _probability(layer.lora_dropout[name]):
        mask, larger = drawn(x.shape, p)
        mask = mask.view(-1, x.shape[-1])
    made: Tensor = _Adapted.apply(  # type: ignore[no-untyped-call]
        x,
        casts.input(x, kind),
        weight if type(base) is nn.Linear else weight.t(),
        bias,
        layer.lora_A[name].weight,
        layer.lora_B[name].weight,
        mask,
        layer.scaling[name] * larger,
    )
    return made


class _Adapted(torch.autograd.Function):
    """A frozen linear layer and an adapter of low rank beside it."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        mask: Tensor | None,
        scale: float,
    ) -> Tensor:
        """The output [..., out], of the kind of the rows.

        Args:
            x: [..., in], which the gradient is of.
            rows: the same as [rows, in], in the kind of the products.
            weight, bias: of the frozen layer, [out, in] and [out], in that kind too.
            down, up: of the adapter, [rank, in] and [out, rank].
            mask: where the adapter sees the input, int16 [rows, in] with all bits or none; everywhere when not given.
            scale: what the adapter's part is multiplied by.
        """
        with torch.autocast("cpu", enabled=False):
            made = nn.functional.linear(rows, weight, bias)
            low = (_let_through(rows, mask) @ down.to(rows.dtype).t()).mul_(scale)
            made.addmm_(low, up.to(rows.dtype).t())
        ctx.save_for_backward(rows, weight, down, up, mask, low)
        ctx.shape, ctx.dtype, ctx.scale = x.shape, x.dtype, scale
        return made.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the input and of both weights of the adapter."""
        rows, weight, down, up, mask, low = ctx.saved_tensors
        pull = upstream.reshape(-1, upstream.shape[-1]).to(rows.dtype)
        of_x = None
        with torch.autocast("cpu", enabled=False):
            of_low = (pull @ up.to(rows.dtype)).mul_(ctx.scale)
            of_up = (pull.t() @ low).to(up.dtype)
            of_down = (of_low.t() @ _let_through(rows, mask)).to(down.dtype)
            if ctx.needs_input_grad[0]:
                of_x = _let_through(of_low @ down.to(rows.dtype), mask).addmm_(pull, weight)
                of_x = of_x.to(ctx.dtype).view(ctx.shape)
        return of_x, None, None, None, of_down, of_up, None, None


def _let_through(rows: Tensor, mask: Tensor | None) -> Tensor:
    return rows if mask is None else passed(rows, mask)
