"""Split expressions such as ``train[:5000]``, and the choice of what is held out for evaluation."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import datasets
import numpy as np
import numpy.typing as npt

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


def held_out(
    has_text: npt.NDArray[np.bool_], *, documents: bool, share: float, seed: int, medium: str = "text"
) -> npt.NDArray[np.bool_]:
    """The rows that are held out for evaluation, one flag per row; the same for the same arguments.

    Documents are held out one by one. Lines are not: a single line torn from its neighbours is no
    text, and its neighbours, which stay in the training part, would give it away. So lines are cut into
    even stretches of consecutive lines, 100 or as many more as a small share needs, and whole stretches are held out.

    Args:
        has_text: one flag per row, False for blank rows; blank documents are never held out.
        documents: whether each row is a document.
        share: between 0 and 1; of documents, or stretches, that are not blank, either part has at least one.
        medium: what the rows hold, for messages.

    Raises:
        InputError: fewer than two documents, or stretches of lines, that are not blank.
    """
    stretches = _stretches(len(has_text), share)
    filled = has_text if documents else np.logical_or.reduceat(has_text, np.cumsum(stretches) - stretches)
    candidates = int(np.count_nonzero(filled))
    if candidates < 2:
        raise InputError(
            f"only {candidates} {'document' if documents else 'line'} with {medium}: "
            "too few to hold out a part for evaluation",
            f"give more {medium}, or --validation_file",
        )
    size = min(max(1, round(candidates * share)), candidates - 1)
    chosen = np.zeros(candidates, np.bool_)
    chosen[np.random.default_rng(seed).choice(candidates, size=size, replace=False, shuffle=False)] = True
    units = np.zeros_like(filled)
    units[filled] = chosen
    return units if documents else np.repeat(units, stretches)


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
