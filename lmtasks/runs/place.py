"""The place of a run: its folder, and how it begins there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lmtasks.artifacts.lock import require_free
from lmtasks.artifacts.resume import Asked, Start, is_of, start_in
from lmtasks.artifacts.run_folder import choose_folder, is_bare, read_record
from lmtasks.config.request import Request
from lmtasks.config.world import ALONE, World
from lmtasks.errors import InputError
from lmtasks.training.extensions import arguments_for


@dataclass(frozen=True)
class Place:
    """Where a run goes.

    Args:
        asked: what the request asks for, to be compared with what is there.
        start: how it begins.
    """

    folder: Path
    asked: Asked
    start: Start


def place_of(request: Request, world: World = ALONE) -> Place:
    """The place of a run. One process chooses for all: another would see what others have made meanwhile.

    Raises:
        InputError: the folder cannot be had; nothing was written.
    """
    asked = Asked.of(request)
    place = None
    if world.is_main:
        folder = _chosen(request, asked)
        require_free(folder)
        place = Place(folder, asked, _start(request, folder, asked, world))
    if world.size > 1:
        arguments_for(request, Path(), 0)  # from then on the processes can talk
    found: Place = world.broadcast(place)
    return found


def _start(request: Request, folder: Path, asked: Asked, world: World) -> Start:
    """How the run begins in its folder, as that is now; see :func:`lmtasks.artifacts.resume.start_in`."""
    output = request.output
    return start_in(
        folder, asked, overwrite=output.overwrite_output_dir, resume=output.resume_from_checkpoint, processes=world.size
    )


def require_as_seen(request: Request, place: Place, world: World) -> None:
    """Refuse a folder that another run had since it was looked at.

    Raises:
        InputError: one had.
    """
    if _start(request, place.folder, place.asked, world) != place.start:
        raise InputError(f"another run has changed '{place.folder}' meanwhile", "start the same command once more")


def _chosen(request: Request, asked: Asked) -> Path:
    """The folder that was named; else a new one, or where a run is to go on the one that it began in."""

    def mine(folder: Path) -> bool:
        with suppress(InputError):  # a damaged record is of nobody
            return is_bare(folder) or is_of(read_record(folder), asked)
        return False

    resumes = bool(request.output.resume_from_checkpoint)
    return choose_folder(request.recipe.name, request.output.output_dir, *([mine] if resumes else []))
