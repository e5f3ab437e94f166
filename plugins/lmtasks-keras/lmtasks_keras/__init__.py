"""keras: an engine for lmtasks, whose steps Keras' ``fit`` makes on JAX, TensorFlow or torch.

For people who know Keras there are :func:`model`, :func:`dataset`, :func:`save`, :class:`PushToHub` and
:func:`from_keras_hub`. Keras is imported when one of them is first used; ``KERAS_BACKEND`` says on what it computes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmtasks_keras.data import dataset
    from lmtasks_keras.kerashub import from_keras_hub
    from lmtasks_keras.model_of import model
    from lmtasks_keras.push import PushToHub
    from lmtasks_keras.saving import save

__all__ = ["PushToHub", "dataset", "from_keras_hub", "model", "save"]

_HOMES = {
    "PushToHub": "push", "dataset": "data", "from_keras_hub": "kerashub", "model": "model_of", "save": "saving"
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name on first use: Keras and its backend take seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'lmtasks_keras' has no attribute '{name}'")
    return getattr(import_module(f"lmtasks_keras.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return __all__
