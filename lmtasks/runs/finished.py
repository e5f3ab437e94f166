"""A run that was finished before."""

from __future__ import annotations

from pathlib import Path

from lmtasks.artifacts.run_folder import not_finished, read_record
from lmtasks.config.request import Request
from lmtasks.config.world import World
from lmtasks.errors import InputError
from lmtasks.models.architectures import register_architectures
from lmtasks.progress import say
from lmtasks.registry.catalog import load_catalog
from lmtasks.registry.recorded import recorded_recipe
from lmtasks.runs.place import Place
from lmtasks.runs.publishing import publish
from lmtasks.runs.result import Run


def finished(request: Request, place: Place, world: World) -> Run:
    """The run in a place where it is finished; what may have been left to do is to publish it."""
    record = read_record(place.folder) or {}
    say(f"the run in '{place.folder}' is finished")
    url = publish(request, place.folder) if world.is_main else None
    return Run.of(request.recipe, place.folder, record, record["metrics"], url=url)


def load_run(folder: str | Path) -> Run:
    """The finished run in a folder.

    Raises:
        InputError: there is none, it is not finished, or its recipe is not installed.
    """
    record = read_record(folder)
    if record is None:
        raise InputError(f"'{folder}' is not the folder of a run: it has no run.json", "lmtasks.load_run(FOLDER)")
    if record.get("status") != "done":
        raise not_finished(str(folder))
    catalog = load_catalog()
    register_architectures(catalog)
    recipe = catalog.watched(recorded_recipe(record, catalog))
    return Run.of(recipe, Path(folder), record, record["metrics"], url=record.get("url"))
