"""The proof that the saved model is the one that was trained."""

from __future__ import annotations

import torch
from accelerate.utils import send_to_device
from transformers import PreTrainedModel

from lmtasks.api import resolve, weighted_sum
from lmtasks.data.examples import one_example
from lmtasks.errors import RunError
from lmtasks.models.architectures import adapted
from lmtasks.models.checkpoint import pretrained
from lmtasks.models.document_mask import isolate
from lmtasks.models.forward import in_mode
from lmtasks.runs.prepare import Prepared
from lmtasks.training.evaluation import fixed_chance


def verify(model: PreTrainedModel, prepared: Prepared) -> None:
    """Load the saved model and compare one batch: what was saved must be what was trained.

    Raises:
        RunError: it is not.
    """
    request = prepared.request
    batch = one_example(request, prepared.processor, prepared.data.encoded.evaluation, "held-out")
    how = {"trust_remote_code": request.model.trust_remote_code, "dtype": model.dtype}
    saved, _, _ = pretrained(resolve(request.recipe.model_class), str(prepared.folder), **how)
    saved = adapted(saved, request.recipe)
    if "document_ids" in batch:
        isolate(saved, request.recipe)
    device = next(model.parameters()).device
    batch, losses = send_to_device(batch, device), []
    for one in (model, saved.to(device)):
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
