"""Failures while training: of the machine, of a made-up checkpoint, and out of the processes of a data loader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from lmtasks import errors
from lmtasks.api import Batch, Collate, Example
from lmtasks.artifacts.failures import OUT_OF_MEMORY
from lmtasks.data.worker_errors import FromWorkerError, leaving_worker
from lmtasks.errors import RunError


@dataclass(frozen=True)
class Telling:
    """A collator whose errors of ours arrive as they are, also from a process of the data loader."""

    collate: Collate

    def __call__(self, examples: list[Example]) -> Batch:
        """The batch."""
        with leaving_worker():
            return self.collate(examples)


@contextmanager
def failures_told(checkpoint: Path | None) -> Iterator[None]:
    """Say what the user can do about a failure of the machine, or of a checkpoint that somebody has made up.

    Raises:
        LmtasksError: this; or what a process of a data loader raised, of the kind and with the words of there.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise RunError("out of memory while training", OUT_OF_MEMORY) from error
    except UnpicklingError as error:
        raise RunError(
            f"'{checkpoint}' holds something else than data, which was not run", "resume another checkpoint"
        ) from error
    except FromWorkerError as error:
        # The last line of the traceback is the error itself, behind its kind.
        told: dict[str, Any] = json.loads(str(error).strip().splitlines()[-1].partition(": ")[2])
        raise getattr(errors, told["kind"])(told["message"], told["hint"]) from error
