"""Runs that end in time, a tracker that writes CSV, and a command that says how fast a run was."""

from dataclasses import dataclass

from lmtasks import Command, Extension, hookimpl, option


@dataclass(frozen=True, kw_only=True)
class TimeBudgetOptions:
    """When training has to end."""

    minutes: float | None = option(None, help="minutes of training, after which the run ends", gt=0)


TIME_BUDGET = Extension(
    name="time-budget",
    summary="Runs that end in time, figures as CSV, and the pace of a run.",
    options=TimeBudgetOptions,
    callbacks="lmtasks_time_budget.callbacks:callbacks",
    trackers={"csv": "lmtasks_time_budget.callbacks:csv_tracker"},
    commands=[
        Command(name="pace", takes="RUN", summary="how fast a run trained", run="lmtasks_time_budget.pace:command")
    ],
)


@hookimpl
def lmtasks_extensions() -> list[Extension]:
    """The extension of this package."""
    return [TIME_BUDGET]
