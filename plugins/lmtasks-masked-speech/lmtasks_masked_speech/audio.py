"""Audio as a medium: recordings from files, folders and datasets with an ``Audio`` column.

``datasets`` would decode these with torchcodec, which not every machine has. Here it only hands over paths and bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt

from lmtasks import InputError
from lmtasks_masked_speech.sounds import extent, key_of

_AUDIO = datasets.Audio(decode=False)


def files(paths: Sequence[Any], data: Any) -> tuple[datasets.Dataset, str | None, bool]:
    """One row for each file."""
    return _rows(list(map(str, paths))), "audio", True


def items(names: Sequence[Any], argument: str) -> datasets.Dataset:
    """One row for each name of a file in a list."""
    for number, name in enumerate(names, start=1):
        if not isinstance(name, (str, os.PathLike)):
            kind = type(name).__name__
            raise InputError(
                f"row {number} of {argument} is no name of a file but {kind}",
                "give names, or a Dataset with an Audio column, which also says at what rate sounds were recorded",
            )
    return _rows(list(map(os.fspath, names)))


def _rows(paths: list[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"audio": paths}).cast_column("audio", _AUDIO)


def select(rows: datasets.Dataset, column: str | None, source: str) -> tuple[datasets.Dataset, tuple[str, ...]]:
    """The rows with nothing but their audio column, undecoded.

    Raises:
        InputError: no such column, several, or one that holds something else.
    """
    sounds = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Audio)]
    told = f"it has {', '.join(f'{name} ({_kind(feature)})' for name, feature in rows.features.items())}"
    if column is None:
        if "audio" not in sounds and len(sounds) != 1:
            raise InputError(f"cannot tell which column of {source} is the audio: {told}", "--column NAME")
        column = "audio" if "audio" in sounds else sounds[0]
    if column not in rows.features:
        raise InputError(f"no column '{column}' in {source}: {told}", "--column NAME")
    if column not in sounds:
        raise InputError(
            f"column '{column}' of {source} holds no audio: {told}",
            f'dataset.cast_column("{column}", datasets.Audio(decode=False)) makes audio of names of files',
        )
    return rows.select_columns([column]).cast_column(column, _AUDIO), (column,)


def _kind(feature: Any) -> str:
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__


def filled(rows: datasets.Dataset, column: tuple[str, ...], source: str) -> npt.NDArray[np.bool_]:
    """Which recordings have any sound in them; every one is opened.

    Raises:
        InputError: one that cannot be read, or none with sound.
    """
    flags = np.array([extent(cell)[0] > 0 for cell in cells(rows, column, range(len(rows)), source)], dtype=np.bool_)
    if not flags.any():
        raise InputError(f"{source} holds no sound in {len(flags)} recordings", "give recordings with sound")
    return flags


def cells(
    rows: datasets.Dataset, column: tuple[str, ...], numbers: Sequence[Any], source: str = "the data"
) -> Iterator[dict[str, Any]]:
    """The cells of these rows, one at a time."""
    for number in numbers:
        cell = rows[int(number)][column[0]]
        if cell is None or (cell.get("bytes") is None and not cell.get("path")):
            raise InputError(f"row {int(number) + 1} of {source} has no audio", "remove such rows")
        yield cell


def duplicates(train: Any, evaluation: Any) -> int:
    """How many recordings of the evaluation split are in the training split, too."""
    known = {key_of(cell) for cell in cells(train.rows, train.column, train.numbers())}
    return sum(key_of(cell) in known for cell in cells(evaluation.rows, evaluation.column, evaluation.numbers()))
