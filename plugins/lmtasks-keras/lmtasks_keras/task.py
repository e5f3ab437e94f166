"""What a Keras model and its data agree on: a recipe with its options, and what makes the model's inputs of text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PretrainedConfig

from lmtasks import Blocks, InputError, Recipe, load_catalog, register_architectures
from lmtasks.api import EVALUATION_SEED, Batch, Collate, Example
from lmtasks.artifacts.run_folder import read_record
from lmtasks.config.request import Request, configure, groups_of, recorded_values
from lmtasks.data.examples import layout_of
from lmtasks.inference.fitting_recipe import recipe_of
from lmtasks.models.adapters import base_of
from lmtasks.models.added_tokens import AddedTokens
from lmtasks.models.config import load_config
from lmtasks.models.processor import load_processor
from lmtasks.runs.load_data import fit_together
from lmtasks_keras.batches import Constant, Shapes, constant, shapes_of

BATCH_SIZE = 8
"""Examples of a batch where nobody says; transformers' own default."""


@dataclass(frozen=True)
class Task:
    """A recipe with its options, the configuration of a model, and what makes its inputs.

    Args:
        request: has no data.
        batch_size: examples of every batch, in training and in evaluation.
        added: tokens that the user added to the vocabulary.
    """

    request: Request
    config: PretrainedConfig
    processor: Any
    batch_size: int
    added: AddedTokens

    def __post_init__(self) -> None:
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise InputError(f"batch_size cannot be {self.batch_size!r}", "a whole number, 1 or more")

    @property
    def recipe(self) -> Recipe:
        """The recipe, whose loss is called with model and batch."""
        return self.request.bound

    @property
    def length(self) -> int:
        """Tokens of every example."""
        return int(self.request.options.block_size)

    def collate(self, training: bool) -> Collate:
        """The recipe's collator."""
        return self.recipe.collator(self.processor, self.request.options, training)

    @cached_property
    def sample(self) -> Batch:
        """A batch of a whole block and a shorter one, as the recipe collates it for training."""
        longest, other = self._drawn(2)
        shortest = {**other, **{name: other[name][: self.length // 2] for name in other if name != "seed"}}
        return self.collate(True)([longest, shortest])

    @cached_property
    def shapes(self) -> Shapes:
        """The names and the shapes that every batch has."""
        return shapes_of(self.sample, self.batch_size)

    def constant(self, batch: Batch) -> Constant:
        """A batch in these shapes."""
        return constant(batch, self.shapes, getattr(self.processor, "pad_token_id", None) or 0)

    @cached_property
    def example(self) -> Constant:
        """A batch of tokens drawn from the vocabulary, as the recipe collates it for evaluation."""
        return self.constant(self.collate(False)(self._drawn(self.batch_size)))

    def _drawn(self, count: int) -> list[Example]:
        """Examples of tokens drawn from the vocabulary, in as many documents as can be; always the same."""
        drawn = np.random.default_rng(EVALUATION_SEED).integers(0, len(self.processor), (count, self.length))
        blocks = layout_of(self.request, self.processor)
        assert isinstance(blocks, Blocks)  # no other task is made
        known: dict[str, Any] = {"document_ids": np.arange(self.length)} if blocks.isolate else {}
        known |= {"word_starts": np.ones(self.length, dtype=bool)} if blocks.words else {}
        rows = enumerate(drawn.astype(np.int32))
        return [{"input_ids": row, "seed": (EVALUATION_SEED, 0, number), **known} for number, row in rows]


ABOUT_MODELS = ("options", "model", "adapter")
"""The groups of values, as a request has them, that are about a model and its recipe; adapters are refused by name."""


def task_of(
    folder_or_run: str | Path | None,
    recipe: str | None,
    batch_size: int | None,
    values: Any,
    about: Sequence[str] = ABOUT_MODELS,
) -> Task:
    """The task of a run, or of any model and the recipe that was named or that fits it.

    Args:
        values: what :func:`lmtasks.run` takes about model and recipe, by name.
        about: the groups of values that mean something here.

    Raises:
        InputError: no such model or recipe, or something that does not go together.
    """
    catalog = load_catalog()
    register_architectures(catalog)
    name = None if folder_or_run is None else str(folder_or_run)
    if name is None and recipe is None:
        raise InputError("neither a model nor a recipe is named", 'lmtasks_keras.model("FOLDER")')
    record = (read_record(name) if name else None) or {}
    chosen = catalog.watched(recipe_of(str(name), catalog, recipe, values.get("revision", "main")))
    other_data = {"train_dataset": ()}  # those of the run are for `dataset`
    recorded = recorded_values(record, other_data)
    request = configure(chosen, {"model_name_or_path": name, **values}, recorded)
    require_meant(request, about, {*recorded, "model_name_or_path", "seed"})
    _require_plain(request)
    config = load_config(request.model, chosen)
    processor = load_processor(request, config)
    if not isinstance(layout_of(request, processor), Blocks):
        hint = f"lmtasks run {chosen.name} --engine keras"
        raise InputError(f"{chosen.name} is not about blocks of text, and only such become a Keras model", hint)
    request, config, added, _ = fit_together(request, config, processor, lambda config: None)
    if batch_size is None:
        batch_size = (record.get("training") or {}).get("per_device_train_batch_size") or BATCH_SIZE
    return Task(request, config, processor, batch_size, added)


def require_meant(request: Request, about: Sequence[str], known: Collection[str]) -> None:
    """Refuse values that a run would go by, and that change nothing here.

    Args:
        about: the groups of values that mean something.
        known: names of further ones.

    Raises:
        InputError: says where the value belongs.
    """
    groups = groups_of(request.recipe)
    meant = {name for group in about for name in groups[group]}
    for name in sorted(request.given - meant - {*known}):
        if name in groups["data"]:
            hint = f"lmtasks_keras.dataset(TEXTS, model, {name}=...)"
        elif any(name in groups[group] for group in ABOUT_MODELS):
            hint = f"lmtasks_keras.model(FOLDER, {name}=...)"
        elif "batch_size" in name:
            hint = "batch_size=N of lmtasks_keras.model"
        else:
            hint = "compile(optimizer=...) and fit(epochs=..., callbacks=...) say how Keras trains"
        raise InputError(f"{name} means nothing here", hint)


def _require_plain(request: Request) -> None:
    """Refuse what only a run does for a model."""
    name, recipe = request.model.model_name_or_path, request.recipe
    if request.model.train_tokenizer:
        raise InputError("only a run trains a tokenizer", "name one: tokenizer_name=FOLDER")
    if request.adapter.use_peft or (name and base_of(name, request.model.revision)):
        raise InputError("Keras trains whole models, and no adapters", "lmtasks merge RUN OUT makes one of both")
    if recipe.before_step:
        hint = f"lmtasks run {recipe.name}"
        raise InputError(f"{recipe.name} changes its model before each step, which Keras would not see", hint)
    if request.model.dtype != "float32" or request.model.bits:
        raise InputError("Keras trains in float32", "leave dtype= and load_in_8bit= or load_in_4bit= out")
