"""keras: an engine for lmtasks, whose steps Keras' ``fit`` makes on JAX, TensorFlow or torch.

For people who know Keras there are :func:`model`, :func:`dataset`, :func:`save`, :class:`PushToHub` and
:func:`from_keras_hub`. Keras is imported when one of them is first used; ``KERAS_BACKEND`` says on what it computes.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from lmtasks import Engine, hookimpl, option
from lmtasks_keras.backends import backend_for, require_begun_with

if TYPE_CHECKING:
    from lmtasks_keras.data import dataset
    from lmtasks_keras.kerashub import from_keras_hub
    from lmtasks_keras.model_of import model
    from lmtasks_keras.push import PushToHub
    from lmtasks_keras.saving import save

__all__ = ["PushToHub", "dataset", "from_keras_hub", "model", "save"]

_HOMES = {"PushToHub": "push", "dataset": "data", "from_keras_hub": "kerashub", "model": "model_of", "save": "saving"}
"""The module of each public name."""


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


def __getattr__(name: str) -> Any:
    """Import a public name on first use: Keras and its backend take seconds.

    There is no ``__dir__`` to go with it: pluggy looks at every name in it for hooks, and would import them all.

    Raises:
        InputError: Keras, or what its backend needs, is not installed; or Keras has begun with another backend than
            KERAS_BACKEND says now.
    """
    if name not in __all__:
        raise AttributeError(f"module 'lmtasks_keras' has no attribute '{name}'")
    if "keras" not in sys.modules:  # which by itself takes TensorFlow, whether or not that is there
        os.environ["KERAS_BACKEND"] = backend_for(None)
    require_begun_with(os.environ.get("KERAS_BACKEND"))
    return getattr(import_module(f"lmtasks_keras.{_HOMES[name]}"), name)
