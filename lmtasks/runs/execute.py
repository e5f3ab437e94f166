"""Execution of what was prepared: train, evaluate, save, verify, publish."""

from __future__ import annotations

from functools import partial

from lmtasks.artifacts.publish import push
from lmtasks.artifacts.run_folder import (
    LOG,
    RECORD,
    checkpoint_to_resume,
    clear,
    require_usable,
    reserved,
    save_into,
    write_json,
)
from lmtasks.config.world import ALONE, World
from lmtasks.registry.catalog import Catalog
from lmtasks.runs.figures import figures_of
from lmtasks.runs.prepare import Prepared
from lmtasks.runs.record import new_record, write_results
from lmtasks.runs.result import Run
from lmtasks.runs.verify import verify
from lmtasks.training.trainer import Trained, train


def execute(prepared: Prepared, catalog: Catalog, world: World = ALONE) -> Run:
    """Train, evaluate, save, verify and publish what was prepared, in a folder that no other run has meanwhile.

    Raises:
        InputError: another run has the folder, or had it since it was looked at.
        RunError: it failed on the way.
        Interrupted: a signal stopped it.
    """
    if not world.is_main:
        return _execute(prepared, catalog, world)
    request, folder = prepared.request, prepared.folder
    overwrite, resume = request.output.overwrite_output_dir, request.training.get("resume_from_checkpoint")
    with reserved(folder):
        require_usable(folder, prepared.asked, overwrite=overwrite, resume=resume)
        if overwrite:
            clear(folder)
        return _execute(prepared, catalog, world)


def _execute(prepared: Prepared, catalog: Catalog, world: World) -> Run:
    request, folder = prepared.request, prepared.folder
    record = new_record(prepared, catalog)
    if world.is_main:
        write_json(folder / RECORD, record)
    trained = _train(prepared)
    figures = figures_of(trained.model, request, prepared.processor, prepared.data.encoded.evaluations)
    if world.is_main:
        record["files"] = save_into(folder, trained.model, prepared.processor)
        verify(trained.model, prepared)
        write_results(folder, record, trained, figures)
    world.barrier()
    url = None
    if request.output.push_to_hub and world.is_main:
        url = push(folder, request.output.hub_model_id or folder.name, private=request.output.hub_private_repo)
    return Run(
        recipe=request.recipe,
        output_dir=folder,
        metrics={**trained.metrics, **figures},
        plan=prepared.plan,
        perplexity_name=request.recipe.perplexity_name(request.options),
        started_small=request.starts_small,
        url=url,
        example=record["example"],
    )


def _train(prepared: Prepared) -> Trained:
    request, folder = prepared.request, prepared.folder
    resume, before_step = request.training.get("resume_from_checkpoint"), request.recipe.before_step
    return train(
        prepared.model,
        request.recipe,
        prepared.processor,
        prepared.arguments,
        prepared.train_dataset,
        prepared.eval_dataset,
        prepared.collators,
        folder / LOG,
        checkpoint_to_resume(folder, resume) if resume else None,
        *([partial(before_step, prepared.model, request.options)] if before_step else []),
    )
