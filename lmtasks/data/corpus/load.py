"""Documents from the Hub, files, folders or memory, as train and evaluation splits.

What the documents are is the :class:`~lmtasks.api.medium.Medium`'s business; text is the one that is built in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import numpy.typing as npt

from lmtasks.api import Medium
from lmtasks.config.evaluation_sets import UNNAMED, check_names, files_by_set
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus.filters import filtered
from lmtasks.data.corpus.find import find_files
from lmtasks.data.corpus.hub_dataset import load_named
from lmtasks.data.corpus.medium import TEXT
from lmtasks.data.corpus.memory import in_memory
from lmtasks.data.corpus.read import describe
from lmtasks.data.corpus.selection import made_of_columns
from lmtasks.data.corpus.split import Split, without_begins
from lmtasks.data.corpus.split_slices import held_out, take
from lmtasks.data.sample import SAMPLES, sample_documents
from lmtasks.errors import InputError

_TRAINING = ("dataset_name", "train_file", "train_dataset")
_EVALUATION = ("validation_split", "validation_file", "eval_dataset")

_OF_TEXT = {
    **dict.fromkeys(("text_template", "format", "encoding", "csv_separator", "csv_quoting", "csv_header")),
    **dict.fromkeys(("min_chars", "max_chars", "filter")),
    **dict.fromkeys(("chat", "drop_duplicates", "overwrite_cache", "split_special_tokens"), False),
    "sample_by": "line",
    "preprocessing_num_workers": 1,
}
"""Settings that mean nothing for another medium, and their values when nobody has set them."""

Flags = npt.NDArray[np.bool_]

Render = Callable[[datasets.Dataset, str, str], datasets.Dataset]
"""(rows, column, source) to the rows with conversations as texts."""


@dataclass(frozen=True)
class Corpus:
    """The data of a run.

    Args:
        training: the splits to train on by source, whose name is empty where there is just one; none when only data
            for evaluation were named.
        evaluations: the evaluation sets by name, which is empty for one that nobody named.
        source: short words for people: "wiki.txt", "3 files", "squad, train[:5000]", "in-memory data".
    """

    training: Mapping[str, Split]
    evaluations: Mapping[str, Split]
    source: str

    @property
    def train(self) -> Split | None:
        """What is trained on, where that is of one source."""
        return self.training.get(UNNAMED)

    @property
    def evaluation(self) -> Split:
        """The first evaluation set, or the only one."""
        return next(iter(self.evaluations.values()))


@dataclass(frozen=True)
class _Source:
    """Splits of one origin, not yet looked into."""

    splits: Mapping[str, datasets.Dataset]
    documents: bool
    words: str
    column: str | None


def load_corpus(
    data: DataSettings,
    *,
    medium: Medium = TEXT,
    sample: str | None = None,
    evaluation_only: bool = False,
    render: Render | None = None,
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
        render: makes texts of conversations.

    Raises:
        InputError: no data, contradictory settings, or data that cannot be read or hold nothing.
    """
    _check(data, medium, sample)
    training = None if evaluation_only and _given(data, *_EVALUATION) else _training_source(data, medium, sample)
    evaluations = _evaluation_sources(data, medium, training)
    selected, words = (
        (None, "") if training is None else _select(training, medium, data.train_split, "train_split", render)
    )
    if not evaluations:
        if selected is None:
            raise _no_data()
        train, measured = _divided(selected, words, medium, data)
        return Corpus({UNNAMED: train}, {UNNAMED: measured}, source=words)
    sets: dict[str, Split] = {}
    told = []
    for name, evaluation in evaluations.items():
        expression = _evaluation_split(data, evaluation)
        if evaluation is training and expression == data.train_split:
            same = f"--train_split and --validation_split are both {expression}"
            raise InputError(same, "name another split for one")
        part, part_words = _select(evaluation, medium, expression, "validation_split", render)
        sets[name] = _whole(part, part_words, medium, data)
        told.append(part_words)
    training_sets = {} if selected is None else {UNNAMED: _whole(selected, words, medium, data)}
    return Corpus(training_sets, sets, source=words or "; ".join(dict.fromkeys(told)))


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
    files_by_set(data.validation_file or [])
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


