"""hf-jobs: a launcher for lmtasks."""

from __future__ import annotations

from dataclasses import dataclass

from lmtasks import Launcher, hookimpl, option


@dataclass(frozen=True, kw_only=True)
class HfJobsOptions:
    """What a job asks of the Hub."""

    flavor: str = option("cpu-basic", help="hardware, such as a10g-small or h200x8; hf jobs hardware lists it")
    minutes: int = option(60, help="time of the job, after which it is ended", ge=1)
    image: str = option("python:3.12", help="Docker image, or Space, that the command runs in")
    install: list[str] | None = option(None, help="what pip installs there first; lmtasks when not given")
    namespace: str | None = option(None, help="user or organisation that the job is of; you when not given")
    detach: bool = option(False, help="submit the job, and do not wait for it")


HF_JOBS = Launcher(
    name="hf-jobs",
    summary="A Job of the Hugging Face Hub.",
    options=HfJobsOptions,
    check="lmtasks_hf_jobs.submission:check",
    submit="lmtasks_hf_jobs.submission:submit",
)


@hookimpl
def lmtasks_launchers():
    """The launcher of this package."""
    return [HF_JOBS]
