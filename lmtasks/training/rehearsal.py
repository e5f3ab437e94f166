"""A rehearsal of training: what cannot be built is refused while nothing is written."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, send_to_device
from torch.nn.utils import get_total_norm
from transformers import PreTrainedModel

from lmtasks.api import Batch, Collate, Recipe, has_targets, weighted_sum
from lmtasks.config.training_arguments import refused
from lmtasks.data.dataset import ExampleDataset
from lmtasks.errors import InputError, PluginError, first_line
from lmtasks.models.adapters import has_adapter
from lmtasks.models.architectures import with_gradients
from lmtasks.models.companions import companions
from lmtasks.training.trainer import RecipeTrainer
from lmtasks.training.training import Training


@contextmanager
def elsewhere(training: Training) -> Iterator[Training]:
    """The training as it would begin, in a folder that is gone afterwards: nothing of a run is written meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = copy.copy(training.arguments)
        arguments.output_dir = folder
        yield replace(training, arguments=arguments, log=Path(folder, "log"), checkpoint=None, callbacks=())


def rehearse(training: Training, options: Any = None) -> None:
    """Build once all that the arguments ask of the Trainer.

    Raises:
        InputError: a package that an argument needs is missing, a value is out of range, the recipe's
            loss would train without the label smoothing that was asked for, or its batches cannot be
            shared by several processes.
    """
    model, recipe, arguments = training.model, training.recipe, training.arguments
    dataset, collate = training.train_dataset, training.collates[0]
    if arguments.world_size > 1 and not arguments.dataloader_drop_last:
        _require_rows(recipe, dataset, collate)
    if arguments.label_smoothing_factor:
        _require_smoothing(model, recipe, dataset, collate)
    try:
        trainer = RecipeTrainer(model, arguments, collate, dataset, dataset, recipe=recipe, eval_collate=collate)
        trainer.create_optimizer_and_scheduler(training.steps)
        trainer.get_train_dataloader()
        _require_shards(trainer)
    except (ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        raise refused(error) from error


def _require_shards(trainer: RecipeTrainer) -> None:
    """See that a model is divided among processes where that was asked for; accelerate says nothing where it is not."""
    if trainer.args.fsdp and trainer.accelerator.distributed_type != DistributedType.FSDP:
        raise InputError(
            f"--fsdp does nothing here: on {trainer.args.device.type} every process would have the whole model",
            "use GPUs, or leave --fsdp out",
        )
    if trainer.args.fsdp and (companions(trainer.model) or has_adapter(trainer.model)):
        what = "an adapter" if has_adapter(trainer.model) else "what stands beside a model"
        raise InputError(f"--fsdp does not divide {what} yet", "leave --fsdp out")


def _require_rows(recipe: Recipe, dataset: ExampleDataset, collate: Collate) -> None:
    """See that examples can be taken out of a batch, as several processes must at the end of an epoch."""
    batch = collate([dataset[0]] * 2)
    for name, value in batch.items():
        if torch.is_tensor(value) and (not value.ndim or len(value) != 2):
            raise InputError(
                f"{recipe.name} cannot train in several processes:"
                f" '{name}' in its batches is not a row for each example",
                "train in one process, or leave out the end of an epoch with --dataloader_drop_last",
            )


def _require_smoothing(model: PreTrainedModel, recipe: Recipe, dataset: ExampleDataset, collate: Collate) -> None:
    """See the gradient of one example change when its labels are smoothed, and leave no trace."""
    batches = (collate([dataset[number]]) for number in dataset.examples.longest_first())
    batch = next((batch for batch in batches if has_targets(recipe.targets(batch))), None)
    if batch is None:
        return  # nothing to learn, smoothed or not
    plain = _gradient(model, recipe, batch)
    advice = "leave --label_smoothing_factor out"
    try:
        # Strong, whatever factor was asked for: a slight change could drown in rounding.
        smoothed = _gradient(model, recipe, {**batch, "label_smoothing": 0.5})
    except (TypeError, ValueError, KeyError, AttributeError, PluginError) as error:
        raise InputError(
            f"{recipe.name} cannot train with --label_smoothing_factor: {first_line(error)}", advice
        ) from error
    change = get_total_norm([one - other for one, other in zip(plain, smoothed, strict=True)])
    if change <= 1e-4 * get_total_norm(plain):
        raise InputError(f"{recipe.name} takes no notice of --label_smoothing_factor", advice)


def _gradient(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> list[torch.Tensor]:
    """The gradient of the loss for each parameter that is trained, in float32, without dropout.

    The parameters' own gradients, the model's mode and the random state are left as they are.
    """
    inputs = send_to_device(batch, next(model.parameters()).device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with with_gradients(model), torch.random.fork_rng(devices=[]), torch.enable_grad():
        total = weighted_sum(recipe.loss(model, inputs))
        gradients = torch.autograd.grad(total, trained, allow_unused=True, materialize_grads=True)
    return [part.float() for part in gradients]
