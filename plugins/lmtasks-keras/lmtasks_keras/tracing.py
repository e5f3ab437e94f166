"""torchax: a torch module as a function of JAX."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from lmtasks_keras.derivatives import own_derivatives
from lmtasks_keras.lowerings import complete


class _Dropped:
    """An overload of an operator that this version of torch does not have; nobody calls it."""


@contextmanager
def _dropped_overloads() -> Iterator[None]:
    """While this is open, asking torch for an overload that it dropped is no error: torchax's modules list some."""
    packet = torch._ops.OpOverloadPacket
    found = packet.__getattr__

    def find(self: Any, name: str) -> Any:
        try:
            return found(self, name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return _Dropped()

    packet.__getattr__ = find
    try:
        yield
    finally:
        packet.__getattr__ = found


@functools.cache
def environment() -> Any:
    """torchax's environment, in which torch's operators compute with arrays of JAX.

    torchax calls itself torch's accelerator when it is imported. It is none: whoever asks where to put a model is still
    told what torch itself has.

    Raises:
        ImportError: torchax, or JAX, is not installed.
    """
    with _dropped_overloads():
        import torchax
        import torchax.device_module

        made = torchax.default_env()
    torchax.device_module.is_available = lambda: False
    torchax.device_module.device_count = lambda: 0
    complete(made)
    return made


@contextmanager
def _unwarned() -> Iterator[None]:
    """While this is open, transformers does not look for padding in ids, to warn of it: a tracer has none to show."""
    warn = PreTrainedModel.warn_if_padding_and_no_attention_mask
    PreTrainedModel.warn_if_padding_and_no_attention_mask = lambda *_: None
    try:
        yield
    finally:
        PreTrainedModel.warn_if_padding_and_no_attention_mask = warn


def traced(module: torch.nn.Module) -> tuple[dict[str, Any], Callable[..., Any]]:
    """A module as what it learns and a function.

    Returns:
        the parameters that are trained, by name, each once, as arrays of JAX; and the function (parameters, inputs,
        key, training) to what ``module(inputs)`` gives, where ``key`` is JAX's, of which dropout is drawn; None is for
        evaluation, where always the same is drawn.
    """
    import jax

    env = environment()
    # A copy: what JAX shares with torch, torch could change under it.
    arrays = {name: jax.numpy.array(value.detach().numpy()) for name, value in module.named_parameters()}
    trained = {name for name, value in module.named_parameters() if value.requires_grad}
    fixed = {name: array for name, array in arrays.items() if name not in trained}
    fixed |= {name: jax.numpy.array(value.numpy()) for name, value in module.named_buffers()}
    hooks = {name: [*(value._backward_hooks or {}).values()] for name, value in module.named_parameters()}

    def call(parameters: dict[str, Any], inputs: Any, key: Any, training: bool) -> Any:
        module.train(bool(training))
        drawn = env.override_property(prng=jax.random.key(0) if key is None else key)
        # With gradients as far as torch knows: a recipe's loss is told by that from its figures.
        with env, drawn, own_derivatives(env), _unwarned(), torch.enable_grad():
            hooked = {name: _hooked(env, array, hooks[name]) for name, array in parameters.items() if hooks[name]}
            weights, given = env.j2t_iso(({**fixed, **parameters, **hooked}, inputs))
            return env.t2j_iso(torch.func.functional_call(module, weights, (given,)))

    return {name: array for name, array in arrays.items() if name in trained}, call


def _hooked(environment: Any, array: Any, hooks: Sequence[Callable[..., Any]]) -> Any:
    """An array whose gradient goes through hooks of torch, as ``Tensor.register_hook`` takes them."""
    import jax

    def backward(_: None, upstream: Any) -> tuple[Any]:
        gradient = environment.j2t_iso(upstream)
        with environment:
            for hook in hooks:
                changed = hook(gradient)
                gradient = gradient if changed is None else changed
        return (environment.t2j_iso(gradient),)

    same = jax.custom_vjp(lambda given: given)
    same.defvjp(lambda given: (given, None), backward)
    return same(array)
