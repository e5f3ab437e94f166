"""keras: an engine for lmtasks, whose steps Keras' ``fit`` makes on JAX, TensorFlow or torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmtasks import Engine, hookimpl, option


@dataclass(frozen=True, kw_only=True)
class KerasOptions:
    """How Keras trains."""

    backend: Literal["jax", "tensorflow", "torch"] | None = option(
        None,
        help="what Keras computes with; KERAS_BACKEND when not given, or what is installed",
        aliases=("keras_backend",),
    )
    optimizer: str | None = option(
        None,
        help="optimizer of Keras by name, or module:factory; AdamW as torch has it when not given",
        aliases=("keras_optimizer",),
    )
    callback: list[str] | None = option(None, help="callbacks of Keras, as module:factory", aliases=("keras_callback",))


KERAS = Engine(
    name="keras",
    summary="Keras' fit, on JAX, TensorFlow or torch.",
    options=KerasOptions,
    check="lmtasks_keras.engine:check",
    train="lmtasks_keras.engine:train",
    arguments=("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "label_smoothing_factor"),
    resumes=True,
)


@hookimpl
def lmtasks_engines() -> list[Engine]:
    """The engine of this package."""
    return [KERAS]
