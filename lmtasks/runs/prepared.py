"""A run that is prepared: loaded and checked, and nothing of it written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from lmtasks.api import EVALUATION_SEED, Collate, Engine
from lmtasks.artifacts.run_folder import LOG
from lmtasks.config.request import Request
from lmtasks.data.dataset import ExampleDataset
from lmtasks.models.frozen_weights import frozen_digests
from lmtasks.runs.load import Data
from lmtasks.runs.place import Place
from lmtasks.runs.plan import Plan
from lmtasks.training.training import Training


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, checked; nothing has been written.

    Args:
        data: the request, with what had to be fitted, and its examples.
        callbacks: those of extensions, trackers, and what answers prompts.
    """

    data: Data
    place: Place
    model: PreTrainedModel
    plan: Plan
    arguments: TrainingArguments
    engine: Engine
    callbacks: tuple[TrainerCallback, ...]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.place.folder

    @property
    def request(self) -> Request:
        """The request as it is carried out."""
        return self.data.request

    @cached_property
    def frozen(self) -> dict[str, str]:
        """Digests of the weights that do not learn, by what has them."""
        return frozen_digests(self.model)

    @property
    def processor(self) -> Any:
        """The processing class; for text a tokenizer."""
        return self.data.processor

    @property
    def train_dataset(self) -> ExampleDataset:
        """The examples to train on."""
        assert self.data.encoded.train is not None  # a run has training data
        return ExampleDataset(self.data.encoded.train, self.request.seed, training=True)

    @property
    def eval_dataset(self) -> dict[str, ExampleDataset] | ExampleDataset:
        """The examples held out, by set where sets have names, with the masks that every run has."""
        sets = self.data.encoded.evaluations
        made = {name: ExampleDataset(examples, EVALUATION_SEED) for name, examples in sets.items()}
        return made if any(made) else next(iter(made.values()))

    @property
    def collators(self) -> tuple[Collate, Collate]:
        """The recipe's collators for training and for evaluation."""
        collator, options = self.request.recipe.collator, self.request.options
        return collator(self.processor, options, True), collator(self.processor, options, False)

    @property
    def training(self) -> Training:
        """The training from its first step on, without what makes checkpoints."""
        request, before_step = self.request, self.request.recipe.before_step
        return Training(
            model=self.model,
            recipe=request.bound,
            arguments=self.arguments,
            train_dataset=self.train_dataset,
            eval_dataset=self.eval_dataset,
            collates=self.collators,
            log=self.folder / LOG,
            callbacks=self.callbacks,
            before_step=partial(before_step, self.model, request.options) if before_step else None,
        )
