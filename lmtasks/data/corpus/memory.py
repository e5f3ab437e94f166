"""Data that a Python program hands over."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas

from lmtasks.api import Medium
from lmtasks.errors import InputError, first_line

SEVERAL = (datasets.DatasetDict, datasets.IterableDatasetDict)
"""Kinds of data that are several splits."""


def in_memory(value: Any, name: str, medium: Medium) -> dict[str, datasets.Dataset]:
    """Splits of a DatasetDict; a Dataset, a DataFrame of pandas or a list of strings becomes one split, ``train``.

    Raises:
        InputError: anything else, or a list with an item that is none of the medium; calls the value by the name.
    """
    if isinstance(value, SEVERAL):
        return {split: _with_length(rows, name) for split, rows in value.items()}
    if isinstance(value, datasets.IterableDataset):
        return {"train": _with_length(value, name)}
    if isinstance(value, datasets.Dataset):
        return {"train": value}
    if isinstance(value, pandas.DataFrame):
        return {"train": datasets.Dataset.from_pandas(value, preserve_index=False)}
    if isinstance(value, (list, tuple)):
        return {"train": medium.items(value, name)}
    raise InputError(
        f"{name} cannot be a {type(value).__name__}: it must be a Dataset, DatasetDict, DataFrame or list of strings",
        f"{name}=[TEXT]" if isinstance(value, str) else "datasets.IterableDataset.from_generator makes one of a stream",
    )


def _with_length(rows: Any, name: str) -> Any:
    """The rows of a stream, read once, into a file that lives as long as this process; others as they are.

    A run needs them more than once: documents are held out, told apart and counted before any is tokenised. Nobody can
    know a stream again, so that the rows are not kept for another run; the tokens are, by their text.

    Raises:
        InputError: it has no rows, or some that make no table.
    """
    if not isinstance(rows, datasets.IterableDataset):
        return rows
    folder = tempfile.mkdtemp(prefix="lmtasks-stream-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file, count = Path(folder, "rows.arrow"), 0
    try:
        with datasets.arrow_writer.ArrowWriter(path=str(file), features=rows.features) as writer:
            for row in rows:
                writer.write(row)
                count += 1
            if count:
                writer.finalize()
    except (TypeError, ValueError) as error:  # of Arrow, of datasets, or of who makes the rows
        told = f"the rows of {name} cannot be read as a table: {type(error).__name__}: {first_line(error)}"
        raise InputError(told, "give each column one type") from error
    if not count:
        raise InputError(f"{name} has no rows", "give data with text")
    return datasets.Dataset.from_file(str(file))


def of_strings(texts: Sequence[Any], name: str) -> datasets.Dataset:
    """One row for each text of a list."""
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise InputError(f"row {number} of {name} is not text but {type(text).__name__}", "give strings")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"row {number} of {name} is not valid Unicode: {error.reason}", "remove it") from error
    features = datasets.Features({"text": datasets.Value("string")})
    return datasets.Dataset.from_dict({"text": list(texts)}, features=features)
