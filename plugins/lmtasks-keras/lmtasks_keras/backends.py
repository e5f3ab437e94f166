"""What Keras computes with, and what has to be installed for it."""

from __future__ import annotations

import os
from importlib.util import find_spec

from lmtasks import InputError
from lmtasks.errors import nearest

NEEDS = {
    "jax": ("keras", "jax", "torchax"),
    "tensorflow": ("keras", "jax", "torchax", "tensorflow"),
    "torch": ("keras",),
}
"""Packages of each backend, beside torch, which lmtasks has; the first that is installed is the default."""


def backend_for(asked: str | None) -> str:
    """The backend that was asked for; otherwise that of KERAS_BACKEND, or the first that is installed.

    Raises:
        InputError: there is no such backend, or something that it needs is not installed.
    """
    said = asked or os.environ.get("KERAS_BACKEND")
    name = said or next((name for name in NEEDS if not missing(name)), "jax")
    if name not in NEEDS:
        raise InputError(f"KERAS_BACKEND is '{name}'{nearest(name, NEEDS)}", f"one of {', '.join(NEEDS)}")
    if lacking := missing(name):
        raise InputError(
            f"Keras on {name} needs {' and '.join(lacking)}, which cannot be imported here",
            f"pip install 'lmtasks-keras[{name}]'",
        )
    return name


def require_begun_with(said: str | None) -> None:
    """Refuse to go on where Keras computes with something else than was said after it was imported.

    Raises:
        InputError: so it is.
    """
    import keras

    begun = keras.config.backend()
    if said not in (None, begun):
        raise InputError(
            f"Keras computes with {begun} already, and KERAS_BACKEND is '{said}'",
            "start anew, and set KERAS_BACKEND before anything imports Keras",
        )


def missing(backend: str) -> list[str]:
    """The packages of a backend that are not installed."""
    return [package for package in NEEDS[backend] if find_spec(package) is None]
