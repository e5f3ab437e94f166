"""Saving of a trained model, and the proof that the saved one is it."""

from __future__ import annotations

import torch
from accelerate.utils import send_to_device
from transformers import PreTrainedModel

from lmtasks.api import resolve, weighted_sum
from lmtasks.artifacts.run_folder import save_into
from lmtasks.data.examples import one_example
from lmtasks.errors import RunError
from lmtasks.models.architectures import adapted
from lmtasks.models.checkpoint import pretrained
from lmtasks.models.companions import Whole, prepare, require_companions
from lmtasks.models.document_mask import isolate
from lmtasks.models.forward import in_mode
from lmtasks.models.numbers import loading, moved
from lmtasks.runs.prepare import Prepared
from lmtasks.training.evaluation import fixed_chance


def save_verified(model: PreTrainedModel, prepared: Prepared) -> list[str]:
    """Save the model, what stands beside it, and its processing class into the run folder; the names of the files.

    Raises:
        RunError: what was saved is not what was trained.
    """
    files = save_into(prepared.folder, Whole(model, prepared.request.recipe), prepared.processor)
    verify(model, prepared)
    return files


def verify(model: PreTrainedModel, prepared: Prepared) -> None:
    """Load the saved model and compare one batch: what was saved must be what was trained.

    Raises:
        RunError: it is not.
    """
    request = prepared.request
    batch = one_example(request, prepared.processor, prepared.data.encoded.evaluation, "held-out")
    how = {"trust_remote_code": request.model.trust_remote_code, **loading(request.model), "dtype": model.dtype}
    saved, _, _ = pretrained(resolve(request.recipe.model_class), str(prepared.folder), **how)
    saved = adapted(saved, request.recipe)
    prepare(saved, request.recipe, request.options, request.seed)
    require_companions(saved, request.recipe, str(prepared.folder), "let its save write what its load reads")
    if "document_ids" in batch:
        isolate(saved, request.recipe)
    device = next(model.parameters()).device
    batch, losses = send_to_device(batch, device), []
    for one in (model, moved(saved, device)):
        with in_mode(one), torch.no_grad(), fixed_chance():
            losses.append(weighted_sum(request.bound.loss(one, batch)).cpu().double())
    ours, theirs = losses
    # The same weights on the same device; a wrong one moves the loss of a model that knows little by very little.
    if not torch.isclose(ours, theirs, rtol=1e-5):
        raise RunError(
            f"the model saved in '{prepared.folder}' is not the one that was trained: loss {float(theirs):.4f}"
            f" instead of {float(ours):.4f} on one example",
            "do not use it; the last checkpoint in checkpoints/ may be good. Please report this",
        )
