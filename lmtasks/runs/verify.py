"""The proof that a saved model is the one that was trained."""

from __future__ import annotations

import torch
from accelerate.utils import send_to_device
from transformers import PreTrainedModel

from lmtasks.api import Batch, weighted_sum
from lmtasks.config.world import ALONE, World
from lmtasks.data.examples import one_example
from lmtasks.errors import RunError
from lmtasks.models.document_mask import isolate
from lmtasks.models.forward import in_mode, moved
from lmtasks.models.lm_head import whole
from lmtasks.models.saved import saved_model
from lmtasks.models.shards import is_sharded
from lmtasks.runs.prepared import Prepared
from lmtasks.training.evaluation import fixed_chance


def verify(model: PreTrainedModel, prepared: Prepared, world: World = ALONE) -> None:
    """Load the saved model and compare one batch: what was saved must be what was trained.

    Raises:
        RunError: it is not.
    """
    if not world.is_main:
        if is_sharded(model):
            _loss(model, prepared)
        return
    ours, theirs = _loss(model, prepared), _loss(_saved(model, prepared), prepared)
    # The same weights on the same device; a wrong one moves the loss of a model that knows little by very little.
    if not torch.isclose(ours, theirs, rtol=1e-5):
        raise RunError(
            f"the model saved in '{prepared.folder}' is not the one that was trained: loss {float(theirs):.4f}"
            f" instead of {float(ours):.4f} on one example",
            "do not use it; the last checkpoint in checkpoints/ may be good. Please report this",
        )


def _saved(model: PreTrainedModel, prepared: Prepared) -> PreTrainedModel:
    """The model as it was saved, on the device of the one that was trained."""
    saved = saved_model(model, prepared.request, prepared.folder)
    if "document_ids" in _batch(prepared):
        isolate(saved, prepared.request.recipe)
    return moved(saved, next(model.parameters()).device)


def _loss(model: PreTrainedModel, prepared: Prepared) -> torch.Tensor:
    """The loss on one held-out example; with the whole head, so that the two add up alike what they compute."""
    batch = send_to_device(_batch(prepared), next(model.parameters()).device)
    with in_mode(model), whole(model), torch.no_grad(), fixed_chance():
        return weighted_sum(prepared.request.bound.loss(model, batch)).cpu().double()


def _batch(prepared: Prepared) -> Batch:
    return one_example(prepared.request, prepared.processor, prepared.data.encoded.evaluation, "held-out")
