"""Where the data of a run come from: the files, datasets and lists that the settings name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import datasets

from lmtasks.api import Medium
from lmtasks.config.evaluation_sets import UNNAMED, check_names, files_by_set
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus.find import find_files
from lmtasks.data.corpus.hub_dataset import load_named
from lmtasks.data.corpus.medium import TEXT
from lmtasks.data.corpus.memory import SEVERAL, in_memory
from lmtasks.data.corpus.read import describe
from lmtasks.data.corpus.selection import made_of_columns
from lmtasks.data.sample import SAMPLES, sample_documents
from lmtasks.errors import InputError

_TRAINING = ("dataset_name", "train_file", "train_dataset")
EVALUATION = ("validation_split", "validation_file", "eval_dataset")

_EXCLUSIVE = (
    ("validation_file", "eval_dataset"),
    ("test_size", "validation_split_percentage"),
    ("text_column", "text_template"),
)
"""Settings that say one thing in two ways."""

_OF_TEXT = {
    **dict.fromkeys(("text_template", "format", "encoding", "csv_separator", "csv_quoting", "csv_header")),
    **dict.fromkeys(("min_chars", "max_chars", "filter")),
    **dict.fromkeys(("chat", "drop_duplicates", "overwrite_cache", "split_special_tokens"), False),
    "sample_by": "line",
    "preprocessing_num_workers": 1,
}
"""Settings that mean nothing for another medium, and their values when nobody has set them."""


@dataclass(frozen=True)
class Origin:
    """Splits of one origin, not yet looked into.

    Args:
        documents: whether each row is a document.
        words: short words for people.
        column: of the documents, where it is known.
        files: that the rows are from, where somebody named files.
    """

    splits: Mapping[str, datasets.Dataset]
    documents: bool
    words: str
    column: str | None
    files: Sequence[Path] = ()


def check(data: DataSettings, medium: Medium, sample: str | None) -> None:
    """Refuse contradictions before anything is loaded."""
    for name, usual in _OF_TEXT.items():
        if medium is not TEXT and getattr(data, name) != usual:
            raise InputError(f"--{name} is about text, and this is about {medium.name}", f"leave --{name} out")
    for names in (_TRAINING, *_EXCLUSIVE):
        if len(several := given(data, *names)) > 1:
            raise InputError(f"{' and '.join(f'--{name}' for name in several)} exclude each other", "give one of them")
    if data.dataset_name is None:
        for name in given(data, "dataset_config_name", "dataset_revision"):
            raise InputError(f"--{name} needs --dataset_name", f"add --dataset_name, or leave --{name} out")
    if data.validation_split is not None and not _has_splits(data):
        raise InputError(
            f"--validation_split {data.validation_split} needs data with named splits",
            "use it with --dataset_name, or a DatasetDict; for files there is --validation_file",
        )
    if data.validation_split is not None and data.validation_file is not None:
        raise InputError("--validation_split and --validation_file both name the evaluation data", "give one of them")
    files_by_set(data.validation_file or [])
    if sample is None and not given(data, *_TRAINING, *EVALUATION):
        raise no_data()


def given(data: DataSettings, *names: str) -> list[str]:
    """The names of those settings that somebody made."""
    return [name for name in names if getattr(data, name) is not None]


def _has_splits(data: DataSettings) -> bool:
    if data.eval_dataset is not None:
        return isinstance(data.eval_dataset, SEVERAL)
    return data.dataset_name is not None or isinstance(data.train_dataset, SEVERAL)


def training_origin(data: DataSettings, medium: Medium, sample: str | None) -> Origin | None:
    """What is trained on, or divided: what the settings name, or the sample where they name nothing."""
    source = _origin(data, medium, *_TRAINING)
    if source is not None or sample is None or given(data, *EVALUATION):
        return source
    return Origin(in_memory(sample_documents(sample), "sample", TEXT), True, SAMPLES[sample], None)


def evaluation_origins(data: DataSettings, medium: Medium, training: Origin | None) -> dict[str, Origin]:
    """The origins of the evaluation sets by name; empty where a share of the training data is to be held out."""
    settings = {UNNAMED: data}
    if data.validation_file is not None:
        sets = files_by_set(data.validation_file)
        settings = {name: replace(data, validation_file=files) for name, files in sets.items()}
    elif isinstance(data.eval_dataset, dict) and not isinstance(data.eval_dataset, SEVERAL):
        if not data.eval_dataset:
            raise InputError("eval_dataset is an empty dict", "eval_dataset={NAME: DATA}")
        check_names(data.eval_dataset)
        settings = {name: replace(data, eval_dataset=value) for name, value in data.eval_dataset.items()}
    trained = () if training is None else training.files
    found = {
        name: _origin(one, medium, "validation_file", "eval_dataset", trained=trained) for name, one in settings.items()
    }
    sources = {name: source for name, source in found.items() if source is not None}
    if sources or data.validation_split is None:
        return sources
    # Where training data were not asked for, they are the ones that hold several splits.
    source = training or _origin(data, medium, *_TRAINING)
    return {} if source is None else {UNNAMED: source}


def _origin(data: DataSettings, medium: Medium, *names: str, trained: Sequence[Path] = ()) -> Origin | None:
    """The data that the one of these settings names that somebody made; not of the files that are trained on."""
    for name in given(data, *names):
        value = getattr(data, name)
        if name == "dataset_name":
            splits, documents = load_named(data, medium=medium.name)
            splits, column = made_of_columns(splits, data, value)
            return Origin(splits, documents, value, column)
        if name.endswith("_file"):
            files = find_files(value, name, None if medium is TEXT else medium.suffixes, data.format)
            _refuse_trained(files, trained)
            rows, column, documents = medium.files(files, data)
            return Origin({"train": rows}, documents, describe(files), column, files)
        splits = in_memory(value, name, medium)
        # A list has no columns, so names given for other data's columns do not apply to it.
        if isinstance(value, (list, tuple)):
            return Origin(splits, True, "in-memory data", None)
        splits, column = made_of_columns(splits, data, "in-memory data")
        return Origin(splits, True, "in-memory data", column)
    return None


def _refuse_trained(files: Sequence[Path], trained: Sequence[Path]) -> None:
    """A file in both parts would make every score too good."""
    training = {file.resolve() for file in trained}
    for file in files:
        if file.resolve() in training:
            raise InputError(
                f"{file} is given for both training and evaluation",
                "leave --validation_file out to hold out a part of the training data",
            )


def evaluation_split(data: DataSettings, source: Origin) -> str:
    """The expression of the split of an origin that is evaluated."""
    if data.validation_split is not None:
        return data.validation_split
    if len(source.splits) == 1:
        return next(iter(source.splits))
    raise InputError(f"eval_dataset has several splits: {', '.join(source.splits)}", "--validation_split NAME")


def no_data() -> InputError:
    """The error of settings that name nothing."""
    return InputError("no data given", "--train_file FILE or --dataset_name ID")
