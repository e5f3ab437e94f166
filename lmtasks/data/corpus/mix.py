"""The corpus of a run: of one origin, or of the sources of a mix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lmtasks.api import Medium
from lmtasks.config.mix import read_mix
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus.load import Corpus, Render, load_corpus
from lmtasks.data.corpus.medium import TEXT
from lmtasks.data.corpus.split import Split
from lmtasks.errors import InputError

_ELSEWHERE = (
    *("dataset_name", "dataset_config_name", "dataset_revision", "train_file", "train_dataset"),
    *("validation_split", "validation_file", "eval_dataset"),
)
"""Settings that say what the data are, and so belong to a source."""

_OWN = "train_file, dataset_name, validation_file, ..."


def load_sources(
    data: DataSettings,
    *,
    medium: Medium = TEXT,
    sample: str | None = None,
    evaluation_only: bool = False,
    render: Render | None = None,
) -> Corpus:
    """As :func:`lmtasks.data.corpus.load_corpus`, also for a mix: each source by itself, under its name.

    Of a source a share is held out, or else it has evaluation data of its own. What the settings say of how data are
    read and held out holds for the sources that do not say it themselves. Sources of weight 0 are evaluated only.

    Raises:
        InputError: names the source.
    """
    if data.data is None:
        return load_corpus(data, medium=medium, sample=sample, evaluation_only=evaluation_only, render=render)
    given = [name for name in _ELSEWHERE if getattr(data, name) is not None]
    if given or data.train_split != "train":
        name = given[0] if given else "train_split"
        raise InputError(f"--data and --{name} exclude each other", f"each source of the mix has its own: {_OWN}")
    training: dict[str, Split] = {}
    evaluations: dict[str, Split] = {}
    told = []
    for source in read_mix(data.data)["sources"]:
        name = source["name"]
        try:
            settings = _settings(data, source)
            corpus = load_corpus(settings, medium=medium, evaluation_only=evaluation_only, render=render)
            if any(corpus.evaluations):
                several = "validation_file names sets, and a source has one, called after it"
                raise InputError(several, "leave the names out")
        except InputError as error:
            raise InputError(f"source '{name}' of --data: {error.message}", error.hint) from error
        if corpus.train is not None and source["weight"]:
            training[name] = corpus.train
        evaluations[name] = corpus.evaluation
        told.append(f"{name} ({corpus.source})")
    return Corpus(training, evaluations, " + ".join(told))


def _settings(data: DataSettings, source: dict[str, Any]) -> DataSettings:
    own = {key: value for key, value in source.items() if key not in ("name", "weight")}
    base = replace(data, data=None)
    if own.keys() & {"test_size", "validation_split_percentage", "validation_file", "validation_split"}:
        base = replace(base, test_size=None, validation_split_percentage=None)
    return replace(base, **own)
