"""A run that was finished before."""

from __future__ import annotations

from lmtasks.artifacts.run_folder import read_record
from lmtasks.config.request import Request
from lmtasks.config.world import World
from lmtasks.progress import say
from lmtasks.runs.place import Place
from lmtasks.runs.publishing import publish
from lmtasks.runs.result import Run


def finished(request: Request, place: Place, world: World) -> Run:
    """The run in a place where it is finished; what may have been left to do is to publish it."""
    record = read_record(place.folder) or {}
    say(f"the run in '{place.folder}' is finished")
    url = publish(request, place.folder) if world.is_main else None
    return Run.of(request.recipe, place.folder, record, record["metrics"], url=url)
