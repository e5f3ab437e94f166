"""What torchax 0.0.13 lacks, and models need."""

from __future__ import annotations

from typing import Any

import torch


def complete(environment: Any) -> None:
    """Teach torchax's environment the operators that it does not know, or not as torch calls them."""
    from torchax.ops.ops_registry import Operator
    from torchax.tensor import Tensor
    from torchax.view import View

    for operator, function in (
        (torch.ops.aten._grouped_mm, _grouped_mm),
        (torch.ops.aten.detach, _detach),
        (torch.nn.functional.linear, _linear),
    ):
        environment._ops[operator] = Operator(
            operator, function, is_jax_function=True, is_user_defined=True, needs_env=False, is_view_op=False
        )
    # A view is read like any other tensor; torchax asks only tensors that own what they show.
    View._elem = property(View.jax)
    # torchax changes the tensor itself, which others still use.
    Tensor.type_as = View.type_as = lambda self, other: self.to(other.dtype)
    _without_gradients_where_torch_has_none(environment)


def _without_gradients_where_torch_has_none(environment: Any) -> None:
    """Let no gradient through what is computed under ``torch.no_grad``, of which JAX knows nothing."""
    import jax
    from torchax.tensor import Tensor

    dispatch = environment.dispatch

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor) and jax.numpy.issubdtype(value._elem.dtype, jax.numpy.inexact):
            value._elem = jax.lax.stop_gradient(value._elem)
        return value

    def dispatched(*arguments: Any) -> Any:
        found = dispatch(*arguments)
        return found if torch.is_grad_enabled() else torch.utils._pytree.tree_map(cut, found)

    environment.dispatch = dispatched


def _grouped_mm(rows: Any, weights: Any, offs: Any, bias: Any = None, out_dtype: Any = None) -> Any:
    """Rows [rows, in] times the weights [experts, in, out] of their expert; those of each end at ``offs`` [experts]."""
    import jax

    sizes = jax.numpy.diff(offs, prepend=0)
    product = jax.lax.ragged_dot(rows, weights, sizes.astype("int32"))
    return product if bias is None else product + bias


def _detach(tensor: Any) -> Any:
    """A tensor through which no gradient goes; torchax lets it through."""
    import jax

    return jax.lax.stop_gradient(tensor)


def _linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """A linear layer; torchax's own knows its arguments by other names than torch."""
    import jax

    product = jax.numpy.einsum("...a,ba->...b", input, weight)
    return product if bias is None else product + bias
