"""References: heavy things are named by string, ``"module:name"``, and resolved when they are needed."""

from __future__ import annotations

import importlib
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Reference = Any
"""A function as ``"module:function"``. Typed so, because what is read is always a function; see :func:`defer`."""

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
"""Packages that a plugin must not import at its top: each takes longer than all that ``lmtasks list`` does."""


@dataclass(frozen=True)
class Deferred:
    """A function named by string, imported when it is first called; ImportError then, where there is none."""

    reference: str

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The function's result."""
        return resolve(self.reference)(*arguments, **named)


def source_of(function: Any) -> str:
    """The source of the module that a function of a plugin is in; empty where there is none to be read.

    Whoever writes a plugin raises no version with every change of it, so what was made by it is kept under this, too.
    """
    import inspect  # only what is kept on disk asks

    function = inspect.unwrap(function)
    module = getattr(function, "reference", "").partition(":")[0] or getattr(function, "__module__", "")
    with suppress(ImportError, OSError, TypeError):
        return inspect.getsource(importlib.import_module(module))
    return ""


def defer(declaration: Any, title: str, *fields: str) -> None:
    """Put functions in place of the strings that name them in a frozen declaration.

    Raises:
        ValueError: a string of the wrong shape.
    """
    for name in fields:
        object.__setattr__(declaration, name, deferred(title, getattr(declaration, name)))


def deferred(title: str, function: Any) -> Any:
    """A function in place of the string that names it; anything else as it is.

    Raises:
        ValueError: a string of the wrong shape.
    """
    if not isinstance(function, str):
        return function
    require_reference(title, function, "module:function")
    return Deferred(function)


def require_reference(title: str, reference: str, shape: str = "module:Class") -> None:
    """Refuse a string that names nothing.

    Raises:
        ValueError: it does not look like a module and a name in it.
    """
    if not re.fullmatch(r"[\w.]+:\w+", reference):
        raise ValueError(f"{title}: {reference!r} must look like '{shape}'")


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
