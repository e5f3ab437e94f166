"""The job that this process is one of, where a launcher started it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

JOB = "LMTASKS_JOB"
"""The variable with the mark of the job; see :class:`lmtasks.Job`."""


def job_mark() -> str:
    """The mark of this process's job; empty where it has none."""
    return os.environ.get("LMTASKS_JOB", "")


def is_attempt(record: Mapping[str, Any] | None) -> bool:
    """Whether a run was begun by an earlier attempt at this very job, as the run's record says."""
    return record is not None and bool(job_mark()) and record.get("job") == job_mark()
