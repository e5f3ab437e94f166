"""What each process of a job does, on whichever node it is."""

from __future__ import annotations

import os
import signal
import sys
import time

from submitit.helpers import DelayedSubmission, TorchDistributedEnvironment

import lmtasks

REQUEUED = 144
"""Exit code of a process whose job is queued again; submitit's own."""

GRACE = 3
"""Seconds in which the first process has the job queued again, before the others are gone."""


class Task:
    """A process of a job; submitit calls it, and again after the job was queued again.

    Args:
        job: an :class:`lmtasks.Job`.
    """

    def __init__(self, job):
        self.job = job

    def __call__(self):
        """The exit code of the command."""
        ours = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        cores = os.environ.get("SLURM_CPUS_PER_TASK") or max(1, (os.cpu_count() or 1) // ours.local_world_size)
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))
        with _Warning() as warning:
            code = lmtasks.worker(self.job)
        if not warning.came or code == 0:
            return code
        if ours.rank == 0:
            warning.requeue()  # which ends this process
        time.sleep(GRACE)
        sys.exit(REQUEUED)

    def checkpoint(self):
        """The same once more: the run itself has saved all that it needs to go on."""
        return DelayedSubmission(self)


class _Warning:
    """SIGUSR2, by which Slurm says that a job has to end soon: the run stops as after SIGTERM, and is queued again.

    submitit's handler would have the job queued again at once, in the middle of a step.
    """

    def __enter__(self):
        self.came = False
        self._requeue = signal.getsignal(signal.SIGUSR2)
        signal.signal(signal.SIGUSR2, self._hear)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit's passes it over
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGUSR2, self._requeue)

    def _hear(self, number, frame):
        self.came = True
        os.kill(os.getpid(), signal.SIGTERM)

    def requeue(self):
        """Have the job queued again."""
        self._requeue(signal.SIGUSR2, None)
