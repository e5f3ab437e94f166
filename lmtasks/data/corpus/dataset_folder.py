"""A folder that is a dataset: its files by splits, as ``datasets`` finds them, read like any other files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from datasets.data_files import DataFilesDict, get_data_patterns

from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus.find import suffixes, tell_left_out
from lmtasks.data.corpus.read import load_files
from lmtasks.errors import InputError

_OURS = {"sample_by": "sample_by", "delimiter": "csv_separator", "sep": "csv_separator", "encoding": "encoding"}
"""What a dataset card may say of how its files are read, and the setting that says it here."""

_SILENT = {"name", "version", "data_dir", "data_files", "description", "keep_linebreaks", "parse_agent_traces"}
"""Options of a builder that change no row as it is read here."""


def load_splits(
    folder: Path, builder: datasets.DatasetBuilder | None, data: DataSettings
) -> tuple[dict[str, datasets.Dataset], bool]:
    """The rows of each split, and whether they are documents.

    Args:
        builder: of ``datasets``, where a card says which files are which split, and how they are read.

    Raises:
        InputError: nothing to read, what cannot be read, or a card that asks for what nothing here does.
    """
    if builder is not None:
        files, data = builder.config.data_files, _as_the_card_says(folder, builder.config, data)
    else:
        files = _found(folder)
    loaded = {str(split): load_files([Path(path) for path in paths], data) for split, paths in files.items()}
    columns = {column for _, column, _ in loaded.values()}
    if len(columns) > 1:
        told = ", ".join(f"it is '{column}' in {split}" for split, (_, column, _) in loaded.items())
        raise InputError(f"the splits of {folder} have their text in different columns: {told}", "--text_column NAME")
    kinds = {documents for _, _, documents in loaded.values()}
    if len(kinds) > 1:
        raise InputError(f"{folder} has text read by line and documents", "--sample_by paragraph or document")
    return {split: rows for split, (rows, _, _) in loaded.items()}, kinds.pop()


def _found(folder: Path) -> Mapping[str, list[str]]:
    """The data files of a folder without a card, by the splits that their names and folders say."""
    base = str(folder.resolve())
    try:
        found = DataFilesDict.from_patterns(get_data_patterns(base), base_path=base)
    except FileNotFoundError as error:
        raise _without_files(folder) from error
    ends = suffixes()
    script = f"{folder.resolve().name}.py"  # which once loaded the dataset, and is none of its texts
    files = {
        split: [path for path in paths if path.lower().endswith(ends) and Path(path).name != script]
        for split, paths in found.items()
    }
    left = [Path(path).name for split, paths in found.items() for path in paths if path not in files[split]]
    if not any(files.values()):
        raise _without_files(folder)
    tell_left_out(folder, sorted(left))
    return {split: paths for split, paths in files.items() if paths}


def _without_files(folder: Path) -> InputError:
    return InputError(f"no data files in the folder {folder}", f"--train_file {folder} --format NAME")


def _as_the_card_says(folder: Path, config: datasets.BuilderConfig, data: DataSettings) -> DataSettings:
    """The settings with what the card of a folder says, but for those that somebody made."""
    usual = DataSettings()
    said: dict[str, Any] = {}
    for option in dataclasses.fields(config):
        value = getattr(config, option.name)
        default = option.default if option.default is not dataclasses.MISSING else None
        if option.name in _SILENT or value in (default, None, "utf-8") or option.name == "features":
            continue
        if option.name not in _OURS:
            raise InputError(
                f"the card of {folder} says {option.name}={value!r}, which nothing here reads",
                f"name the files with --train_file, {folder}/…",
            )
        said[_OURS[option.name]] = value
    return dataclasses.replace(
        data, **{name: value for name, value in said.items() if getattr(data, name) == getattr(usual, name)}
    )
