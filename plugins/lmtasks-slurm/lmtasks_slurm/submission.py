"""A job on its way through the queue, seen from the machine that submitted it."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from lmtasks import InputError, RunError

LOOK = 0.5
"""Seconds between two looks at what the first process has written."""

_SUBMITIT = re.compile(r"^submitit \w+ \(.*$\n?", re.MULTILINE)
"""What submitit itself writes between the lines of a process."""


def check(job, options):
    """Refuse a job where there is no Slurm, or that it would not take."""
    if options.cluster == "local":
        if job.nodes > 1:
            raise InputError(
                f"--num_nodes {job.nodes}: --slurm.cluster local is one machine", "leave out --slurm.cluster"
            )
    elif shutil.which("sbatch") is None:
        raise InputError(
            "there is no Slurm on this machine: sbatch is not found",
            "give the command on a login node of the cluster, or try it out with --slurm.cluster local",
        )
    for word in options.sbatch or ():
        if not re.fullmatch(r"[a-z][\w-]*=.+", word):
            raise InputError(
                f"--slurm.sbatch cannot be '{word}': it must be NAME=VALUE", "--slurm.sbatch account=lab qos=long"
            )
    if options.warning >= 60 * options.minutes:
        raise InputError(
            f"--slurm.warning {options.warning}: the job has {60 * options.minutes} seconds in all",
            "give it more --slurm.minutes, or a shorter --slurm.warning",
        )


def submit(job, options):
    """The job, which is in the queue when this returns."""
    return Submission(job, options)


class Submission:
    """The handle."""

    def __init__(self, job, options):
        self._job, self._options = job, options
        self._cancelled = threading.Event()
        self._shown = 0
        self._submitted = self._submit()

    def wait(self):
        """The exit code; what the first process writes to stderr is shown meanwhile, and its stdout then."""
        if self._options.detach:
            return 0
        left = self._options.max_restarts
        while True:
            code = self._followed()
            if not left or self._cancelled.is_set() or not self._job.may_go_on(code):
                print(self._written("stdout"), end="", flush=True)
                return code
            left -= 1
            print(f"slurm: ended with exit code {code}, submitted again ({left} left)", file=sys.stderr)
            self._shown = 0
            self._submitted = self._submit()

    def cancel(self):
        """Stop the job: scancel sends SIGTERM, and Slurm waits a while before it kills."""
        self._cancelled.set()
        if self._options.cluster == "local":
            self._submitted._process.send_signal(signal.SIGTERM)  # its own cancel() would kill at once
        else:
            self._submitted.cancel()

    def logs(self):
        """What the first process has written to stderr and stdout."""
        return self._written("stderr") + self._written("stdout")

    def _submit(self):
        import submitit

        options, folder = self._options, Path(self._options.logs).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--slurm.logs '{options.logs}' cannot be made: {error.strerror}", "give a folder that all nodes share"
            ) from error
        requeues = {f"{options.cluster}_max_num_timeout": options.requeues}
        executor = submitit.AutoExecutor(folder, cluster=options.cluster, **requeues)
        executor.update_parameters(**parameters(self._job, options))
        from lmtasks_slurm.task import Task

        try:
            submitted = executor.submit(Task(self._job))
        except submitit.core.utils.FailedJobError as error:
            raise RunError(f"sbatch has refused the job: {error}", "see what the cluster takes: sinfo") from error
        print(f"slurm: job {submitted.job_id}, logs in {folder}", file=sys.stderr)
        return submitted

    def _followed(self):
        """The exit code of the job as it is in the queue now, once it is done."""
        while True:
            done = self._submitted.done()
            text = self._written("stderr")
            print(text[self._shown :], end="", file=sys.stderr, flush=True)
            self._shown = len(text)
            if done:
                code = self._exit_code()
                if code and "error: " not in text:  # another process was the first to see what is wrong
                    others = (self._written("stderr", number) for number in range(1, self._job.size))
                    print(next((told for told in others if "error: " in told), ""), end="", file=sys.stderr)
                return code
            time.sleep(LOOK)

    def _exit_code(self):
        codes = []
        for number in range(self._job.size):
            task = self._submitted.task(number)
            code = task.result() if task.paths.result_pickle.exists() and task.exception() is None else None
            codes.append(3 if code is None else code)  # killed without a word
        return max(codes) if self._cancelled.is_set() else next((code for code in codes if code), 0)

    def _written(self, stream, number=0):
        """The text of one stream of a process, without submitit's."""
        paths = self._submitted.task(number).paths
        file = getattr(paths, stream)
        return _SUBMITIT.sub("", file.read_text(errors="replace")) if file.exists() else ""


def parameters(job, options):
    """A job's needs as submitit has them."""
    slurm = {"slurm_signal_delay_s": options.warning}
    if options.partition:
        slurm["slurm_partition"] = options.partition
    if options.memory:
        slurm["slurm_mem"] = options.memory
    if options.sbatch:
        slurm["slurm_additional_parameters"] = dict(word.split("=", 1) for word in options.sbatch)
    return {
        "name": "lmtasks",
        "nodes": job.nodes,
        "tasks_per_node": job.processes,
        "cpus_per_task": options.cpus,
        "gpus_per_node": options.gpus,
        "timeout_min": options.minutes,
        **(slurm if options.cluster == "slurm" else {}),
    }
