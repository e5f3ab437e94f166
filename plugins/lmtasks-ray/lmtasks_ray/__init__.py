"""ray: a launcher for lmtasks, and an extension that reports to Ray."""

from __future__ import annotations

from dataclasses import dataclass

from lmtasks import Extension, Launcher, hookimpl, option


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """What a run asks of the cluster."""

    address: str | None = option(
        None, help="HOST:PORT of the cluster; RAY_ADDRESS or the one of this machine when not given; local starts one"
    )
    cpus: int = option(1, help="cores of each process", ge=1)
    gpus: int = option(0, help="GPUs of each process", ge=0, le=1)
    max_failures: int = option(0, help="times that a run which failed is started again, and goes on", ge=0, le=1000)
    storage: str = option("ray", help="folder that all nodes share, for Ray's own files and what the processes write")


RAY = Launcher(
    name="ray",
    summary="Workers of a Ray cluster.",
    options=RayOptions,
    check="lmtasks_ray.training:check",
    submit="lmtasks_ray.training:submit",
)

REPORT = Extension(
    name="ray-report",
    summary="The figures of evaluations, for Ray Train and its dashboard.",
    callbacks="lmtasks_ray.reporting:callbacks",
)


@hookimpl
def lmtasks_launchers():
    """The launcher of this package."""
    return [RAY]


@hookimpl
def lmtasks_extensions():
    """The extension of this package."""
    return [REPORT]
