"""The folder of a run while the run goes on: had alone, begun in, and left with a word where it ends early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lmtasks.artifacts.failures import machine_failures
from lmtasks.artifacts.lock import reserved
from lmtasks.artifacts.run_folder import clear, forget_end, sweep, write_end
from lmtasks.config.request import Request
from lmtasks.runs.ending import End, Ending
from lmtasks.runs.place import Place, require_as_seen

THEN = "then resume or start again"
"""What to do when a failure of the machine is mended."""


@contextmanager
def held(request: Request, place: Place, ending: Ending) -> Iterator[None]:
    """Have the folder of a run, ready to be written; the main process has it for all.

    Where the run ends before its time, a file in the folder says so: ``exit.json``.

    Raises:
        InputError: another run has the folder, or had it since it was looked at.
        RunError: the machine failed.
    """
    folder = place.folder

    def last_words(end: End) -> None:
        write_end(folder, end.code, end.reason, end.hint)

    if not ending.world.is_main:
        with machine_failures(folder, THEN):
            yield
        return
    with machine_failures(folder, THEN), reserved(folder):
        require_as_seen(request, place)
        sweep(folder)
        forget_end(folder)
        if place.start.how == "again":
            clear(folder)
        ending.last_words = last_words
        try:
            with machine_failures(folder, THEN):
                yield
        except BaseException as error:
            with suppress(OSError):
                sweep(folder)  # half a checkpoint may be what the disk is full of
                last_words(ending.of(error))
            raise
        finally:
            ending.last_words = lambda end: None  # from here on the folder may be another run's
