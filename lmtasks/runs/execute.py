"""Execution of what was prepared: train, evaluate, save, verify, publish."""

from __future__ import annotations

from lmtasks.config.world import ALONE, World
from lmtasks.registry.catalog import Catalog
from lmtasks.runs.ending import Ending
from lmtasks.runs.figures import figures_of
from lmtasks.runs.held_folder import held
from lmtasks.runs.prepared import Prepared
from lmtasks.runs.publishing import publish
from lmtasks.runs.record import new_record, write_record
from lmtasks.runs.result import Run
from lmtasks.runs.results import save_results
from lmtasks.runs.saving import save_verified
from lmtasks.runs.training import tracked, train_prepared


def execute(prepared: Prepared, catalog: Catalog, world: World = ALONE, ending: Ending | None = None) -> Run:
    """Train, evaluate, save, verify and publish what was prepared, in a folder that no other run has meanwhile.

    Raises:
        InputError: another run has the folder, or had it since it was looked at.
        RunError: it failed on the way.
        Interrupted: a signal stopped it.
    """
    with held(prepared.request, prepared.place, ending or Ending(world)):
        return _execute(prepared, catalog, world)


def _execute(prepared: Prepared, catalog: Catalog, world: World) -> Run:
    request, folder = prepared.request, prepared.folder
    record = new_record(prepared, catalog)
    if world.is_main:
        write_record(folder, record)
    with tracked(prepared) as tell:
        trained = train_prepared(prepared)
        figures = figures_of(trained.model, request, prepared.processor, prepared.data.encoded.evaluations)
        tell(figures)
    record["files"] = save_verified(trained.model, prepared, world)
    if world.is_main:
        save_results(folder, prepared.data, record, trained, figures)
    world.barrier()
    url = publish(request, folder) if world.is_main else None
    metrics = {**trained.metrics, **figures}
    small = request.starts_small
    return Run.of(request.recipe, folder, record, metrics, plan=prepared.plan, started_small=small, url=url)
