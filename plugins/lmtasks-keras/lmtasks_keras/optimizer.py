"""Optimisers of Keras that do what torch's do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
from keras import ops

from lmtasks import InputError
from lmtasks.errors import nearest
from lmtasks_keras.own_parts import factory_named, made_by

FLAG = "--keras.optimizer"


class AdamW(keras.optimizers.AdamW):
    """AdamW as torch has it (Loshchilov & Hutter 2019, algorithm 2).

    Keras adds epsilon before the second moment is corrected, so that in the first steps it counts for more: the losses
    of a run came out different in the fifth digit. Keras clips by the norm alone; torch adds a millionth to it.
    """

    def build(self, variables: Any) -> None:
        """Make the variables of the optimiser."""
        if not self.built:
            self.norm = self.add_variable(shape=(), initializer="zeros", dtype="float32", name="gradient_norm")
        super().build(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's part of a step."""
        rate, gradient = (ops.cast(one, variable.dtype) for one in (learning_rate, gradient))
        step = ops.cast(self.iterations + 1, variable.dtype)
        first, second = (1 - ops.power(ops.cast(beta, variable.dtype), step) for beta in (self.beta_1, self.beta_2))
        place = self._get_variable_index(variable)
        mean, square = self._momentums[place], self._velocities[place]
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign_add(square, (ops.square(gradient) - square) * (1 - self.beta_2))
        size = ops.sqrt(square) / ops.sqrt(second) + self.epsilon
        self.assign_sub(variable, rate / first * mean / size)

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        """The gradients, together no longer than ``global_clipnorm``; how long they were is kept."""
        norm = ops.sqrt(sum(ops.sum(ops.square(one)) for one in grads if one is not None))
        self.norm.assign(norm)
        if not self.global_clipnorm:
            return grads
        share = ops.minimum(self.global_clipnorm / (norm + 1e-6), 1.0)
        return [None if one is None else one * share for one in grads]


def optimizer(name: str | None, undecayed: Iterable[Any], **settings: Any) -> Any:
    """An optimiser of Keras.

    Args:
        name: of one that Keras has, or ``module:factory`` that makes one of the settings it asks for; None: AdamW.
        undecayed: variables that weight decay leaves alone.
        settings: ``learning_rate``, ``weight_decay``, ``global_clipnorm``, ``gradient_accumulation_steps`` and those of
            Adam, of which each optimiser gets what it knows.

    Raises:
        InputError: Keras has no such optimiser, the factory fails or is none, or what it makes is set otherwise.
    """
    factory = AdamW if name is None else factory_named(FLAG, name) if ":" in name else _known(name)
    asked = _asked(factory, settings)
    made = made_by(FLAG, name or "", factory, keras.optimizers.Optimizer, asked)
    if name is not None and ":" in name:
        _complete(made, f"{FLAG} {name}", asked, settings)
    excluded = list(undecayed)
    if excluded:
        made.exclude_from_weight_decay(var_list=excluded)
    return made


OF_THE_RUN = {
    "weight_decay": "--weight_decay",
    "global_clipnorm": "--max_grad_norm",
    "gradient_accumulation_steps": "--gradient_accumulation_steps",
}
"""What an optimiser must have as the run has it, with the argument that says so."""


def _complete(made: Any, what: str, asked: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Set what a factory has left open, and refuse what it has set otherwise: the log and the record tell the run's."""
    if "learning_rate" not in asked:
        raise InputError(f"{what} takes no learning_rate, which is the run's", "let it take learning_rate")
    if made.use_ema:
        hint = "without use_ema; model.fit of lmtasks_keras takes it"
        raise InputError(f"{what} averages weights, of which evaluations and checkpoints would not know", hint)
    if isinstance(made, keras.optimizers.LossScaleOptimizer):
        raise InputError(f"{what} scales losses, and training is in float32", "let it return the optimizer within")
    for name, flag in OF_THE_RUN.items():
        own, wanted = getattr(made, name), settings.get(name)
        if own is None:
            setattr(made, name, wanted)
        elif name not in asked and own != wanted:
            raise InputError(f"{what} has {name}={own}, and the run {wanted}", f"{flag} {own}, or let it take {name}")


def _known(name: str) -> Callable[..., Any]:
    """The class of an optimiser that Keras has."""
    classes = {
        kind.lower(): found
        for kind, found in vars(keras.optimizers).items()
        if isinstance(found, type) and issubclass(found, keras.optimizers.Optimizer) and kind != "Optimizer"
    }
    # What wraps another optimiser is made of one.
    classes.pop("lossscaleoptimizer", None)
    if name.lower() not in classes:
        raise InputError(
            f"Keras has no optimizer '{name}'{nearest(name.lower(), classes)}", f"one of {', '.join(sorted(classes))}"
        )
    return classes[name.lower()]


def _asked(factory: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that a factory takes."""
    parameters = inspect.signature(factory).parameters.values()
    names = {one.name for one in parameters}
    every = any(one.kind is one.VAR_KEYWORD for one in parameters) and not isinstance(factory, type)
    return settings if every else {name: value for name, value in settings.items() if name in names}
