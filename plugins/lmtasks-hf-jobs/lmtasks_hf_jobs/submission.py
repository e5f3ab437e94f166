"""A job on the Hub, seen from the machine that submitted it."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time

import lmtasks
from lmtasks import InputError, RunError

LOOK = 2
"""Seconds between two looks at whether a job has ended."""

STOPPED = 143
"""Exit code of a run that was stopped; the Hub says no more than that the job was cancelled."""

_OF_THIS_MACHINE = re.compile(r"\w*(HOME|CACHE|OFFLINE|PATH|ENDPOINT|THREADS)|XDG_\w+|CUDA_\w+|NCCL_\w+|GLOO_\w+")
"""Variables that mean nothing on another machine."""

_CODE = re.compile(r"exit code:? (\d+)", re.IGNORECASE)


def check(job, options):
    """Refuse what cannot travel to the Hub, or would not come back from there."""
    from huggingface_hub import get_token

    if job.nodes > 1:
        raise InputError(
            f"--num_nodes {job.nodes}: a Job is one machine", "a larger --hf_jobs.flavor has more GPUs, as h200x8"
        )
    data = "push it to the Hub, and name it there: --dataset_name USER/NAME, --model USER/NAME"
    for name in ("train_file", "validation_file"):
        said = job.values.get(name) or []
        for file in [said] if isinstance(said, str) else said:
            if "://" not in file:
                raise InputError(f"--{name} '{file}' is of this machine, and the job is on another", data)
    if job.files:
        raise InputError(f"'{job.files[0]}' is on this machine, and the job on another", data)
    leaves = str(job.values.get("push_to_hub", "")).lower() == "true" or "://" in str(job.values.get("output_dir"))
    prepares = job.command[0] == "prepare"
    if job.restarts and not leaves:
        raise InputError(
            f"--launcher hf-jobs needs {'an --output_dir elsewhere' if prepares else '--push_to_hub'}:"
            " the machine and all its files are gone when the job has ended",
            "--output_dir hf://datasets/USER/NAME" if prepares else "add --push_to_hub --hub_model_id USER/NAME",
        )
    if get_token() is None:
        raise InputError("a Job needs a token of the Hub, and there is none", "hf auth login, or set HF_TOKEN")


def submit(job, options):
    """The job, which is on the Hub when this returns."""
    return Submission(job, options)


def command(job, options):
    """The words that the container runs."""
    words = ["lmtasks", *job.command, *(["--num_processes", str(job.processes)] if job.processes > 1 else [])]
    wanted = [f"lmtasks=={lmtasks.__version__}"] if options.install is None else options.install
    first = [shlex.join(["pip", "install", "--quiet", *wanted])] if any(wanted) else []
    return ["sh", "-c", " && ".join([*first, f"exec {shlex.join(words)}"])]


class Submission:
    """The handle."""

    def __init__(self, job, options):
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HfHubHTTPError

        self._api, self._options = HfApi(), options
        try:
            self._submitted = self._api.run_job(
                image=options.image,
                command=command(job, options),
                env={name: os.environ[name] for name in job.variables if not _OF_THIS_MACHINE.fullmatch(name)},
                # What nobody may see goes where the Hub keeps it so, and neither into the command nor among the others.
                secrets={**{name: os.environ[name] for name in job.secrets}, "HF_TOKEN": get_token()},
                flavor=options.flavor,
                timeout=60 * options.minutes,
                name="lmtasks",
                namespace=options.namespace,
            )
        except HfHubHTTPError as error:
            told = getattr(error, "server_message", None) or str(error).splitlines()[0]
            raise RunError(
                f"the Hub has refused the job: {told}", "see hf jobs hardware, and what your plan allows"
            ) from error
        self._of = {"job_id": self._submitted.id, "namespace": self._submitted.owner.name}
        print(f"hf-jobs: {self._submitted.url}", file=sys.stderr)

    def wait(self):
        """The exit code; what the job writes is shown meanwhile."""
        if self._options.detach:
            return 0
        for line in self._api.fetch_job_logs(**self._of, follow=True):
            print(line, file=sys.stderr, flush=True)
        while True:
            status = self._api.inspect_job(**self._of).status
            if status.stage == "COMPLETED":
                return 0
            if status.stage in ("CANCELED", "DELETED"):
                return STOPPED
            if status.stage == "ERROR":
                told = _CODE.search(status.message or "")
                return int(told[1]) if told else RunError.exit_code
            time.sleep(LOOK)

    def cancel(self):
        """Cancel the job; the Hub gives it no time to save anything."""
        self._api.cancel_job(**self._of)

    def logs(self):
        """What the job has written so far."""
        return "".join(f"{line}\n" for line in self._api.fetch_job_logs(**self._of))
