"""Split expressions such as ``train[:5000]``, and the choice of what is held out for evaluation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import datasets
import numpy as np
import numpy.typing as npt

from lmtasks.data.corpus.row_set import Flags, RowSet
from lmtasks.errors import InputError, nearest

_STRETCHES = 100
"""Stretches that lines are cut into at least, where there are as many."""

_HELD_OUT = 5
"""Stretches that are held out at least, where there are as many: of fewer, a small share would not come out."""


def take(splits: Mapping[str, datasets.Dataset], expression: str, flag: str, source: str) -> datasets.Dataset:
    """The rows that a split expression of ``datasets`` selects.

    Args:
        splits: rows by name of the split.
        expression: such as ``train``, ``train[:5000]``, ``train[10%:20%]+test``.
        flag, source: that gave the expression, and the name of the data; for messages.

    Raises:
        InputError: not such an expression, an unknown split, or no row selected.
    """
    for part in expression.split("+"):
        name = re.split(r"[\[(]", part, maxsplit=1)[0].strip()
        if name not in splits:
            raise InputError(
                f"unknown split '{name}' in {source}: it has {', '.join(splits)}{nearest(name, splits)}",
                f"--{flag} {next(iter(splits), 'NAME')}",
            )
    sizes = {name: len(rows) for name, rows in splits.items()}
    parts = [
        splits[part.splitname].select(range(part.from_, part.to))
        for part in _parse(expression, flag).to_absolute(sizes)
        if part.from_ < part.to
    ]
    if not parts:
        counts = ", ".join(f"{name} has {size} rows" for name, size in sizes.items())
        raise InputError(
            f"--{flag} {expression} selects no rows of {source}: {counts}", f'such as --{flag} "train[:90%]"'
        )
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def held_out(filled: RowSet, *, documents: bool, share: float, seed: int, medium: str = "text") -> RowSet:
    """The rows that are held out for evaluation; the same for the same arguments.

    Documents are held out one by one. Lines are not: a single line torn from its neighbours is no
    text, and its neighbours, which stay in the training part, would give it away. So lines are cut into
    even stretches of consecutive lines, 100 or as many more as a small share needs, and whole stretches are held out.

    Args:
        filled: the rows that are not blank; blank documents are never held out.
        documents: whether each row is a document.
        share: between 0 and 1; of documents, or stretches, that are not blank, either part has at least one.
        medium: what the rows hold, for messages.

    Raises:
        InputError: fewer than two documents, or stretches of lines, that are not blank.
    """
    if documents:
        return filled.where(_drawn(len(filled), "document", share, seed, medium))
    stretches = _stretches(filled.rows, share)
    units = np.logical_or.reduceat(filled.flags(), np.cumsum(stretches) - stretches)
    units[units] = _drawn(int(np.count_nonzero(units)), "line", share, seed, medium)
    return RowSet.of(np.repeat(units, stretches))


def _drawn(count: int, unit: str, share: float, seed: int, medium: str) -> Flags:
    """A share of so many, drawn at random, bool [count]: at least one is, and at least one is not."""
    if count < 2:
        raise InputError(
            f"only {count} {unit} with {medium}: too few to hold out a part for evaluation",
            f"give more {medium}, or --validation_file",
        )
    size = min(max(1, round(count * share)), count - 1)
    drawn = np.zeros(count, np.bool_)
    drawn[np.random.default_rng(seed).choice(count, size=size, replace=False, shuffle=False)] = True
    return drawn


def _stretches(rows: int, share: float) -> npt.NDArray[np.int64]:
    """The number of rows of each stretch."""
    count = min(rows, max(_STRETCHES, math.ceil(_HELD_OUT / share)))
    return np.diff(-(-np.arange(count + 1) * rows // max(count, 1)))


def _parse(expression: str, flag: str) -> datasets.ReadInstruction:
    try:
        return datasets.ReadInstruction.from_spec(expression)
    except ValueError as error:
        raise InputError(
            f"--{flag} cannot be '{expression}': {error}", f'such as --{flag} "train[:5000]" or "train[10%:20%]"'
        ) from error
