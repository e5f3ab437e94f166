"""slurm: a launcher for lmtasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmtasks import Launcher, hookimpl, option


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What a job asks of the cluster."""

    partition: str | None = option(None, help="partition; the cluster's default when not given")
    gpus: int = option(0, help="GPUs of each node", ge=0)
    cpus: int = option(1, help="cores of each process", ge=1)
    memory: str | None = option(None, help="memory of each node, such as 64GB")
    minutes: int = option(1440, help="time of the job", ge=1)
    sbatch: list[str] | None = option(None, help="whatever else sbatch takes: account=lab qos=long")
    warning: int = option(120, help="seconds before its end at which a run saves and is queued again", ge=1)
    requeues: int = option(10, help="times that it is queued again because its time was up", ge=0)
    max_restarts: int = option(0, help="times that a run which failed is submitted again, and goes on", ge=0, le=1000)
    logs: str = option("slurm", help="folder for what the processes write")
    detach: bool = option(False, help="submit the job, and do not wait for it")
    cluster: Literal["slurm", "local"] = option("slurm", help="local: processes of this machine, to try it out")


SLURM = Launcher(
    name="slurm",
    summary="A job of a Slurm cluster.",
    options=SlurmOptions,
    check="lmtasks_slurm.submission:check",
    submit="lmtasks_slurm.submission:submit",
)


@hookimpl
def lmtasks_launchers():
    """The launcher of this package."""
    return [SLURM]
