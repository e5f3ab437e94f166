"""Data that a Python program hands over."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from lmtasks.api import Medium
from lmtasks.errors import InputError, first_line

SEVERAL = (datasets.DatasetDict, datasets.IterableDatasetDict)
"""Kinds of data that are several splits."""


def in_memory(value: Any, name: str, medium: Medium) -> dict[str, datasets.Dataset]:
    """Splits of a DatasetDict; a Dataset or a list of strings becomes one split, ``train``.

    Raises:
        InputError: anything else, or a list with an item that is none of the medium; calls the value by the name.
    """
    if isinstance(value, SEVERAL):
        return {split: in_memory(rows, name, medium)["train"] for split, rows in value.items()}
    if isinstance(value, datasets.IterableDataset):
        return {"train": _on_disk(value, name)}
    if isinstance(value, datasets.Dataset):
        return {"train": value}
    if isinstance(value, (list, tuple)):
        return {"train": medium.items(value, name)}
    raise InputError(
        f"{name} cannot be a {type(value).__name__}: it must be a Dataset, a DatasetDict or a list of strings",
        f"{name}=[TEXT]" if isinstance(value, str) else "datasets.IterableDataset.from_generator makes one of a stream",
    )


def _on_disk(stream: datasets.IterableDataset, name: str) -> datasets.Dataset:
    """The rows of a stream, read once, from first to last, into a file that lives as long as this process.

    A run needs them more than once: documents are held out, told apart and counted before any is tokenised. Nobody can
    know a stream again, so that the rows are not kept for another run; the tokens are, by their text.

    Raises:
        InputError: it has no rows, or rows of different kinds.
    """
    folder = tempfile.mkdtemp(prefix="lmtasks-stream-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file, rows = Path(folder, "rows.arrow"), 0
    try:
        with datasets.arrow_writer.ArrowWriter(path=str(file), features=stream.features) as writer:
            for row in stream:
                writer.write(row)
                rows += 1
            if rows:
                writer.finalize()
    except pa.ArrowException as error:
        told = f"the rows of {name} are not all alike: {first_line(error)}"
        raise InputError(told, "give each column one type") from error
    if not rows:
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