def _evaluation_sources(data: DataSettings, medium: Medium, training: _Source | None) -> dict[str, _Source]:
    """The origins of the evaluation sets by name; empty where a share of the training data is to be held out."""
    settings = {UNNAMED: data}
    if data.validation_file is not None:
        sets = files_by_set(data.validation_file)
        settings = {name: replace(data, validation_file=files) for name, files in sets.items()}
        for one in settings.values() if training is not None else ():
            _refuse_training_files(one, medium)
    elif isinstance(data.eval_dataset, dict) and not isinstance(data.eval_dataset, datasets.DatasetDict):
        if not data.eval_dataset:
            raise InputError("eval_dataset is an empty dict", "eval_dataset={NAME: DATA}")
        check_names(data.eval_dataset)
        settings = {name: replace(data, eval_dataset=value) for name, value in data.eval_dataset.items()}
    found = {name: _source(one, medium, "validation_file", "eval_dataset") for name, one in settings.items()}
    sources = {name: source for name, source in found.items() if source is not None}
    if sources or data.validation_split is None:
        return sources
    # Where training data were not asked for, they are the ones that hold several splits.
    source = training or _source(data, medium, *_TRAINING)
    return {} if source is None else {UNNAMED: source}


def _source(data: DataSettings, medium: Medium, *names: str) -> _Source | None:
    """The data that the one of these settings names that somebody made."""
    for name in _given(data, *names):
        value = getattr(data, name)
        if name == "dataset_name":
            splits, documents = load_named(data, medium=medium.name)
            splits, column = made_of_columns(splits, data, value)
            return _Source(splits, documents, value, column)
        if name.endswith("_file"):
            files = _files(data, name, medium)
            rows, column, documents = medium.files(files, data)
            return _Source({"train": rows}, documents, describe(files), column)
        splits = in_memory(value, name, medium)
        # A list has no columns, so names given for other data's columns do not apply to it.
        if isinstance(value, (list, tuple)):
            return _Source(splits, True, "in-memory data", None)
        splits, column = made_of_columns(splits, data, "in-memory data")
        return _Source(splits, True, "in-memory data", column)
    return None


def _files(data: DataSettings, flag: str, medium: Medium) -> list[Path]:
    return find_files(getattr(data, flag) or [], flag, None if medium is TEXT else medium.suffixes, data.format)


def _refuse_training_files(data: DataSettings, medium: Medium) -> None:
    """A file in both parts would make every score too good."""
    training = {file.resolve() for file in _files(data, "train_file", medium)}
    for file in _files(data, "validation_file", medium):
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


def _select(source: _Source, medium: Medium, expression: str, flag: str, render: Render | None) -> tuple[Split, str]:
    """The rows that a split expression selects, not yet looked at, and words for them."""
    words = source.words if expression == "train" else f"{source.words}, {expression}"
    rows, begins = without_begins(take(source.splits, expression, flag, source.words))
    rows, column = medium.select(rows, source.column, source.words)
    rows = rows if render is None else render(rows, column[0], source.words)
    return Split(rows, column, source.documents, begins=begins), words


def _whole(split: Split, words: str, medium: Medium, data: DataSettings) -> Split:
    """All rows that hold something wanted, and the line breaks between lines of text."""
    split, filled, wanted = _looked_at(split, words, medium, data)
    return _part(split, np.ones_like(filled), filled, wanted)


def _divided(split: Split, words: str, medium: Medium, data: DataSettings) -> tuple[Split, Split]:
    """The training part and the part held out, both in the order of the data."""
    split, filled, wanted = _looked_at(split, words, medium, data)
    # What run_mlm.py and run_clm.py hold out when nobody says how much: 5 %.
    share = 0.05 if data.validation_split_percentage is None else data.validation_split_percentage / 100
    share = share if data.test_size is None else data.test_size
    # Blank documents are nobody's, and must not use up the share of those that are held out.
    chosen = held_out(wanted, documents=split.documents, share=share, seed=data.split_seed, medium=medium.name)
    return _part(split, ~chosen, filled, wanted), _part(replace(split, dropped={}), chosen, filled, wanted)


def _looked_at(split: Split, words: str, medium: Medium, data: DataSettings) -> tuple[Split, Flags, Flags]:
    """The split with what is left out of it counted; whether each row holds something, and whether it is wanted."""
    filled = medium.filled(split.rows, split.column, words)
    if medium is not TEXT:
        return split, filled, filled
    among, dropped = filtered(replace(split, chosen=np.packbits(filled)), data)
    wanted = filled.copy()
    wanted[filled] = among
    if not wanted.any():
        told = ", ".join(f"{count:,} by --{name}" for name, count in dropped.items())
        raise InputError(f"nothing of {words} is left: {told}", "ask for less")
    return replace(split, dropped=dropped), filled, wanted


def _part(split: Split, part: Flags, filled: Flags, wanted: Flags) -> Split:
    keep = part & wanted if split.documents else part
    chosen = None if keep.all() else np.packbits(keep)
    blank = int(np.count_nonzero(part & ~filled)) if split.documents else 0
    return replace(split, blank=blank, chosen=chosen)


def _no_data() -> InputError:
    return InputError("no data given", "--train_file FILE or --dataset_name ID")
