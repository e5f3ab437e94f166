"""LoRA on a CPU, in as few passes over its numbers as it needs.

What peft adds to a frozen layer is little to multiply and much to move: copies between dtypes, dropout, scaling and
sums each read and write all that the layer takes or gives, and keep much of it for the way back. Here a layer with its
adapter is one operation, which keeps its input, cast once for all layers that share it, and little else: frozen weights
are cast where they are used, on the way back again, and a mask of dropout is drawn once more from its seed. Both take
less time than a layer takes, and memory is what adapters are for. The numbers are peft's, and so are the draws.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lmtasks.models.replaced import replaced
from lmtasks.training.dropout import WHOLE, drawn, fresh_seed, is_drawn, passed


@contextlib.contextmanager
def cheap_lora(device: torch.device) -> Iterator[None]:
    """Layers with LoRA of any model are one operation while this is open, where the device is a CPU."""
    peft = sys.modules.get("peft.tuners.lora.layer")
    if device.type != "cpu" or peft is None:
        yield
        return
    with replaced((peft.Linear, "forward", _in_place_of(peft.Linear.forward, peft.Linear))):
        yield


def _in_place_of(plain: Callable[..., Tensor], kind: type[nn.Module]) -> Callable[..., Tensor]:
    """The forward pass of peft's layers, which is left to peft where it is another than the usual one."""
    rows = _Rows()

    def forward(layer: Any, x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        usual = type(layer) is kind and not arguments and not named and _is_usual(layer, x)
        return _adapted(layer, x, rows) if usual else plain(layer, x, *arguments, **named)

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


class _Rows:
    """Inputs in the kind of numbers that products are computed in; queries, keys and values have the same one."""

    def __init__(self) -> None:
        self._known: tuple[Tensor, int, Tensor] | None = None

    def of(self, x: Tensor, kind: torch.dtype) -> Tensor:
        """An input as rows."""
        if self._known is not None and self._known[0] is x and self._known[1] == x._version:
            return self._known[2]
        rows = x.detach().reshape(-1, x.shape[-1]).to(kind)
        self._known = (x, x._version, rows)
        return rows


def _adapted(layer: Any, x: Tensor, rows: _Rows) -> Tensor:
    """What a layer and its adapter make of an input."""
    [name], base = layer.active_adapters, layer.base_layer
    made: Tensor = _Adapted.apply(  # type: ignore[no-untyped-call]
        x,
        rows.of(x, _kind(x)),
        base.weight if type(base) is nn.Linear else base.weight.t(),
        base.bias,
        layer.lora_A[name].weight,
        layer.lora_B[name].weight,
        _probability(layer.lora_dropout[name]),
        layer.scaling[name],
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
        p: float,
        scale: float,
    ) -> Tensor:
        """The output [..., out], of the kind of the rows.

        Args:
            x: [..., in], which the gradient is of.
            rows: the same as [rows, in], in the kind of the products.
            weight, bias: of the frozen layer, [out, in] and [out].
            down, up: of the adapter, [rank, in] and [out, rank].
            p: probability with which a number of the input is dropped on its way to the adapter.
            scale: what the adapter's part is multiplied by.
        """
        kind, seen = rows.dtype, rows
        ctx.p, ctx.seed = p, fresh_seed() if p else None
        if p:
            mask, larger = drawn(rows.shape, p, ctx.seed)
            seen, scale = passed(rows, mask), scale * larger
        with torch.autocast("cpu", enabled=False):
            made = nn.functional.linear(rows, weight.to(kind), None if bias is None else bias.to(kind))
            low = (seen @ down.to(kind).t()).mul_(scale)
            made.addmm_(low, up.to(kind).t())
        ctx.save_for_backward(rows, weight, down, up, low)
        ctx.shape, ctx.dtype, ctx.scale = x.shape, x.dtype, scale
        return made.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the input and of both weights of the adapter."""
        rows, weight, down, up, low = ctx.saved_tensors
        pull, kind = upstream.reshape(-1, upstream.shape[-1]).to(rows.dtype), rows.dtype
        mask = drawn(rows.shape, ctx.p, ctx.seed)[0] if ctx.p else None
        of_x = None
        with torch.autocast("cpu", enabled=False):
            of_low = (pull @ up.to(kind)).mul_(ctx.scale)
            of_up = (pull.t() @ low).to(up.dtype)
            of_down = (of_low.t() @ _let_through(rows, mask)).to(down.dtype)
            if ctx.needs_input_grad[0]:
                of_x = _let_through(of_low @ down.to(kind), mask).addmm_(pull, weight.to(kind))
                of_x = of_x.to(ctx.dtype).view(ctx.shape)
        return of_x, None, None, None, of_down, of_up, None, None


def _let_through(rows: Tensor, mask: Tensor | None) -> Tensor:
    return rows if mask is None else passed(rows, mask)
