"""A model as it was saved, to be compared with the one in memory."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from lmtasks.api import resolve
from lmtasks.config.request import Request
from lmtasks.models.architectures import adapted
from lmtasks.models.checkpoint import loaded_like
from lmtasks.models.companions import prepare, require_companions


def saved_model(model: PreTrainedModel, request: Request, folder: Path) -> PreTrainedModel:
    """The model as it lies in a folder, with what the recipe puts beside it, in the numbers of the one in memory.

    Raises:
        InputError: what belongs beside it was not saved.
    """
    recipe = request.recipe
    saved = adapted(loaded_like(model, request.model, resolve(recipe.model_class), str(folder)), recipe)
    prepare(saved, recipe, request.options, request.seed)
    require_companions(saved, recipe, str(folder), "let its save write what its load reads")
    return saved
