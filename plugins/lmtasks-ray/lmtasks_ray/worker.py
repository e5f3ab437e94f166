"""What each worker of a run does, on whichever node it is."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path

LOOK = 0.5
"""Seconds between two looks at whether the run is to stop."""

CODE = "code"
"""The beginning of the name of a file with the exit code of a worker."""

STOP = "stop"
"""The file by which the machine that launched a run stops it: no signal reaches a worker's thread."""


class EndedError(RuntimeError):
    """The run has ended so that another attempt may come further."""


def work(config):
    """Carry out the command of ``config["job"]``, an :class:`lmtasks.Job`; its exit code is left in a file.

    Raises:
        EndedError: another attempt may come further; by an error Ray knows that it has failed.
    """
    job, folder = config["job"], Path(config["folder"])
    import ray.train

    import lmtasks
    from lmtasks_ray.reporting import WORKER

    os.environ[WORKER] = "1"
    rank = ray.train.get_context().get_world_rank()
    stop = threading.Event()
    threading.Thread(target=_watch, args=(folder / STOP, stop), daemon=True).start()
    with contextlib.ExitStack() as stack:
        for stream in ("stdout", "stderr"):
            file = stack.enter_context((folder / f"{stream}-{rank}.txt").open("a", buffering=1))
            stack.enter_context(getattr(contextlib, f"redirect_{stream}")(file))
        code = lmtasks.worker(job, stop)
    (folder / f"{CODE}-{rank}.txt").write_text(str(code))
    if job.may_go_on(code):
        raise EndedError(f"the run has ended with exit code {code}")
    ray.train.report({"exit_code": code, **_figures(job, code)})


def _watch(file, stop):
    while not file.exists():
        time.sleep(LOOK)
    stop.set()


def _figures(job, code):
    """The figures of a finished run."""
    results = job.folder and job.folder / "all_results.json"
    return json.loads(results.read_text()) if code == 0 and results and results.exists() else {}
