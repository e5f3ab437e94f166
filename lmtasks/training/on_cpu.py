"""What a training on a CPU has that one on a GPU has of itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from lmtasks.training.cpu_memory import kept_memory
from lmtasks.training.dropout import cheap_dropout


@contextlib.contextmanager
def eased(device: torch.device, *, compiled: bool = False) -> Iterator[None]:
    """Memory is kept and dropout draws cheaply while this is open, on a CPU; elsewhere nothing is changed.

    Args:
        compiled: whether torch compiles the model, draws included, in a way of its own.
    """
    with kept_memory(device), contextlib.nullcontext() if compiled else cheap_dropout(device):
        yield
