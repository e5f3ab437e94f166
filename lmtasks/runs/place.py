"""The place of a run: its folder, and how it begins there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lmtasks.artifacts.lock import require_free
from lmtasks.artifacts.resume import AUTO, Asked, Start, is_of, start_in
from lmtasks.artifacts.run_folder import choose_folder, is_bare, read_record
from lmtasks.config.global_batch import Division, global_batch
from lmtasks.config.launched import is_attempt
from lmtasks.config.request import Request
from lmtasks.config.training_arguments import devices
from lmtasks.config.world import ALONE, World
from lmtasks.errors import InputError
from lmtasks.runs.apart import require_apart
from lmtasks.runs.shared_folder import require_shared


@dataclass(frozen=True)
class Place:
    """Where a run goes.

    Args:
        asked: what the request asks for, to be compared with what is there.
        start: how it begins.
        batch: the examples of one step, and how they are divided.
    """

    folder: Path
    asked: Asked
    start: Start
    batch: Division


def place_of(request: Request, world: World = ALONE) -> Place:
    """The place of a run. One process chooses for all: another would see what others have made meanwhile.

    Raises:
        InputError: the folder cannot be had; nothing was written.
    """
    require_apart(request)
    place = world.from_main(lambda: _place(request, world))
    if place.start.how != "finished" and not request.output.dry_run:
        require_shared(place.folder, world)
    return place


def _place(request: Request, world: World) -> Place:
    batch = global_batch(request, world.size if world.size > 1 else devices(request.training))
    asked = Asked.of(request, batch.as_record())
    folder = _chosen(request, asked)
    require_free(folder)
    return Place(folder, asked, _start(request, folder, asked), batch)


def _start(request: Request, folder: Path, asked: Asked) -> Start:
    """How the run begins in its folder, as that is now; see :func:`lmtasks.artifacts.resume.start_in`."""
    output = request.output
    if _is_ours(folder):
        # What the user said of an earlier run, to replace it say, was for the first attempt.
        return start_in(folder, asked, overwrite=False, resume=AUTO)
    return start_in(folder, asked, overwrite=output.overwrite_output_dir, resume=output.resume_from_checkpoint)


def _is_ours(folder: Path) -> bool:
    """Whether an earlier attempt at this job has begun a run in a folder."""
    with suppress(InputError):  # a damaged record is of nobody
        return not is_bare(folder) and is_attempt(read_record(folder))
    return False


def require_as_seen(request: Request, place: Place) -> None:
    """Refuse a folder that another run had since it was looked at.

    Raises:
        InputError: one had.
    """
    if _start(request, place.folder, place.asked) != place.start:
        raise InputError(f"another run has changed '{place.folder}' meanwhile", "start the same command once more")


def _chosen(request: Request, asked: Asked) -> Path:
    """The folder that was named; else a new one, or where a run is to go on the one that it began in."""

    def mine(folder: Path) -> bool:
        with suppress(InputError):  # a damaged record is of nobody
            return is_bare(folder) or is_of(read_record(folder), asked)
        return False

    resumes = bool(request.output.resume_from_checkpoint)
    return choose_folder(request.recipe.name, request.output.output_dir, mine if resumes else _is_ours)
