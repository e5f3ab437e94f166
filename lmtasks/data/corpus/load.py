"""Documents from the Hub, files, folders or memory, as train and evaluation splits.

What the documents are is the :class:`~lmtasks.api.medium.Medium`'s business; text is the one that is built in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt

from lmtasks.api import Medium, ReadSettings
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus.columns import text_path
from lmtasks.data.corpus.duplicates import count_duplicates
from lmtasks.data.corpus.files import SUFFIXES, describe, find_files, load_files
from lmtasks.data.corpus.hub_dataset import load_named
from lmtasks.data.corpus.memory import in_memory, of_strings
from lmtasks.data.corpus.split import Split, text_flags
from lmtasks.data.corpus.split_slices import held_out, take
from lmtasks.data.sample import SAMPLES, sample_documents
from lmtasks.errors import InputError

__all__ = ["TEXT", "Corpus", "Split", "count_duplicates", "load_corpus"]

# What run_mlm.py and run_clm.py hold out when nobody says how much: 5 %.
_DEFAULT_SHARE = 0.05

_OF_TEXT = {"sample_by": "line", "preprocessing_num_workers": 1, "overwrite_cache": False}
"""Settings that mean nothing for another medium, and what they are when nobody has set them."""

Flags = npt.NDArray[np.bool_]


def _files_of_text(files: Sequence[Path], data: ReadSettings) -> tuple[datasets.Dataset, str | None, bool]:
    return load_files(files, text_column=data.text_column, sample_by=data.sample_by)


def _text_column(rows: datasets.Dataset, name: str | None, source: str) -> tuple[datasets.Dataset, tuple[str, ...]]:
    column = text_path(rows.features.arrow_schema, name, source)
    return rows.select_columns([column[0]]), column


def _rows_with_text(rows: datasets.Dataset, column: tuple[str, ...], source: str) -> Flags:
    flags = text_flags(rows, column, source)
    if not flags.any():
        raise InputError(f"{source} holds nothing but white space in {len(flags)} rows", "give data with text")
    return flags


TEXT = Medium(
    name="text",
    suffixes=SUFFIXES,
    files=_files_of_text,
    items=of_strings,
    select=_text_column,
    filled=_rows_with_text,
    duplicates=count_duplicates,
)


@dataclass(frozen=True)
class Corpus:
    """What a run trains and evaluates on.

    Args:
        train: the training split; None when only data for evaluation were named.
        evaluation: the evaluation split.
        source: short words for people: "wiki.txt", "3 files", "squad, train[:5000]", "in-memory data".
    """

    train: Split | None
    evaluation: Split | None
    source: str


@dataclass(frozen=True)
class _Source:
    """Splits of one origin, not yet looked into."""

    splits: Mapping[str, datasets.Dataset]
    documents: bool
    words: str
    column: str | None


@dataclass(frozen=True)
class _Selection:
    """The rows that a split expression selects from a source."""

    rows: datasets.Dataset
    column: tuple[str, ...]
    documents: bool
    words: str


def load_corpus(
    data: DataSettings, *, medium: Medium = TEXT, sample: str | None = None, evaluation_only: bool = False
) -> Corpus:
    """Loads the data that the settings name, and checks all of it.

    Evaluation is on ``validation_file``, ``validation_split`` or ``eval_dataset`` where given, and otherwise on a
    share of the training rows (``test_size``, ``validation_split_percentage``, else 5 %), chosen by ``split_seed``.
    As in ``run_mlm.py`` the share means nothing where data for evaluation are given.
    A split is never used because of its name alone: a dataset with a "validation" split is still divided, unless
    ``--validation_split validation`` asks for it.

    Args:
        data: the settings.
        medium: what the documents are.
        sample: the embedded corpus to use when the settings name no data; a key of ``lmtasks.data.sample.SAMPLES``.
        evaluation_only: load no training data if the settings name data for evaluation. This matters for
            ``dataset_name`` with ``validation_split`` only, which for a run mean training on that dataset too.

    Returns:
        The corpus. ``train`` is None if the settings name data for evaluation and none for training.

    Raises:
        InputError: no data, contradictory settings, or data that cannot be read or hold nothing.
    """
    _check(data, medium, sample)
    training = None if evaluation_only and _names_evaluation(data) else _training_source(data, medium, sample)
    evaluation = _evaluation_source(data, medium, training)
    selected = None if training is None else _select(training, medium, data.train_split, "train_split")
    if evaluation is None:
        if selected is None:
            raise _no_data()
        return Corpus(*_divided(selected, medium, _share(data), data.split_seed), source=selected.words)
    expression = _evaluation_split(data, evaluation)
    if evaluation is training and expression == data.train_split:
        raise InputError(f"--train_split and --validation_split are both {expression}", "name another split for one")
    measured = _select(evaluation, medium, expression, "validation_split")
    return Corpus(
        train=None if selected is None else _whole(selected, medium),
        evaluation=_whole(measured, medium),
        source=(selected or measured).words,
    )


def _check(data: DataSettings, medium: Medium, sample: str | None) -> None:
    """Refuses contradictions before anything is loaded."""
    for name, usual in _OF_TEXT.items():
        if medium is not TEXT and getattr(data, name) != usual:
            raise InputError(f"--{name} is about text, and this is about {medium.name}", f"leave --{name} out")
    _at_most_one(data, "dataset_name", "train_file", "train_dataset")
    _at_most_one(data, "validation_file", "eval_dataset")
    _at_most_one(data, "test_size", "validation_split_percentage")
    if data.dataset_name is None:
        for name in ("dataset_config_name", "dataset_revision"):
            if getattr(data, name) is not None:
                raise InputError(f"--{name} needs --dataset_name", f"add --dataset_name, or leave --{name} out")
    if data.validation_split is not None and not _has_splits(data):
        raise InputError(
            f"--validation_split {data.validation_split} needs data with named splits",
            "use it with --dataset_name, or a DatasetDict; for files there is --validation_file",
        )
    if data.validation_split is not None and data.validation_file is not None:
        raise InputError("--validation_split and --validation_file both name the evaluation data", "give one of them")
    if sample is None and not _names_training(data) and not _names_evaluation(data):
        raise _no_data()


def _at_most_one(data: DataSettings, *names: str) -> None:
    given = [name for name in names if getattr(data, name) is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(f'--{name}' for name in given)} exclude each other", "give one of them")


def _has_splits(data: DataSettings) -> bool:
    if data.eval_dataset is not None:
        return isinstance(data.eval_dataset, datasets.DatasetDict)
    return data.dataset_name is not None or isinstance(data.train_dataset, datasets.DatasetDict)


def _names_training(data: DataSettings) -> bool:
    return any(value is not None for value in (data.dataset_name, data.train_file, data.train_dataset))


def _names_evaluation(data: DataSettings) -> bool:
    return any(value is not None for value in (data.validation_split, data.validation_file, data.eval_dataset))


def _training_source(data: DataSettings, medium: Medium, sample: str | None) -> _Source | None:
    if data.dataset_name is not None:
        return _named_source(data, medium)
    if data.train_dataset is not None:
        return _memory_source(data.train_dataset, "train_dataset", medium, data.text_column)
    if data.train_file is not None:
        return _file_source(data.train_file, "train_file", medium, data)
    if _names_evaluation(data) or sample is None:
        return None
    rows = in_memory(sample_documents(sample), "sample", TEXT)
    return _Source(rows, documents=True, words=SAMPLES[sample], column=None)


def _evaluation_source(data: DataSettings, medium: Medium, training: _Source | None) -> _Source | None:
    if data.eval_dataset is not None:
        return _memory_source(data.eval_dataset, "eval_dataset", medium, data.text_column)
    if data.validation_file is not None:
        _refuse_training_files(data, medium)
        return _file_source(data.validation_file, "validation_file", medium, data)
    if data.validation_split is None:
        return None
    if training is not None:
        return training
    # Only the evaluation split was asked for, of data that hold several.
    if data.dataset_name is not None:
        return _named_source(data, medium)
    return _memory_source(data.train_dataset, "train_dataset", medium, data.text_column)


def _named_source(data: DataSettings, medium: Medium) -> _Source:
    splits, documents = load_named(data, medium=medium.name)
    return _Source(splits, documents, str(data.dataset_name), data.text_column)


def _memory_source(value: Any, name: str, medium: Medium, column: str | None) -> _Source:
    # A list has no columns, so a name given for other data's column does not apply to it.
    column = None if isinstance(value, (list, tuple)) else column
    return _Source(in_memory(value, name, medium), documents=True, words="in-memory data", column=column)


def _file_source(names: list[str], flag: str, medium: Medium, data: DataSettings) -> _Source:
    files = find_files(names, flag, medium.suffixes)
    rows, column, documents = medium.files(files, data)
    return _Source({"train": rows}, documents, describe(files), column)


def _refuse_training_files(data: DataSettings, medium: Medium) -> None:
    """A file in both parts would make every score too good."""
    training = {file.resolve() for file in find_files(data.train_file or [], "train_file", medium.suffixes)}
    for file in find_files(data.validation_file or [], "validation_file", medium.suffixes):
        if file.resolve() in training:
            raise InputError(
                f"{file} is given for both training and evaluation",
                "leave --validation_file out to hold out a part of the training data",
            )


def _evaluation_split(data: DataSettings, source: _Source) -> str:
    if data.validation_split is not None:
        return data.validation_split
    if len(source.splits) == 1:
        return next(iter(source.splits))
    raise InputError(f"eval_dataset has several splits: {', '.join(source.splits)}", "--validation_split NAME")


def _select(source: _Source, medium: Medium, expression: str, flag: str) -> _Selection:
    words = source.words if expression == "train" else f"{source.words}, {expression}"
    rows, column = medium.select(take(source.splits, expression, flag, source.words), source.column, source.words)
    return _Selection(rows, column, source.documents, words)


def _whole(selection: _Selection, medium: Medium) -> Split:
    """All rows that hold something, and the line breaks between lines of text."""
    flags = medium.filled(selection.rows, selection.column, selection.words)
    return _split(selection, np.ones_like(flags), flags)


def _divided(selection: _Selection, medium: Medium, share: float, seed: int) -> tuple[Split, Split]:
    """The training part and the part held out, both in the order of the data."""
    flags = medium.filled(selection.rows, selection.column, selection.words)
    # Blank documents are nobody's, and must not use up the share of those that are held out.
    chosen = held_out(flags, documents=selection.documents, share=share, seed=seed, medium=medium.name)
    return _split(selection, ~chosen, flags), _split(selection, chosen, flags)


def _split(selection: _Selection, part: Flags, filled: Flags) -> Split:
    keep = part & filled if selection.documents else part
    chosen = None if keep.all() else np.packbits(keep)
    blank = int(np.count_nonzero(part) - np.count_nonzero(keep))
    return Split(selection.rows, selection.column, selection.documents, blank, chosen)


def _share(data: DataSettings) -> float:
    if data.test_size is not None:
        return data.test_size
    percentage = data.validation_split_percentage
    return _DEFAULT_SHARE if percentage is None else percentage / 100


def _no_data() -> InputError:
    return InputError("no data given", "--train_file FILE or --dataset_name ID")
