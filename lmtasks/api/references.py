"""Heavy things are named by string, ``"module:Class"``, and resolved when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "accelerate",
    "numpy",
    "pandas",
    "pyarrow",
    "huggingface_hub",
    "tokenizers",
    "tensorflow",
    "jax",
)
"""What a plugin must not import at its top: each of these takes longer than all that ``lmtasks list`` does."""


def resolve(reference: str) -> Any:
    """The object that ``"module:name"`` names.

    Raises:
        ImportError: no such module, or nothing of that name in it; the message has the whole reference.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise ImportError(f"'{reference}' does not exist: {error}") from error
