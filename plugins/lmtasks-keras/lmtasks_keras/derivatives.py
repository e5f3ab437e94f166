"""Derivatives that a model defines itself: an ``autograd.Function`` as JAX's ``custom_vjp``.

A tracer sees the way forward, and derives that. Where a function says how it is derived, the gradient would be another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class _Context:
    """What a function keeps for its way back, as torch's own context does."""

    def __init__(self, inputs: int) -> None:
        self.needs_input_grad = (True,) * inputs
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep tensors."""
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Nothing: nobody asks for their gradients."""

    def set_materialize_grads(self, value: bool) -> None:
        """Nothing: JAX always gives zeros."""


@contextmanager
def own_derivatives(environment: Any) -> Iterator[None]:
    """While this is open, functions with derivatives of their own keep them, applied to tensors of JAX."""
    plain = vars(torch.autograd.Function)["apply"]

    def apply(cls: type, *arguments: Any, **named: Any) -> Any:
        if named or not any(_is_traced(one) for one in arguments):
            return plain.__func__(cls, *arguments, **named)
        return _applied(environment, cls, arguments)

    torch.autograd.Function.apply = classmethod(apply)
    try:
        yield
    finally:
        torch.autograd.Function.apply = plain


def _is_traced(value: Any) -> bool:
    from torchax.tensor import Tensor
    from torchax.view import View

    return isinstance(value, Tensor | View)


def _applied(environment: Any, function: Any, arguments: tuple[Any, ...]) -> Any:
    import jax

    places = [place for place, one in enumerate(arguments) if _is_traced(one)]
    arrays = environment.t2j_iso([arguments[place] for place in places])
    # What is no tensor does not go through JAX: the way forward leaves it here for the way back.
    left: dict[str, Any] = {}

    def forward(arrays: list[Any]) -> tuple[Any, list[Any]]:
        given = list(arguments)
        for place, tensor in zip(places, environment.j2t_iso(arrays), strict=True):
            given[place] = tensor
        context = _Context(len(given))
        output = _forward(function, context, given)
        left["leaves"], left["structure"] = jax.tree.flatten(vars(context), is_leaf=_is_traced)
        left["traced"] = [number for number, leaf in enumerate(left["leaves"]) if _is_traced(leaf)]
        kept = [left["leaves"][number] for number in left["traced"]]
        return environment.t2j_iso(output), environment.t2j_iso(kept)

    def backward(kept: list[Any], upstream: Any) -> tuple[list[Any]]:
        leaves = list(left["leaves"])
        for number, tensor in zip(left["traced"], environment.j2t_iso(kept), strict=True):
            leaves[number] = tensor
        context = _Context(0)
        vars(context).update(jax.tree.unflatten(left["structure"], leaves))
        ups = environment.j2t_iso(upstream)
        with environment:
            found = function.backward(context, *(ups if isinstance(ups, tuple | list) else (ups,)))
        found = found if isinstance(found, tuple) else (found,)
        return ([_gradient(environment, found[place], array) for place, array in zip(places, arrays, strict=True)],)

    applied = jax.custom_vjp(lambda arrays: forward(arrays)[0])
    applied.defvjp(forward, backward)
    return environment.j2t_iso(applied(arrays))


def _forward(function: Any, context: _Context, given: list[Any]) -> Any:
    if function.setup_context is torch.autograd.Function.setup_context:
        return function.forward(context, *given)
    output = function.forward(*given)
    function.setup_context(context, tuple(given), output)
    return output


def _gradient(environment: Any, found: Any, array: Any) -> Any:
    """The gradient for an array: zeros where the function has none, and JAX's own kind of them for whole numbers."""
    import jax
    import numpy as np

    if not jax.numpy.issubdtype(array.dtype, jax.numpy.floating):
        return np.zeros(array.shape, dtype=jax.dtypes.float0)
    return (
        jax.numpy.zeros(array.shape, array.dtype) if found is None else environment.t2j_iso(found).astype(array.dtype)
    )
