"""What a signal makes of a run: its end, and a word on how far it got."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lmtasks.artifacts.resume import interrupted
from lmtasks.errors import Stopped
from lmtasks.training.signals import Signals


@dataclass
class Stage:
    """How far a run is: its folder, as soon as that is known."""

    folder: Path | None = None


@contextmanager
def interruptible() -> Iterator[Stage]:
    """Let SIGINT and SIGTERM end what is done here, and tell what is safe.

    Raises:
        Interrupted: one did.
    """
    stage = Stage()
    try:
        with Signals():
            yield stage
    except Stopped as stop:
        raise interrupted(stop.number, stage.folder) from None
