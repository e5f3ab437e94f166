"""Errors of ours on their way out of a process of a data loader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.data import get_worker_info

from lmtasks.errors import LmtasksError


class FromWorkerError(Exception):
    """An error of ours on its way: torch makes another of its kind, out of the text of its traceback alone."""


@contextmanager
def leaving_worker() -> Iterator[None]:
    """While this is open, an error of ours arrives as it is, also from a process of the data loader."""
    try:
        yield
    except LmtasksError as error:
        if get_worker_info() is None:
            raise
        told = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
        raise FromWorkerError(json.dumps(told)) from error
