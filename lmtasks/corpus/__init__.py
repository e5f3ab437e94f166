"""Text from the Hub, files, folders or memory, as train and evaluation splits of documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt

from lmtasks.corpus.columns import text_path
from lmtasks.corpus.duplicates import count_duplicates
from lmtasks.corpus.files import describe, find_files, load_files
from lmtasks.corpus.memory import in_memory
from lmtasks.corpus.named import load_named
from lmtasks.corpus.slices import held_out, take
from lmtasks.corpus.split import Split, text_flags
from lmtasks.errors import InputError
from lmtasks.sample import SAMPLES, sample_documents
from lmtasks.settings import DataSettings

__all__ = ["Corpus", "Split", "count_duplicates", "load_corpus"]

# What run_mlm.py and run_clm.py hold out when nobody says how much: 5 %.
_DEFAULT_SHARE = 0.05

Flags = npt.NDArray[np.bool_]


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
    text_column: str | None


@dataclass(frozen=True)
class _Selection:
    """The rows that a split expression selects from a source."""

    rows: datasets.Dataset
    column: tuple[str, ...]
    documents: bool
    words: str


def load_corpus(data: DataSettings, *, sample: str | None = None, evaluation_only: bool = False) -> Corpus:
    """Loads the data that the settings name, and checks all of it.

    Evaluation is on ``validation_file``, ``validation_split`` or ``eval_dataset`` where given, and otherwise on a
    share of the training rows (``test_size``, ``validation_split_percentage``, else 5 %), chosen by ``split_seed``.
    As in ``run_mlm.py`` the share means nothing where data for evaluation are given.
    A split is never used because of its name alone: a dataset with a "validation" split is still divided, unless
    ``--validation_split validation`` asks for it.

    Args:
        data: the settings.
        sample: the embedded corpus to use when the settings name no data; a key of ``lmtasks.sample.SAMPLES``.
        evaluation_only: load no training data if the settings name data for evaluation. This matters for
            ``dataset_name`` with ``validation_split`` only, which for a run mean training on that dataset too.

    Returns:
        The corpus. ``train`` is None if the settings name data for evaluation and none for training.

    Raises:
        InputError: no data, contradictory settings, or data that cannot be read or hold no text.
    """
    _check(data, sample)
    training = None if evaluation_only and _names_evaluation(data) else _training_source(data, sample)
    evaluation = _evaluation_source(data, training)
    selected = None if training is None else _select(training, data.train_split, "train_split")
    if evaluation is None:
        if selected is None:
            raise _no_data()
        return Corpus(*_divided(selected, _share(data), data.split_seed), source=selected.words)
    expression = _evaluation_split(data, evaluation)
    if evaluation is training and expression == data.train_split:
        raise InputError(f"--train_split and --validation_split are both {expression}", "name another split for one")
    measured = _select(evaluation, expression, "validation_split")
    return Corpus(
        train=None if selected is None else _whole(selected),
        evaluation=_whole(measured),
        source=(selected or measured).words,
    )


def _check(data: DataSettings, sample: str | None) -> None:
    """Refuses contradictions before anything is loaded."""
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


def _training_source(data: DataSettings, sample: str | None) -> _Source | None:
    if data.dataset_name is not None:
        return _named_source(data)
    if data.train_dataset is not None:
        return _memory_source(data.train_dataset, "train_dataset", data.text_column)
    if data.train_file is not None:
        return _file_source(data.train_file, "train_file", data)
    if _names_evaluation(data) or sample is None:
        return None
    rows = in_memory(sample_documents(sample), "sample")
    return _Source(rows, documents=True, words=SAMPLES[sample], text_column="text")


def _evaluation_source(data: DataSettings, training: _Source | None) -> _Source | None:
    if data.eval_dataset is not None:
        return _memory_source(data.eval_dataset, "eval_dataset", data.text_column)
    if data.validation_file is not None:
        _refuse_training_files(data)
        return _file_source(data.validation_file, "validation_file", data)
    if data.validation_split is None:
        return None
    if training is not None:
        return training
    # Only the evaluation split was asked for, of data that hold several.
    if data.dataset_name is not None:
        return _named_source(data)
    return _memory_source(data.train_dataset, "train_dataset", data.text_column)


def _named_source(data: DataSettings) -> _Source:
    splits, documents = load_named(data)
    return _Source(splits, documents, str(data.dataset_name), data.text_column)


def _memory_source(value: Any, name: str, text_column: str | None) -> _Source:
    # A list has no columns, so a name given for other data's column does not apply to it.
    column = "text" if isinstance(value, (list, tuple)) else text_column
    return _Source(in_memory(value, name), documents=True, words="in-memory data", text_column=column)


def _file_source(names: list[str], flag: str, data: DataSettings) -> _Source:
    files = find_files(names, flag)
    rows, column, documents = load_files(files, text_column=data.text_column, sample_by=data.sample_by)
    return _Source({"train": rows}, documents, describe(files), column)


def _refuse_training_files(data: DataSettings) -> None:
    """A file in both parts would make every score too good."""
    training = {file.resolve() for file in find_files(data.train_file or [], "train_file")}
    for file in find_files(data.validation_file or [], "validation_file"):
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


def _select(source: _Source, expression: str, flag: str) -> _Selection:
    words = source.words if expression == "train" else f"{source.words}, {expression}"
    rows = take(source.splits, expression, flag, source.words)
    column = text_path(rows.features.arrow_schema, source.text_column, source.words)
    return _Selection(rows.select_columns([column[0]]), column, source.documents, words)


def _whole(selection: _Selection) -> Split:
    """All rows that hold text, and the line breaks between them."""
    flags = _checked_flags(selection)
    return _split(selection, np.ones_like(flags), flags)


def _divided(selection: _Selection, share: float, seed: int) -> tuple[Split, Split]:
    """The training part and the part held out, both in the order of the data."""
    flags = _checked_flags(selection)
    # Blank documents are nobody's, and must not use up the share of those that are held out.
    chosen = held_out(flags, documents=selection.documents, share=share, seed=seed)
    return _split(selection, ~chosen, flags), _split(selection, chosen, flags)


def _split(selection: _Selection, part: Flags, has_text: Flags) -> Split:
    keep = part & has_text if selection.documents else part
    chosen = None if keep.all() else np.packbits(keep)
    blank = int(np.count_nonzero(part) - np.count_nonzero(keep))
    return Split(selection.rows, selection.column, selection.documents, blank, chosen)


def _checked_flags(selection: _Selection) -> Flags:
    flags = text_flags(selection.rows, selection.column, selection.words)
    if not flags.any():
        raise InputError(f"{selection.words} holds nothing but white space in {len(flags)} rows", "give data with text")
    return flags


def _share(data: DataSettings) -> float:
    if data.test_size is not None:
        return data.test_size
    percentage = data.validation_split_percentage
    return _DEFAULT_SHARE if percentage is None else percentage / 100


def _no_data() -> InputError:
    return InputError("no data given", "--train_file FILE or --dataset_name ID")
