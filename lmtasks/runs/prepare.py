"""Preparation: everything that a run needs, loaded and checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainingArguments

from lmtasks.api import EVALUATION_SEED, Collate, Engine
from lmtasks.artifacts.publish import check_can_push, require_shared_base
from lmtasks.artifacts.run_folder import LOG, require_space
from lmtasks.config.request import Request
from lmtasks.data.dataset import ExampleDataset
from lmtasks.registry.catalog import engine_of
from lmtasks.runs.arguments import fitted
from lmtasks.runs.going_on import notes_on, require_same_data, require_steps_left
from lmtasks.runs.load import Data, load
from lmtasks.runs.place import Place, place_of
from lmtasks.runs.plan import Plan, plan_of
from lmtasks.training.extensions import arguments_for, callbacks_of, trackers_of
from lmtasks.training.rehearsal import elsewhere
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


def prepare(request: Request, place: Place | None = None) -> Prepared:
    """Load and check everything that the run needs, in a place that was found for it.

    Raises:
        InputError: something does not fit; nothing was written.
    """
    engine = engine_of(request)
    place = place or place_of(request)
    folder, start = place.folder, place.start
    if request.output.push_to_hub:
        check_can_push(request.output.hub_model_id or folder.name)
    request = replace(request, training={**request.training, **place.batch.as_training()})
    loaded = fitted(load(request, training=True, check_data=lambda data: require_same_data(data, place)))
    model, request = loaded.model, loaded.data.request
    # A checkpoint has the weights and the two moments of Adam, the run once more the weights.
    require_space(folder, 4 * sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad))
    plan = plan_of(request, folder, loaded)
    require_steps_left(start, plan)
    if plan.adapter and request.output.push_to_hub:
        require_shared_base(plan.base_model)
    arguments = arguments_for(request, folder, plan.steps)
    plan = replace(plan, notes=(*plan.notes, *notes_on(request, start, plan, arguments)))
    callbacks = (*callbacks_of(request), *trackers_of(request, arguments))
    prepared = Prepared(loaded.data, place, model, plan, arguments, engine, callbacks)
    with elsewhere(prepared.training) as rehearsed:
        engine.check(rehearsed, request.engine_options)
    return prepared
