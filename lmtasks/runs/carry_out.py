"""A request, carried out: find its place, prepare, execute; nothing where it was carried out before."""

from __future__ import annotations

from lmtasks.artifacts.run_folder import read_record
from lmtasks.config.request import Request
from lmtasks.config.world import World
from lmtasks.progress import say
from lmtasks.registry.catalog import Catalog
from lmtasks.runs.execute import execute
from lmtasks.runs.interruption import Stage
from lmtasks.runs.place import Place, place_of
from lmtasks.runs.plan import Plan
from lmtasks.runs.prepare import prepare
from lmtasks.runs.publishing import publish
from lmtasks.runs.result import Run


def carry_out(request: Request, catalog: Catalog, world: World, stage: Stage) -> Run | Plan:
    """The finished run, or the plan where only that was asked for; see :func:`lmtasks.runs.runner.run`."""
    place = place_of(request, world)
    stage.folder = place.folder
    if place.start.how == "finished":
        return _finished(request, place, world)
    prepared = prepare(request, place)
    if request.output.dry_run:
        return prepared.plan
    for line in prepared.plan.lines():
        say(line)
    return execute(prepared, catalog, world)


def _finished(request: Request, place: Place, world: World) -> Run:
    """The run that was finished before; what may have been left to do is to publish it."""
    record = read_record(place.folder) or {}
    say(f"the run in '{place.folder}' is finished")
    return Run(
        recipe=request.recipe,
        output_dir=place.folder,
        metrics=record["metrics"],
        plan=None,
        perplexity_name=record["perplexity_label"],
        started_small=False,
        url=publish(request, place.folder) if world.is_main else None,
        example=record["example"],
    )
