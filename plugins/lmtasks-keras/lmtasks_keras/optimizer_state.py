"""The state of an optimiser in a checkpoint, in Keras' own format. Light at the top: the run looks at it, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lmtasks import InputError

FILE = "optimizer.weights.h5"
"""File of a checkpoint with the variables of the optimiser, as Keras writes them."""

ABOUT = "keras.json"
"""File of a checkpoint that says which backend and which optimiser they are of."""


def save(optimizer: Any, folder: Path) -> None:
    """Write the state into the folder of a checkpoint."""
    import h5py
    import keras

    with h5py.File(folder / FILE, "w") as file:
        optimizer.save_own_variables(file)
    about = {"backend": keras.backend.backend(), "optimizer": type(optimizer).__name__}
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def load(optimizer: Any, folder: Path) -> None:
    """Set an optimiser, which is built, to the state in the folder of a checkpoint.

    Raises:
        InputError: it is of another optimiser.
    """
    import h5py

    was = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["optimizer"]
    if was != type(optimizer).__name__:
        raise InputError(
            f"the checkpoint is of Keras' optimizer {was}, not of {type(optimizer).__name__}",
            "the same --keras.optimizer as before",
        )
    with h5py.File(folder / FILE, "r") as file:
        optimizer.load_own_variables(file)


def require_backend(folder: Path, backend: str) -> None:
    """Refuse to go on with another backend: it would round otherwise, and the run be neither one nor the other.

    Raises:
        InputError: the checkpoint is of another, or of another engine.
    """
    about = folder / ABOUT
    was = json.loads(about.read_text(encoding="utf-8"))["backend"] if about.exists() else None
    if was != backend:
        raise InputError(
            f"the checkpoint is of Keras on {was}, not on {backend}" if was else "the checkpoint is not of Keras",
            f"--keras.backend {was}" if was else "--engine trainer",
        )
