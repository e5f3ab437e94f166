"""A request, carried out: find its place, prepare, execute; nothing where it was carried out before."""

from __future__ import annotations

from lmtasks.artifacts.failures import machine_failures
from lmtasks.config.request import Request
from lmtasks.config.world import World
from lmtasks.registry.catalog import Catalog
from lmtasks.runs.execute import execute
from lmtasks.runs.finished import finished
from lmtasks.runs.interruption import Stage
from lmtasks.runs.meeting import met
from lmtasks.runs.place import place_of
from lmtasks.runs.plan import Plan
from lmtasks.runs.result import Run
from lmtasks.runs.samples import prepare_with_samples


def carry_out(request: Request, catalog: Catalog, world: World, stage: Stage) -> Run | Plan:
    """The finished run, or the plan where only that was asked for; see :func:`lmtasks.runs.runner.run`."""
    with met(request, world) as ending:
        place = place_of(request, world)
        stage.folder = place.folder
        if place.start.how == "finished":
            return finished(request, place, world)
        with machine_failures(then="or put the caches elsewhere (HF_HOME, XDG_CACHE_HOME), then try again"):
            prepared = prepare_with_samples(request, place)
        if request.output.dry_run:
            return prepared.plan
        return execute(prepared, catalog, world, ending)
