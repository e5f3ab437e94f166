"""Saving of a trained model, wherever its weights lie."""

from __future__ import annotations

from transformers import PreTrainedModel

from lmtasks.artifacts.run_folder import save_into
from lmtasks.config.world import ALONE, World
from lmtasks.models.companions import Whole
from lmtasks.models.shards import whole_weights
from lmtasks.runs.prepared import Prepared
from lmtasks.runs.verify import verify


def save_verified(model: PreTrainedModel, prepared: Prepared, world: World = ALONE) -> list[str]:
    """Save the model, what stands beside it, and its processing class into the run folder; the names of the files.

    The main process does that; of a model whose parts lie in several, the others bring theirs.

    Raises:
        RunError: what was saved is not what was trained.
    """
    weights, files = whole_weights(model), []
    if world.is_main:
        whole = Whole(model, prepared.request.recipe, weights)
        files = save_into(prepared.folder, whole, prepared.processor)
    verify(model, prepared, world)
    return files
