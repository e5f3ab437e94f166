"""Batches of one shape, because a step is compiled for each shape that comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from lmtasks import InputError
from lmtasks.api import Batch

Shapes = Mapping[str, tuple[int, ...]]
"""Names of what is in a batch, with the one shape that each has."""

Constant = dict[str, np.ndarray[Any, Any]]
"""A batch in arrays: whole numbers int32, as JAX has them, all others float32."""

_FILLERS = {"labels": -100, "document_ids": -1}
"""What stands where a batch was narrower; ``input_ids`` get padding, all others 0."""


def shapes_of(batch: Batch, rows: int) -> Shapes:
    """The shapes of batches with so many examples, by one that has the longest example and, beside it, the shortest.

    Raises:
        InputError: something in the batch is not a row for each example.
    """
    examples = {len(value) for value in batch.values() if torch.is_tensor(value) and value.ndim}
    for name, value in batch.items():
        if not torch.is_tensor(value) or not value.ndim or len(examples) != 1:
            raise InputError(
                f"'{name}' in the batches of this recipe is not a row for each example", "train without --engine keras"
            )
    return {name: (rows, *value.shape[1:]) for name, value in batch.items()}


def constant(batch: Batch, shapes: Shapes, padding: int, keep: int | None = None) -> Constant:
    """A batch in these shapes: filled up on the right, and with examples that have no target.

    Args:
        padding: token id for ``input_ids`` where the batch was narrower.
        keep: the number of its examples that are there to be learned; all when not given.

    Raises:
        InputError: it has something else in it, or is larger.
    """
    filled = {}
    for name, shape in shapes.items():
        found = batch.get(name)
        if found is None and name == "attention_mask":  # a batch without padding has none
            found = torch.ones_like(batch["input_ids"])
        if found is None or any(size > most for size, most in zip(found.shape, shape, strict=True)):
            raise InputError(f"'{name}' in a batch is not what it was in others", "train without --engine keras")
        filled[name] = _filled(name, found.numpy(), shape, padding, len(found) if keep is None else keep)
    if strangers := batch.keys() - shapes.keys():
        raise InputError(f"'{min(strangers)}' is in some batches only", "train without --engine keras")
    return filled


def _filled(name: str, values: np.ndarray[Any, Any], shape: tuple[int, ...], padding: int, keep: int) -> Any:
    filler = padding if name == "input_ids" else _FILLERS.get(name, 0)
    wider = [(0, 0), *((0, most - size) for size, most in zip(values.shape[1:], shape[1:], strict=True))]
    values = np.pad(values, wider, constant_values=filler)
    # The first once more, which is an input like any other; only labels make it one to learn from.
    rows = np.concatenate([values[:keep], np.repeat(values[:1], shape[0] - keep, axis=0)])
    if name == "labels":
        rows[keep:] = -100
    return rows.astype(np.float32 if rows.dtype.kind == "f" else np.int32)


def step_batches(batches: tuple[Batch, ...], shapes: Shapes, padding: int, number: int) -> Iterator[Constant]:
    """The batches of one optimiser step, always so many: those that an epoch lacks at its end have no target."""
    yield from (constant(batch, shapes, padding) for batch in batches)
    yield from (constant(batches[0], shapes, padding, keep=0) for _ in range(number - len(batches)))
