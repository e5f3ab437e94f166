"""Everything that a training or an evaluation works on, loaded and checked in one order: cheap checks first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from transformers import PretrainedConfig, PreTrainedModel

from lmtasks.api import Batch, resolve
from lmtasks.config.request import Request
from lmtasks.models.checkpoint import load_model
from lmtasks.models.companions import accompany, require_named
from lmtasks.models.memory import copies_of, require_memory
from lmtasks.progress import say
from lmtasks.runs.checks import check_first_loss, check_model, first_example, run_head_alone
from lmtasks.runs.load_data import Data, load_data
from lmtasks.runs.unigram_bias import set_unigram_bias

__all__ = ["Data", "Loaded", "load", "load_data"]


@dataclass(frozen=True)
class Loaded:
    """Data, and the model that was found fit for them.

    Args:
        example: a batch of one example, the longest with a target.
    """

    data: Data
    model: PreTrainedModel
    example: Batch
    notes: tuple[str, ...]


def load(request: Request, *, training: bool, check_data: Callable[[Data], None] = lambda data: None) -> Loaded:
    """Configuration, processing class, corpus, examples and model, each checked before the next is loaded.

    Args:
        training: whether the model is to be trained; else there need be no training data.
        check_data: refuses data before the model is loaded.

    Raises:
        InputError: something is missing or does not fit; nothing was written.
    """
    require_named(request)

    def check_config(config: PretrainedConfig) -> None:
        require_memory(resolve(request.recipe.model_class), config, copies_of(request, training), request.model)

    data = load_data(request, training, check_config)
    check_data(data)
    request, recipe, evaluation = data.request, data.request.recipe, data.encoded.evaluation
    kind = "held-out" if training else "evaluation"
    example = first_example(request, data.processor, data.encoded.evaluations, kind)
    loaded = load_model(request.model, recipe, data.config, data.processor, request.seed, data.added, request.adapter)
    accompanied = accompany(loaded.model, request, training=training)
    check_model(request, data.processor, loaded.model, evaluation, example, training=training)
    notes = [*data.notes, *loaded.notes(), *accompanied]
    if training and not request.model.model_name_or_path:
        notes.append(check_first_loss(loaded.model, request.bound, example))
        assert data.encoded.train is not None  # a training has training data
        notes += set_unigram_bias(request, loaded.model, data.processor, data.encoded.train)
    notes += run_head_alone(request, loaded.model, evaluation, example)
    for note in notes if not training else ():  # of a run the plan tells them
        say(f"note       {note}")
    return Loaded(data, loaded.model, example, tuple(notes))
