"""Documents from the Hub, files, folders or memory, as train and evaluation splits.

What the documents are is the :class:`~lmtasks.api.medium.Medium`'s business; text is the one that is built in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import datasets
import numpy as np
import numpy.typing as npt

from lmtasks.api import Medium
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus.columns import text_path
from lmtasks.data.corpus.duplicates import count_duplicates
from lmtasks.data.corpus.files import SUFFIXES, describe, find_files, load_files
from lmtasks.data.corpus.hub_dataset import load_named
from lmtasks.data.corpus.memory import in_memory, of_strings
from lmtasks.data.corpus.split import Split, text_flags, without_begins
from lmtasks.data.corpus.split_slices import held_out, take
from lmtasks.data.sample import SAMPLES, sample_documents
from lmtasks.errors import InputError

_TRAINING = ("dataset_name", "train_file", "train_dataset")
_EVALUATION = ("validation_split", "validation_file", "eval_dataset")

_OF_TEXT = {
    "sample_by": "line",
    "preprocessing_num_workers": 1,
    "overwrite_cache": False,
    "split_special_tokens": False,
}
"""Settings that mean nothing for another medium, and their values when nobody has set them."""

Flags = npt.NDArray[np.bool_]


def _text_column(rows: datasets.Dataset, name: str | None, source: str) -> tuple[datasets.Dataset, tuple[str, ...]]:
    column = text_path(rows.features.arrow_schema, name, source)
    return rows.select_columns([column[0]]), column


TEXT = Medium(
    name="text",
    suffixes=SUFFIXES,
    files=load_files,
    items=of_strings,
    select=_text_column,
    filled=text_flags,
    duplicates=count_duplicates,
)


@dataclass(frozen=True)
class Corpus:
    """The data of a run.

    Args:
        train: None when only data for evaluation were named.
        source: short words for people: "wiki.txt", "3 files", "squad, train[:5000]", "in-memory data".
    """

    train: Split | None
    evaluation: Split
    source: str


@dataclass(frozen=True)
class _Source:
    """Splits of one origin, not yet looked into."""

    splits: Mapping[str, datasets.Dataset]
    documents: bool
    words: str
    column: str | None


def load_corpus(
    data: DataSettings, *, medium: Medium = TEXT, sample: str | None = None, evaluation_only: bool = False
) -> Corpus:
    """The data that the settings name, all of it checked.

    Evaluation is on ``validation_file``, ``validation_split`` or ``eval_dataset`` where given, and otherwise on a
    share of the training rows (``test_size``, ``validation_split_percentage``, else 5 %), chosen by ``split_seed``.
    As in ``run_mlm.py`` the share means nothing where data for evaluation are given.
    A split is never used because of its name alone: a dataset with a "validation" split is still divided, unless
    ``--validation_split validation`` asks for it.

    Args:
        sample: the embedded corpus to use when the settings name no data; a key of ``lmtasks.data.sample.SAMPLES``.
        evaluation_only: load no training data if the settings name data for evaluation. This matters for
            ``dataset_name`` with ``validation_split`` only, which for a run mean training on that dataset too.

    Raises:
        InputError: no data, contradictory settings, or data that cannot be read or hold nothing.
    """
    _check(data, medium, sample)
    training = None if evaluation_only and _given(data, *_EVALUATION) else _training_source(data, medium, sample)
    evaluation = _evaluation_source(data, medium, training)
    selected, words = (None, "") if training is None else _select(training, medium, data.train_split, "train_split")
    if evaluation is None:
        if selected is None:
            raise _no_data()
        return Corpus(*_divided(selected, words, medium, data), source=words)
    expression = _evaluation_split(data, evaluation)
    if evaluation is training and expression == data.train_split:
        raise InputError(f"--train_split and --validation_split are both {expression}", "name another split for one")
    measured, measured_words = _select(evaluation, medium, expression, "validation_split")
    return Corpus(
        train=None if selected is None else _whole(selected, words, medium),
        evaluation=_whole(measured, measured_words, medium),
        source=words or measured_words,
    )


def _check(data: DataSettings, medium: Medium, sample: str | None) -> None:
    """Refuses contradictions before anything is loaded."""
    for name, usual in _OF_TEXT.items():
        if medium is not TEXT and getattr(data, name) != usual:
            raise InputError(f"--{name} is about text, and this is about {medium.name}", f"leave --{name} out")
    for names in (_TRAINING, ("validation_file", "eval_dataset"), ("test_size", "validation_split_percentage")):
        if len(given := _given(data, *names)) > 1:
            raise InputError(f"{' and '.join(f'--{name}' for name in given)} exclude each other", "give one of them")
    if data.dataset_name is None:
        for name in _given(data, "dataset_config_name", "dataset_revision"):
            raise InputError(f"--{name} needs --dataset_name", f"add --dataset_name, or leave --{name} out")
    if data.validation_split is not None and not _has_splits(data):
        raise InputError(
            f"--validation_split {data.validation_split} needs data with named splits",
            "use it with --dataset_name, or a DatasetDict; for files there is --validation_file",
        )
    if data.validation_split is not None and data.validation_file is not None:
        raise InputError("--validation_split and --validation_file both name the evaluation data", "give one of them")
    if sample is None and not _given(data, *_TRAINING, *_EVALUATION):
        raise _no_data()


def _given(data: DataSettings, *names: str) -> list[str]:
    """The names of those settings that somebody made."""
    return [name for name in names if getattr(data, name) is not None]


def _has_splits(data: DataSettings) -> bool:
    if data.eval_dataset is not None:
        return isinstance(data.eval_dataset, datasets.DatasetDict)
    return data.dataset_name is not None or isinstance(data.train_dataset, datasets.DatasetDict)


def _training_source(data: DataSettings, medium: Medium, sample: str | None) -> _Source | None:
    source = _source(data, medium, *_TRAINING)
    if source is not None or sample is None or _given(data, *_EVALUATION):
        return source
    return _Source(in_memory(sample_documents(sample), "sample", TEXT), True, SAMPLES[sample], None)


def _evaluation_source(data: DataSettings, medium: Medium, training: _Source | None) -> _Source | None:
    if data.validation_file is not None:
        _refuse_training_files(data, medium)
    source = _source(data, medium, "validation_file", "eval_dataset")
    if source is not None or data.validation_split is None:
        return source
    # Where training data were not asked for, they are the ones that hold several splits.
    return training or _source(data, medium, *_TRAINING)


def _source(data: DataSettings, medium: Medium, *names: str) -> _Source | None:
    """The data that the one of these settings names that somebody made."""
    for name in _given(data, *names):
        value = getattr(data, name)
        if name == "dataset_name":
            splits, documents = load_named(data, medium=medium.name)
            return _Source(splits, documents, value, data.text_column)
        if name.endswith("_file"):
            files = find_files(value, name, medium.suffixes)
            rows, column, documents = medium.files(files, data)
            return _Source({"train": rows}, documents, describe(files), column)
        # A list has no columns, so a name given for other data's column does not apply to it.
        column = None if isinstance(value, (list, tuple)) else data.text_column
        return _Source(in_memory(value, name, medium), True, "in-memory data", column)
    return None


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


def _select(source: _Source, medium: Medium, expression: str, flag: str) -> tuple[Split, str]:
    """The rows that a split expression selects, not yet looked at, and words for them."""
    words = source.words if expression == "train" else f"{source.words}, {expression}"
    rows, begins = without_begins(take(source.splits, expression, flag, source.words))
    rows, column = medium.select(rows, source.column, source.words)
    return Split(rows, column, source.documents, begins=begins), words


def _whole(split: Split, words: str, medium: Medium) -> Split:
    """All rows that hold something, and the line breaks between lines of text."""
    filled = medium.filled(split.rows, split.column, words)
    return _part(split, np.ones_like(filled), filled)


def _divided(split: Split, words: str, medium: Medium, data: DataSettings) -> tuple[Split, Split]:
    """The training part and the part held out, both in the order of the data."""
    filled = medium.filled(split.rows, split.column, words)
    # What run_mlm.py and run_clm.py hold out when nobody says how much: 5 %.
    share = 0.05 if data.validation_split_percentage is None else data.validation_split_percentage / 100
    share = share if data.test_size is None else data.test_size
    # Blank documents are nobody's, and must not use up the share of those that are held out.
    chosen = held_out(filled, documents=split.documents, share=share, seed=data.split_seed, medium=medium.name)
    return _part(split, ~chosen, filled), _part(split, chosen, filled)


def _part(split: Split, part: Flags, filled: Flags) -> Split:
    keep = part & filled if split.documents else part
    chosen = None if keep.all() else np.packbits(keep)
    return replace(split, blank=int(np.count_nonzero(part) - np.count_nonzero(keep)), chosen=chosen)


def _no_data() -> InputError:
    return InputError("no data given", "--train_file FILE or --dataset_name ID")
