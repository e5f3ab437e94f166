"""A run, watched from beside: what it logs, and how it ends. Nothing in its folder is changed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmtasks.artifacts.lock import is_held
from lmtasks.artifacts.log import Entry, GrowingLog
from lmtasks.artifacts.run_folder import END, LOG, RECORD, read_record
from lmtasks.errors import InputError, RunError

NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "fuse", "gluster", "lustre", "gpfs", "beegfs", "virtiofs")
"""What the types of file systems begin with on which another machine may have a lock that is not seen here."""


@dataclass(frozen=True)
class End:
    """How a run ended: its exit code, and in words why where it is not 0."""

    code: int
    reason: str = ""
    hint: str = ""


def watch(folder: Path, interval: float, patience: float) -> Iterator[Entry | End]:
    """The entries of a run's log as they come, and last its end.

    A run that goes on has a lock on its folder, and writes how it ends before it lets go: where there is neither, it
    is dead. On a disk of another machine a lock may not be seen; there a run counts as dead when it has logged
    nothing for so long.

    Args:
        interval: seconds between two looks.
        patience: seconds without a word after which a run is given up, where there is no lock to tell by.

    Raises:
        InputError: the folder is none of a run.
    """
    if read_record(folder) is None:
        raise InputError(f"'{folder}' is not the folder of a run: it has no {RECORD}", "lmtasks watch RUN")
    log, heard = GrowingLog(folder), time.monotonic()
    while True:
        held = is_held(folder)
        # In this order: how it ends is written before the lock goes, and the last entries before that.
        end = None if held else _told(folder)
        for entry in log.news():
            heard = time.monotonic()
            yield entry
        if end is None and held is False and not _elsewhere(folder):
            end = End(RunError.exit_code, "no process has its folder, and it has not said how it ended", _RESUME)
        if end is None and not held and time.monotonic() - heard > patience:
            end = End(RunError.exit_code, f"nothing new for {patience:,.0f} s, and no lock is seen from here", _RESUME)
        if end is not None:
            yield end
            return
        time.sleep(interval)


_RESUME = "the same command with --resume_from_checkpoint auto goes on from its last checkpoint"


def steps_of(record: dict[str, Any]) -> int | None:
    """The steps of a run, where its record says how many."""
    steps = (record.get("training") or {}).get("max_steps")
    return steps if isinstance(steps, int) and steps > 0 else None


def _told(folder: Path) -> End | None:
    """The end of a run as its folder tells it; None where it does not."""
    if (read_record(folder) or {}).get("status") == "done":
        return End(0)
    with suppress(OSError, ValueError, TypeError, KeyError):
        said = json.loads((folder / END).read_text(encoding="utf-8"))
        return End(int(said["exit_code"]), str(said["reason"]), str(said.get("hint") or ""))
    return None


def _elsewhere(folder: Path) -> bool:
    """Whether the folder may be on the disk of another machine; where nobody can say, it is not."""
    with suppress(OSError):
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
        place = os.path.realpath(folder / LOG)
        around = [mount for mount in mounts if place.startswith(f"{mount[1].rstrip('/')}/")]
        kind = max(around, key=lambda mount: len(mount[1]), default=["", "", ""])[2]
        return kind.startswith(NETWORK)
    return False
