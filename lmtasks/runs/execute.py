"""Execution of what was prepared: train, evaluate, save, verify, publish."""

from __future__ import annotations

from contextlib import suppress

from lmtasks.artifacts.lock import reserved
from lmtasks.artifacts.run_folder import clear, sweep
from lmtasks.config.world import ALONE, World
from lmtasks.registry.catalog import Catalog
from lmtasks.runs.figures import figures_of
from lmtasks.runs.place import require_as_seen
from lmtasks.runs.prepare import Prepared
from lmtasks.runs.publishing import publish
from lmtasks.runs.record import new_record, write_record, write_results
from lmtasks.runs.result import Run
from lmtasks.runs.training import train_prepared
from lmtasks.runs.verify import save_verified


def execute(prepared: Prepared, catalog: Catalog, world: World = ALONE) -> Run:
    """Train, evaluate, save, verify and publish what was prepared, in a folder that no other run has meanwhile.

    Raises:
        InputError: another run has the folder, or had it since it was looked at.
        RunError: it failed on the way.
        Interrupted: a signal stopped it.
    """
    if not world.is_main:
        return _execute(prepared, catalog, world)
    folder = prepared.folder
    with reserved(folder):
        require_as_seen(prepared.request, prepared.place)
        sweep(folder)
        if prepared.place.start.how == "again":
            clear(folder)
        try:
            return _execute(prepared, catalog, world)
        except BaseException:
            with suppress(OSError):
                sweep(folder)  # half a checkpoint may be what the disk is full of
            raise


def _execute(prepared: Prepared, catalog: Catalog, world: World) -> Run:
    request, folder = prepared.request, prepared.folder
    record = new_record(prepared, catalog)
    if world.is_main:
        write_record(folder, record)
    trained = train_prepared(prepared)
    figures = figures_of(trained.model, request, prepared.processor, prepared.data.encoded.evaluations)
    if world.is_main:
        record["files"] = save_verified(trained.model, prepared)
        write_results(folder, record, trained, figures)
    world.barrier()
    url = publish(request, folder) if world.is_main else None
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
