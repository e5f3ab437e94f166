"""Data that a Python program hands over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import pandas

from lmtasks.api import Medium
from lmtasks.errors import InputError


def in_memory(value: Any, name: str, medium: Medium) -> dict[str, datasets.Dataset]:
    """Splits of a DatasetDict; a Dataset, a DataFrame of pandas or a list of strings becomes one split, ``train``.

    Raises:
        InputError: anything else, or a list with an item that is none of the medium; calls the value by the name.
    """
    if isinstance(value, datasets.DatasetDict):
        return dict(value)
    if isinstance(value, datasets.Dataset):
        return {"train": value}
    if isinstance(value, pandas.DataFrame):
        return {"train": datasets.Dataset.from_pandas(value, preserve_index=False)}
    if isinstance(value, (list, tuple)):
        return {"train": medium.items(value, name)}
    raise InputError(
        f"{name} cannot be a {type(value).__name__}: it must be a Dataset, DatasetDict, DataFrame or list of strings",
        f"{name}=[TEXT]" if isinstance(value, str) else "datasets.Dataset.from_generator reads streams",
    )


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
