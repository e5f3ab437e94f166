"""Texts as batches for Keras, as ``prepare_tf_dataset`` gave them: lmtasks' collator, masks anew in every epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import torch

from lmtasks import EVALUATION_SEED, InputError
from lmtasks.api import Examples
from lmtasks.artifacts.run_folder import read_record
from lmtasks.config.request import configure, recorded_values
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import TEXT, load_sources
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.examples import chat_renderer, encode_corpus
from lmtasks.runs.load_data import Data, load_data
from lmtasks_keras.batches import Constant
from lmtasks_keras.task import ABOUT_MODELS, Task, require_meant, task_of

if TYPE_CHECKING:
    from lmtasks_keras.model_of import TransformersModel


def dataset(
    run_or_texts: Any,
    recipe: str | TransformersModel | None = None,
    *,
    training: bool = True,
    shuffle: bool | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    **values: Any,
) -> LanguageDataset:
    """Batches of a run's own text, or of other texts, as a recipe makes them.

    Args:
        run_or_texts: folder of a run; or what ``lmtasks.run`` takes as ``train_dataset``: strings, a ``Dataset``, a
            data frame.
        recipe: the Keras model that they are for; or the name of a recipe, with ``model_name_or_path=`` among the
            values. That of the run when not given.
        training: whether they are trained on: in an order drawn anew for each epoch, with masks drawn anew. Otherwise
            they are in their own order, with the masks that every evaluation has; of a run, the text that it held out.
        shuffle: whether the order is drawn anew, where ``training`` should not say it.
        seed: of order and masks, as that of a run; that of the model when not given.
        batch_size: as for :func:`lmtasks_keras.model`; that of the model when not given.
        values: what ``lmtasks.run`` takes about data, such as ``text_column``; without a model, about that and the
            recipe as well.

    Raises:
        InputError: no text, or nothing in it to learn.
    """
    run = run_or_texts if isinstance(run_or_texts, str | Path) else None
    about = () if run else ("data",)  # a run has read its text, in its own way
    if recipe is None or isinstance(recipe, str):
        folder = values.pop("model_name_or_path", None) or values.pop("model", None) or run
        task = task_of(folder, recipe, batch_size, values, (*ABOUT_MODELS, *about))
        settings = task.request.data
    else:
        task = recipe.task if batch_size is None else replace(recipe.task, batch_size=batch_size)
        settings = _settings(task, values, about)
    data = _data_of_run(str(run), task) if run else _data_of_texts(run_or_texts, task, settings)
    drawn = training if shuffle is None else shuffle
    return LanguageDataset(task, data, training, drawn, task.request.seed if seed is None else seed)


class LanguageDataset(keras.utils.PyDataset):
    """Batches of one shape; what fills up the last one has no targets. :func:`dataset` makes one.

    Args:
        data: the examples, those of training where it has such.
        shuffle: whether each epoch has an order of its own, the one that a run with the seed has.
    """

    def __init__(self, task: Task, data: Data, training: bool, shuffle: bool, seed: int) -> None:
        super().__init__()
        self.task, self.data, self.training, self.shuffle, self.seed = task, data, training, shuffle, seed
        trained = data.encoded.train if training else None
        self.examples: Examples = data.encoded.evaluation if trained is None else trained
        self._drawn = ExampleDataset(self.examples, seed if training else EVALUATION_SEED, training=training)
        self._collate = task.collate(training)
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Order and masks from here on are those of this epoch; ``fit`` sees to it."""
        numbers = range(len(self.examples))
        if self.shuffle and not self._drawn.ordered:  # prepared examples have an order by themselves
            generator = torch.Generator().manual_seed(self.seed + epoch)  # as the Trainer's sampler
            numbers = torch.randperm(len(self.examples), generator=generator).tolist()
        self._order: Sequence[int] = numbers
        if self.training:
            self._drawn.start_epoch(epoch)

    def __len__(self) -> int:
        """The number of batches."""
        return math.ceil(len(self.examples) / self.task.batch_size)

    def __getitem__(self, index: int) -> tuple[Constant]:
        """The inputs of a batch, all of them in the first place: Keras wants no targets beside them."""
        if not 0 <= index < len(self):  # who goes through a sequence goes on until this
            raise IndexError(index)
        first = index * self.task.batch_size
        numbers = self._order[first : first + self.task.batch_size]
        return (self.task.constant(self._collate([self._drawn[number] for number in numbers])),)

    def require_for(self, task: Task) -> None:
        """Refuse a model whose batches are others.

        Raises:
            InputError: says in what they differ.
        """
        ours, theirs = self.task, task
        if ours.recipe.name != theirs.recipe.name or ours.request.options != theirs.request.options:
            raise InputError(
                f"the model is for {theirs.recipe.name} with other options than the data",
                "lmtasks_keras.dataset(TEXTS, model)",
            )
        if ours.batch_size != theirs.batch_size:
            raise InputError(
                f"the model takes batches of {theirs.batch_size} examples, the data of {ours.batch_size}",
                f"batch_size={ours.batch_size} for the model, which is compiled for one shape",
            )


def _settings(task: Task, values: Any, about: Sequence[str]) -> DataSettings:
    """What is said about data for a model, whose own values they cannot change.

    Raises:
        InputError: unknown names, or such as are not about data.
    """
    which = task.request.model.model_name_or_path or task.config.model_type  # any, lest the recipe's own be asked for
    request = configure(task.request.recipe, {"train_dataset": (), "model_name_or_path": which, **values})
    require_meant(request, about, ("train_dataset", "model_name_or_path"))
    return request.data


def _data_of_texts(texts: Any, task: Task, settings: DataSettings) -> Data:
    """Texts in memory, all of them."""
    request = replace(task.request, data=replace(settings, train_dataset=None, eval_dataset=texts), sample=None)
    medium, render = task.recipe.medium or TEXT, chat_renderer(request, task.processor)
    corpus = load_sources(request.data, medium=medium, evaluation_only=True, render=render)
    encoded = encode_corpus(request, corpus, task.processor, task.config)
    return Data(request, task.config, task.processor, corpus, encoded, task.added, ())


def _data_of_run(run: str, task: Task) -> Data:
    """The text that a run was trained on, and the one that it held out."""
    record = read_record(run)
    if record is None:
        raise InputError(
            f"'{run}' is not the folder of a run: it has no run.json", "give texts, or the folder of a run"
        )
    request = configure(task.request.recipe, {"model_name_or_path": run}, recorded_values(record, {}))
    sample = (record.get("data") or {}).get("sample")
    data = load_data(replace(request, options=task.request.options, sample=sample), training=True)
    for name, examples in (("train", data.encoded.train), ("evaluation", data.encoded.evaluation)):
        if examples.fingerprint != record["data"][name].get("fingerprint"):
            raise InputError(f"the text of the run in '{run}' is no longer there as it was", "give texts")
    return data
