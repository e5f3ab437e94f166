"""Preparation: everything that a run needs, loaded and checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainingArguments

from lmtasks.api import EVALUATION_SEED, Collate
from lmtasks.artifacts.publish import check_can_push
from lmtasks.artifacts.run_folder import choose_folder, read_record, require_free, require_space, require_usable
from lmtasks.config.request import Request, fingerprint
from lmtasks.config.training_arguments import training_arguments
from lmtasks.config.world import ALONE, World
from lmtasks.data.dataset import ExampleDataset
from lmtasks.errors import InputError
from lmtasks.runs.arguments import fitted_arguments
from lmtasks.runs.load import Data, load
from lmtasks.runs.plan import Plan, plan_of
from lmtasks.training.rehearsal import rehearse


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, checked; nothing has been written.

    Args:
        data: the request, with what had to be fitted, and its examples.
        asked: fingerprint of the request as it came.
    """

    data: Data
    asked: str
    folder: Path
    model: PreTrainedModel
    plan: Plan
    arguments: TrainingArguments

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
        return ExampleDataset(self.data.encoded.train, self.request.seed)

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


def prepare(request: Request, world: World = ALONE) -> Prepared:
    """Load and check everything that the run needs.

    Raises:
        InputError: something does not fit; nothing was written.
    """
    asked = fingerprint(request)
    folder = _folder(request, asked, world)
    if request.output.push_to_hub:
        check_can_push(request.output.hub_model_id or folder.name)
    loaded = load(request, training=True, check_data=lambda data: _require_same_data(data, folder))
    model = loaded.model
    request = replace(loaded.data.request, training=fitted_arguments(loaded.data, model))
    # A checkpoint has the weights and the two moments of Adam, the run once more the weights.
    require_space(folder, 4 * sum(parameter.nbytes for parameter in model.parameters()))
    plan = plan_of(request, folder, loaded)
    arguments = training_arguments(request.training, folder, plan.steps)
    prepared = Prepared(replace(loaded.data, request=request), asked, folder, model, plan, arguments)
    rehearse(model, request.recipe, arguments, prepared.train_dataset, prepared.collators[0], plan.steps)
    return prepared


def _folder(request: Request, asked: str, world: World) -> Path:
    """The folder of the run. One process chooses for all: another would see what others have made meanwhile."""
    folder = choose_folder(request.recipe.name, request.output.output_dir)
    if world.is_main:
        require_free(folder)
        resume = request.training.get("resume_from_checkpoint")
        require_usable(folder, asked, overwrite=request.output.overwrite_output_dir, resume=resume)
    if world.size > 1:
        training_arguments(request.training, folder, 0)  # from then on the processes can talk
    return Path(world.broadcast(folder))


def _require_same_data(data: Data, folder: Path) -> None:
    """Refuse to resume on other data: the checkpoint knows how far it got in the old."""
    record = read_record(folder) if data.request.training.get("resume_from_checkpoint") else None
    train, medium = data.encoded.train, data.encoded.medium
    if record and train is not None and record["data"]["train"]["fingerprint"] != train.fingerprint:
        raise InputError(
            f"the training {medium} is not the one that the run in '{folder}' began with",
            f"bring the old {medium} back, or start again with --overwrite_output_dir",
        )
