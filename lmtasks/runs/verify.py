"""What a run leaves behind beside its model: the record, the results, and the proof that the model is right."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from lmtasks.api import EVALUATION_SEED, resolve
from lmtasks.artifacts.model_card import write_card
from lmtasks.artifacts.run_folder import RECORD, write_json
from lmtasks.config.request import as_record
from lmtasks.data.examples import one_example
from lmtasks.errors import RunError
from lmtasks.models.architectures import adapted
from lmtasks.models.document_mask import isolate
from lmtasks.models.forward import in_mode
from lmtasks.registry.catalog import Catalog
from lmtasks.runs.prepare import Prepared
from lmtasks.training.evaluation import fixed_chance


def new_record(prepared: Prepared, catalog: Catalog) -> dict[str, Any]:
    """``run.json`` as it stands before training."""
    request, plan = prepared.request, prepared.plan
    recipe = request.recipe
    known = catalog.name_of(recipe)
    owner = catalog.owner(known) if known else None
    starter = recipe.starter
    return {
        "status": "running",
        "owner": owner.name if owner else "unknown",
        "origin": owner.origin if owner else None,
        "summary": recipe.summary,
        "pipeline": recipe.pipeline,
        "model_class": recipe.model_class,
        "perplexity_label": recipe.perplexity_name(request.options),
        "base_model": request.model.model_name_or_path,
        "model_type": prepared.model.config.model_type,
        "parameters": plan.parameters,
        "data": {
            "source": plan.data,
            "medium": prepared.texts.medium,
            "sample": request.sample,
            "dataset_name": request.data.dataset_name,
            "train": plan.train,
            "evaluation": plan.evaluation,
        },
        **as_record(request),
        "request": prepared.asked,
        "seeds": {"seed": request.seed, "split": request.data.split_seed, "evaluation": EVALUATION_SEED},
        "versions": {
            "lmtasks": metadata.version("lmtasks"),
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "datasets": metadata.version("datasets"),
        },
        "example": recipe.example if recipe.medium or (starter and starter.texts) else None,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def verify(model: PreTrainedModel, prepared: Prepared) -> None:
    """Load the saved model and compare one batch: what was saved must be what was trained.

    Raises:
        RunError: it is not.
    """
    request = prepared.request
    batch = one_example(request, prepared.processor, prepared.texts.evaluation, "held-out")
    saved = resolve(request.recipe.model_class).from_pretrained(
        prepared.folder, trust_remote_code=request.model.trust_remote_code, dtype=torch.float32
    )
    saved = adapted(saved, request.recipe)
    if "document_ids" in batch:
        isolate(saved, request.recipe)
    with in_mode(model), torch.no_grad():
        device = next(model.parameters()).device
        batch = {name: value.to(device) for name, value in batch.items()}
        with fixed_chance():
            ours = request.recipe.loss(model, batch)
        with fixed_chance():
            theirs = request.recipe.loss(saved.to(device).eval(), batch)
    # The same weights on the same device; a wrong one moves the loss of a model that knows little by very little.
    if not torch.isclose(ours[0].cpu().double(), theirs[0].cpu().double(), rtol=1e-5):
        raise RunError(
            f"the model saved in '{prepared.folder}' is not the one that was trained: loss {float(theirs[0]):.4f}"
            f" instead of {float(ours[0]):.4f} on one example",
            "do not use it; the last checkpoint in checkpoints/ may be good. Please report this",
        )


def write_results(
    folder: Path,
    record: dict[str, Any],
    trainer: Any,
    train_metrics: Mapping[str, float],
    eval_metrics: Mapping[str, float],
) -> None:
    """Write the results, the card and, last of all, that the run is done."""
    write_json(folder / "train_results.json", train_metrics)
    write_json(folder / "eval_results.json", eval_metrics)
    write_json(folder / "all_results.json", {**train_metrics, **eval_metrics})
    trainer.state.save_to_json(str(folder / "trainer_state.json"))
    # The status is written last: a folder that says "done" is complete.
    record |= {"status": "done", "metrics": {**train_metrics, **eval_metrics}}
    write_card(folder, record)
    write_json(folder / RECORD, record)
