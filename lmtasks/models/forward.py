"""The two modes of a model, training and evaluation, and how one is left as it was found."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_mode(model: torch.nn.Module, *, training: bool = False) -> Iterator[None]:
    """While this is open the model is in that mode; afterwards in the one that it was in."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def without_cache(model: torch.nn.Module) -> dict[str, bool]:
    """What tells the model not to keep keys and values for a next token, if it would.

    Nobody reads them, and some models change them in place, which gradients cannot take (RWKV).
    """
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
