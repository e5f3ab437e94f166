"""A command in one of the processes that share it, wherever a launcher has started them."""

from __future__ import annotations

import os
import platform
import threading

from lmtasks.api import Job
from lmtasks.cli.app import selecting, told
from lmtasks.config.launched import JOB
from lmtasks.errors import InputError


def worker(job: Job, stop: threading.Event | None = None) -> int:
    """The exit code of a job's command, carried out by this process as one of those that share it.

    What a launcher calls in each of its processes, in any thread, once ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``,
    ``MASTER_ADDR`` and ``MASTER_PORT`` are set, or torch's process group is up. Errors are told on stderr, results on
    stdout; it neither raises nor exits, but for what is a bug of ours.

    Args:
        stop: stops training when it is set, as SIGTERM does; for threads that no signal reaches.
    """
    ended = threading.Event()

    def work() -> int:
        try:
            os.chdir(job.cwd)
        except OSError as error:
            raise InputError(
                f"'{job.cwd}', where the command was given, is no folder of {platform.node()}: {error.strerror}",
                "give the command in a folder that all machines share",
            ) from error
        os.environ[JOB] = job.mark
        # See lmtasks/__init__.py, which was imported before the process knew that it is one of several.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        return selecting(list(job.command))

    if stop is not None:
        threading.Thread(target=_pass_on, args=(stop, ended), name="lmtasks-stop", daemon=True).start()
    try:
        return told(work)
    finally:
        ended.set()


def _pass_on(stop: threading.Event, ended: threading.Event) -> None:
    """Stop training when that is asked for, or as soon as it begins."""
    stop.wait()
    while not ended.wait(0.2):
        from lmtasks.training.signals import ask_to_stop

        if ask_to_stop():
            return
